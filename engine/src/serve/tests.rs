//! Many calls over one connection, some of which wait for a place in memory.

use super::grpc::{CALL_WINDOW, Callee, connection_with};
use super::intake::{Intakes, SMALL_BYTES_MAX};
use bytes::{BufMut, Bytes, BytesMut};
use futures::future;
use futures::stream::{self, BoxStream, StreamExt};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tonic::{Code, Status};

const MIB: usize = 1024 * 1024;
const PIECE: usize = 4 * 1024;
const ENGINE: &str = "temporal.api.workflowservice.v1.WorkflowService";
const BLOBS: &str = "steadyhand.Node";
/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Answers with the length of what it was sent.
struct Scale;

impl Callee for Scale {
    fn admit(&self, _: &HeaderMap) -> Result<(), Status> {
        Ok(())
    }

    async fn call(&self, _: &str, _: &str, _: &HeaderMap, message: Bytes) -> Result<Vec<u8>, Status> {
        Ok(message.len().to_string().into_bytes())
    }
}

type Pieces = BoxStream<'static, Result<Frame<Bytes>, Infallible>>;

/// One connection, which keeps little of what it cannot send.
#[derive(Clone)]
struct Client(SendRequest<StreamBody<Pieces>>);

impl Client {
    async fn of(intakes: Intakes) -> Client {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        tokio::spawn(connection_with(intakes, Scale, theirs, std::future::pending()));
        let mut builder = http2::Builder::new(TokioExecutor::new());
        let (sender, connection) =
            builder.max_send_buf_size(PIECE).handshake(TokioIo::new(ours)).await.expect("speaks HTTP/2");
        tokio::spawn(connection);
        Client(sender)
    }

    /// How long the message was that arrived.
    async fn send(mut self, service: &str, pieces: Pieces) -> Result<usize, Code> {
        let request = Request::post(format!("http://engine/{service}/rpc")).body(StreamBody::new(pieces));
        let response = self.0.send_request(request.expect("a request")).await.expect("an answer");
        if let Some(code) = response.headers().get("grpc-status") {
            return Err(Code::from_bytes(code.as_bytes()));
        }
        let answer = response.into_body().collect().await.expect("all of it").to_bytes();
        Ok(std::str::from_utf8(&answer[5..]).expect("digits").parse().expect("a number"))
    }
}

/// The beginning of a message of that length.
fn prefix(length: usize) -> Pieces {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(length as u32);
    stream::iter([Ok(Frame::data(bytes.freeze()))]).boxed()
}

/// So many bytes, counted as the connection takes them.
fn bytes(length: usize, taken: &watch::Sender<usize>) -> Pieces {
    let taken = taken.clone();
    let pieces = stream::iter(std::iter::repeat_n(Bytes::from_static(&[7; PIECE]), length / PIECE));
    let count = move |piece: Bytes| {
        taken.send_modify(|taken| *taken += piece.len());
        Ok(Frame::data(piece))
    };
    pieces.map(count).boxed()
}

fn message(length: usize, taken: &watch::Sender<usize>) -> Pieces {
    prefix(length).chain(bytes(length, taken)).boxed()
}

#[tokio::test]
async fn what_waits_for_a_place_does_not_hold_up_its_connection() {
    const WAITERS: usize = 64;
    let room = 8 * MIB;
    let client = Client::of(Intakes::new(room, 4 * PATIENCE)).await;
    let (of_holder, of_waiters) = (watch::Sender::new(0), watch::Sender::new(0));

    // Takes all the room that there is for blobs, and then its time.
    let (go_on, told) = oneshot::channel::<()>();
    let pause = stream::once(told).filter_map(|_told| future::ready(None));
    let half = || bytes(room / 2, &of_holder);
    let body = prefix(room).chain(half()).chain(pause).chain(half()).boxed();
    let holding = tokio::spawn(client.clone().send(BLOBS, body));
    until(&of_holder, room / 2).await;

    // Of each of these, what is small was read, and it said what its window lets it say.
    let waiting: Vec<_> =
        (0..WAITERS).map(|_| tokio::spawn(client.clone().send(BLOBS, message(MIB, &of_waiters)))).collect();
    until(&of_waiters, WAITERS * (SMALL_BYTES_MAX + CALL_WINDOW as usize / 2)).await;

    for (service, length) in [(ENGINE, PIECE), (ENGINE, MIB), (BLOBS, PIECE)] {
        let sent = client.clone().send(service, message(length, &watch::Sender::new(0)));
        let sent = tokio::time::timeout(PATIENCE, sent).await;
        assert_eq!(sent.expect("has a way past those that wait"), Ok(length), "{service}");
    }
    assert!(!holding.is_finished() && waiting.iter().all(|waiting| !waiting.is_finished()));
    go_on.send(()).expect("the holder waits");
    assert_eq!(holding.await.expect("sends"), Ok(room));
    for waiting in waiting {
        assert_eq!(waiting.await.expect("sends"), Ok(MIB));
    }
}

async fn until(taken: &watch::Sender<usize>, bytes: usize) {
    let mut taken = taken.subscribe();
    let reached = tokio::time::timeout(PATIENCE, taken.wait_for(|taken| *taken >= bytes)).await;
    reached.expect("the connection takes what its windows promise").expect("the sender is here");
}
