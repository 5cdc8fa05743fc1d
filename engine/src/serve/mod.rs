//! gRPC over HTTP/2 on any stream: the engine's listener for other programs, and the same framing for callers that put
//! something of their own (an allow-list) in front of a call.

mod framing;
mod grpc;

pub use grpc::{connection, grpc};
