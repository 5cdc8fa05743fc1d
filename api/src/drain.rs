//! Reading requests to their end: what a handler left of a body is read and forgotten before its answer goes out.
//!
//! Without that hyper closes the connection behind the answer, under the client's next request, and a client that is
//! still sending never comes to reading the answer at all. Handlers need not know: whatever they answer, and whenever.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http::header::EXPECT;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use parking_lot::Mutex;

/// How much of a body is read for nothing. Who sends more, or more slowly, loses the connection.
const BYTES_MAX: usize = 1_000_000_000;
const TIME_MAX: Duration = Duration::from_secs(10);

/// The middleware around every route, known or not.
pub async fn whole(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    // Such a client sends nothing until somebody begins to read.
    let waits = request.headers().contains_key(EXPECT);
    let (parts, body) = request.into_parts();
    let shared = Shared { body: Arc::new(Mutex::new(body)), is_begun: Arc::default() };
    let response = next.run(Request::from_parts(parts, Body::new(shared.clone()))).await;
    if !waits || shared.is_begun.load(Ordering::Relaxed) {
        drain(shared).await;
    }
    response
}

/// A body that outlives the handler that it was given to.
#[derive(Clone)]
struct Shared {
    body: Arc<Mutex<Body>>,
    is_begun: Arc<AtomicBool>,
}

impl HttpBody for Shared {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.is_begun.store(true, Ordering::Relaxed);
        Pin::new(&mut *self.body.lock()).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.lock().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.lock().size_hint()
    }
}

async fn drain(mut body: Shared) {
    let read = async {
        let mut bytes = 0;
        while !body.is_end_stream()
            && let Some(Ok(frame)) = body.frame().await
        {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > BYTES_MAX {
                break;
            }
        }
    };
    // Whether it came to the end or not, the answer is the same.
    let _ = tokio::time::timeout(TIME_MAX, read).await;
}
