//! HTTP/2 connections whose requests are answered by a function.

use super::framing::{MESSAGE_BYTES_MAX, respond, unframe};
use crate::engine::Engine;
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::Status;
use tracing::{debug, warn};

/// A peer that does not answer a ping for this long is gone, and its polls with it.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Serves the engine to whoever connects to `listener`, until `shutdown` resolves. Connections that are open then are
/// closed once their calls are answered, which `Engine::shutdown` makes polls do.
pub async fn grpc(engine: Engine, listener: TcpListener, shutdown: impl Future<Output = ()>) {
    tokio::pin!(shutdown);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(error = &error as &dyn std::error::Error, "connection without nodelay");
                }
                let engine = engine.clone();
                connections.spawn(connection(
                    move |service: String, rpc: String, headers: HeaderMap, body: Bytes| {
                        let engine = engine.clone();
                        async move { engine.call(&service, &rpc, &headers, body).await }
                    },
                    stream,
                ));
            }
            Err(error) => {
                // Out of file descriptors, most likely: taking a breath lets some connections end.
                warn!(error = &error as &dyn std::error::Error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    connections.shutdown().await;
}

/// Serves one connection: each request is answered by `call(service, rpc, headers, message)`. Returns when the peer
/// goes away.
pub async fn connection<Io, F, Answer>(call: F, io: Io)
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(String, String, HeaderMap, Bytes) -> Answer + Send + Sync + 'static,
    Answer: Future<Output = Result<Vec<u8>, Status>> + Send + 'static,
{
    let call = Arc::new(call);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let call = call.clone();
        async move { Ok::<_, Infallible>(respond(answer(&*call, request).await)) }
    });
    let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .serve_connection(TokioIo::new(io), service)
        .await;
    if let Err(error) = served {
        debug!(error = &error as &dyn std::error::Error, "connection ended");
    }
}

async fn answer<F, Answer>(call: &F, request: Request<Incoming>) -> Result<Vec<u8>, Status>
where
    F: Fn(String, String, HeaderMap, Bytes) -> Answer,
    Answer: Future<Output = Result<Vec<u8>, Status>>,
{
    let (head, body) = request.into_parts();
    let path = head.uri.path().trim_start_matches('/');
    let Some((service, rpc)) = path.split_once('/') else {
        return Err(Status::unimplemented(format!("unknown path {path}")));
    };
    let (service, rpc) = (service.to_owned(), rpc.to_owned());
    let body = Limited::new(body, MESSAGE_BYTES_MAX).collect().await;
    let body = body.map_err(|error| Status::resource_exhausted(format!("the request could not be read: {error}")))?;
    call(service, rpc, head.headers, unframe(body.to_bytes())?).await
}
