//! HTTP/2 connections whose requests are answered by a [`Callee`].

use super::framing::{Encoding, respond, take_in};
use super::intake::Intakes;
use crate::engine::Engine;
use bytes::Bytes;
use http::{HeaderMap, Request};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::Status;
use tracing::debug;

/// A peer that does not answer a ping for this long is gone, and its polls with it.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Calls of one connection at a time; a client waits with more. Enough for the polls of many workers over one connection
/// and what they have to say meanwhile.
const CALLS_MAX: u32 = 2_048;
/// What a call may send before somebody reads it: so much more of a large message is in memory while it waits for its place.
/// Less would make one message slow where an answer takes a while.
pub const CALL_WINDOW: u32 = 128 * 1024;
/// What all calls of a connection may send so. As much as there can be, for what nobody reads counts here as well: the
/// messages that wait would take it from all others, and from those for whose places they wait.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
/// Half of a window may be used up before its sender hears of more.
const _: () = assert!(CALLS_MAX * CALL_WINDOW < CONNECTION_WINDOW / 2);

/// Who answers calls.
pub trait Callee: Send + Sync + 'static {
    /// Whether the caller is known at all. Asked before any of its message is taken in.
    fn admit(&self, headers: &HeaderMap) -> Result<(), Status>;

    fn call(
        &self,
        service: &str,
        rpc: &str,
        headers: &HeaderMap,
        message: Bytes,
    ) -> impl Future<Output = Result<Vec<u8>, Status>> + Send;
}

/// Everybody may call everything.
impl Callee for Engine {
    fn admit(&self, _: &HeaderMap) -> Result<(), Status> {
        Ok(())
    }

    async fn call(&self, service: &str, rpc: &str, headers: &HeaderMap, message: Bytes) -> Result<Vec<u8>, Status> {
        Engine::call(self, service, rpc, headers, message).await
    }
}

/// Serves one connection until its peer goes away, or `closing` resolves and the calls that came before are answered.
pub async fn connection<Io>(callee: impl Callee, io: Io, closing: impl Future<Output = ()>)
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    connection_with(Intakes::of_the_process(), callee, io, closing).await;
}

/// The same, with places that are not the process's.
pub async fn connection_with<Io>(intakes: Intakes, callee: impl Callee, io: Io, closing: impl Future<Output = ()>)
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let shared = Arc::new((callee, intakes));
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let shared = shared.clone();
        async move {
            let (callee, intakes) = &*shared;
            let encoding = Encoding::of(request.headers());
            Ok::<_, Infallible>(respond(answer(callee, intakes, request).await, encoding))
        }
    });
    let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .max_concurrent_streams(CALLS_MAX)
        .initial_stream_window_size(CALL_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .serve_connection(TokioIo::new(io), service);
    tokio::pin!(serving, closing);
    let served = tokio::select! {
        served = &mut serving => served,
        () = closing => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = served {
        debug!(error = &error as &dyn std::error::Error, "connection ended");
    }
}

async fn answer(callee: &impl Callee, intakes: &Intakes, request: Request<Incoming>) -> Result<Vec<u8>, Status> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().trim_start_matches('/');
    let Some((service, rpc)) = path.split_once('/') else {
        return Err(Status::unimplemented(format!("unknown path {path}")));
    };
    callee.admit(&head.headers)?;
    let (message, _place) = take_in(body, intakes.of(service)).await?;
    callee.call(service, rpc, &head.headers, message).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::AUTHORIZATION;
    use http_body_util::{BodyExt, Full, StreamBody};
    use hyper::body::{Body, Frame};
    use tokio::sync::Notify;
    use tonic::Code;

    /// Knows whoever names itself, and answers when it is told to.
    #[derive(Clone, Default)]
    struct Slow {
        called: Arc<Notify>,
        go_on: Arc<Notify>,
    }

    impl Callee for Slow {
        fn admit(&self, headers: &HeaderMap) -> Result<(), Status> {
            headers.get(AUTHORIZATION).map(drop).ok_or_else(|| Status::unauthenticated("who is there?"))
        }

        async fn call(&self, _: &str, _: &str, _: &HeaderMap, message: Bytes) -> Result<Vec<u8>, Status> {
            self.called.notify_one();
            self.go_on.notified().await;
            Ok(message.to_vec())
        }
    }

    /// The status of a call with this body, and what was answered.
    async fn ask<B>(io: tokio::io::DuplexStream, request: http::request::Builder, body: B) -> (Option<Code>, Bytes)
    where
        B: Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
    {
        let builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let (mut sender, connection) = builder.handshake(TokioIo::new(io)).await.expect("speaks HTTP/2");
        tokio::spawn(connection);
        let request = request.method("POST").uri("http://engine/service/rpc").body(body).expect("a request");
        let response = sender.send_request(request).await.expect("an answer");
        let refused = response.headers().get("grpc-status").map(|code| Code::from_bytes(code.as_bytes()));
        (refused, response.into_body().collect().await.expect("all of it").to_bytes())
    }

    #[tokio::test]
    async fn who_is_not_known_is_refused_before_a_message_is_taken_in() {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        tokio::spawn(connection(Slow::default(), theirs, std::future::pending()));
        let endless = StreamBody::new(futures::stream::pending::<Result<Frame<Bytes>, Infallible>>());
        assert_eq!(ask(ours, Request::builder(), endless).await.0, Some(Code::Unauthenticated));
    }

    #[tokio::test]
    async fn calls_that_are_under_way_are_answered_before_a_connection_ends() {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let (callee, close) = (Slow::default(), Arc::new(Notify::new()));
        let (slow, closing) = (callee.clone(), close.clone());
        let serving = tokio::spawn(async move { connection(slow, theirs, closing.notified()).await });
        let body = Full::new(Bytes::from_static(b"\0\0\0\0\x02hi"));
        let asking = tokio::spawn(ask(ours, Request::builder().header(AUTHORIZATION, "me"), body));
        callee.called.notified().await;
        close.notify_one();
        tokio::task::yield_now().await;
        callee.go_on.notify_one();
        assert_eq!(asking.await.expect("asks"), (None, Bytes::from_static(b"\0\0\0\0\x02hi")));
        serving.await.expect("ends");
    }
}
