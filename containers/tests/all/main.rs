//! Hands in containers, as their callers see them: the very tests that hands of bubblewrap pass (`hand/tests/all`), and what
//! holds of containers alone.
//!
//! They need Podman and root; `tests/src/podman.rs` says how a machine without is told apart.

#[path = "../../../hand/tests/all/crash.rs"]
mod crash;
#[path = "../../../hand/tests/all/disk.rs"]
mod disk;
#[path = "../../../hand/tests/all/fixture.rs"]
mod fixture;
#[path = "../../../hand/tests/all/isolation.rs"]
mod isolation;
#[path = "../../../hand/tests/all/launcher.rs"]
mod launcher;
#[path = "../../../hand/tests/all/limits.rs"]
mod limits;
mod only;
#[path = "../../../tests/src/podman.rs"]
mod podman;
#[path = "../../../hand/tests/all/protocol.rs"]
mod protocol;
#[path = "../../../hand/tests/all/resources.rs"]
mod resources;
#[path = "../../../hand/tests/all/shell.rs"]
mod shell;
#[path = "../../../hand/tests/all/takeover.rs"]
mod takeover;
mod walls;
