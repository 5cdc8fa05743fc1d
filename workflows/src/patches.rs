//! Changes to workflow code that alter what is recorded: numbered, never reused, never removed while a
//! history recorded before them may be replayed (`histories/`).
//!
//! To change the shell: add the next number here, ask `ctx.patched(NAME)` at the place of the change, keep
//! the old branch. There is none yet.
