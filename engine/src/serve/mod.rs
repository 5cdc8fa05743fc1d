//! gRPC over HTTP/2 on any stream: the engine's listener for other programs, and the same framing for callers that put
//! something of their own (an allow-list) in front of a call.

mod accept;
mod framing;
mod grpc;
mod intake;
#[cfg(test)]
mod tests;

pub use accept::{Closing, accept};
pub use grpc::{Callee, connection};
pub use intake::MESSAGE_BYTES_MAX;

use crate::engine::Engine;
use tokio::net::TcpListener;

/// Serves the engine to whoever connects to `listener`, until `shutdown` resolves.
pub async fn grpc(engine: Engine, listener: TcpListener, shutdown: impl Future<Output = ()>) {
    accept(listener, shutdown, |stream, closing| connection(engine.clone(), stream, closing.begun())).await;
}
