//! Where previews go: the one exception to "a worker never calls the api", because losing them harms nothing.

use domain::delta::Delta;

/// Takes previews and must not block.
pub trait Deltas: Send + Sync {
    fn publish(&self, delta: Delta);
}

/// Nobody is listening.
pub struct NoDeltas;

impl Deltas for NoDeltas {
    fn publish(&self, _delta: Delta) {}
}
