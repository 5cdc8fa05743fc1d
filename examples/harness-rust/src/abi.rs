//! The contract with the host, version 1: `next(ptr, len)` gets the View as JSON and returns where the Decision lies.

use crate::{View, decide};

/// What the host reads before it asks anything: harness.json, as a custom section of the module.
#[cfg(target_arch = "wasm32")]
#[used]
#[unsafe(link_section = "steadyhand")]
static MANIFEST: [u8; include_bytes!("../harness.json").len()] = *include_bytes!("../harness.json");

/// Upper half the pointer, lower half the length. Every decision has an instance of its own, so nothing is freed.
///
/// # Safety
///
/// The host calls it with a place in this memory that it has just written `len` bytes to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn next(ptr: *const u8, len: usize) -> u64 {
    // SAFETY: see above.
    let json = unsafe { std::slice::from_raw_parts(ptr, len) };
    let view: View = serde_json::from_slice(json).expect("the host sends a View");
    let decision = serde_json::to_vec(&decide(&view)).expect("a decision is JSON").leak();
    ((decision.as_ptr() as u64) << 32) | decision.len() as u64
}
