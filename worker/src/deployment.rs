//! What workers say of the build that they are.

use temporalio_common::worker::WorkerDeploymentOptions;

/// For every worker: the SDK would otherwise read and hash the whole executable at each start, a tenth of a second and
/// more before the first poll. Nothing is routed by it; which harness decides is pinned in a session's own state.
pub fn options() -> WorkerDeploymentOptions {
    WorkerDeploymentOptions::from_build_id(concat!("steadyhand-", env!("CARGO_PKG_VERSION")).to_owned())
}
