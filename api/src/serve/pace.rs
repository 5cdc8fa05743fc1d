//! A body that has to come at some pace, neither too slowly nor without a pause: whoever sends one a byte at a time holds a
//! request, and whatever that holds, for as long as he likes; whoever sends one faster than it can be read holds a thread.

use std::error::Error;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::task::yield_now;
use tokio::time::{Instant, Sleep};

use super::Patience;

/// What is read of a body before others have their turn, in bytes. A connection that always has more goes on for a MiB by
/// itself, and is first in line again before anybody has looked which other connections have something to say.
const TURN_BYTES: usize = 128 << 10;

#[derive(Debug, thiserror::Error)]
#[error("the body comes too slowly")]
struct TooSlow;

/// Whether a body could not be read because it came too slowly.
pub(crate) fn is_too_slow(error: &(dyn Error + 'static)) -> bool {
    error.is::<TooSlow>() || error.source().is_some_and(is_too_slow)
}

pub(super) struct Paced<B> {
    body: B,
    patience: Patience,
    /// When it was first read, and how much came since.
    begun: Option<Instant>,
    bytes: u64,
    overdue: Option<Pin<Box<Sleep>>>,
    /// How much came since others had their turn.
    turn_bytes: usize,
}

impl<B> Paced<B> {
    pub fn new(body: B, patience: Patience) -> Self {
        Self { body, patience, begun: None, bytes: 0, overdue: None, turn_bytes: 0 }
    }

    fn deadline(&mut self) -> Instant {
        let begun = *self.begun.get_or_insert_with(Instant::now);
        let earned = Duration::from_millis(self.bytes.saturating_mul(1000) / self.patience.body_bytes_per_s.max(1));
        begun + self.patience.body + earned
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Paced<B>
where
    B::Error: Into<axum::BoxError>,
{
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let this = &mut *self;
        let deadline = this.deadline();
        if this.turn_bytes >= TURN_BYTES {
            this.turn_bytes = 0;
            // Once begun it wakes this task, and unlike a wake of our own not before the runtime has asked the system for news.
            let _ = pin!(yield_now()).poll(cx);
            return Poll::Pending;
        }
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            if let Some(Ok(frame)) = &frame {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                this.bytes += bytes as u64;
                this.turn_bytes += bytes;
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        this.turn_bytes = 0;
        let overdue = this.overdue.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if overdue.deadline() != deadline {
            overdue.as_mut().reset(deadline);
        }
        overdue.as_mut().poll(cx).map(|()| Some(Err(TooSlow.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::{StreamExt, stream};
    use http_body_util::{BodyExt, StreamBody};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const PATIENCE: Patience =
        Patience { connections_max: 1, head: Duration::MAX, body: Duration::from_secs(10), body_bytes_per_s: 100 };

    /// So many frames of 50 bytes, each after a pause.
    async fn read(frames: usize, pause_ms: u64) -> Result<usize, axum::BoxError> {
        let frames = stream::unfold(0, move |n| async move {
            if n == frames {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            Some((Ok::<_, axum::BoxError>(Frame::data(Bytes::from_static(&[b'x'; 50]))), n + 1))
        });
        let paced = Paced::new(StreamBody::new(Box::pin(frames)), PATIENCE);
        Ok(paced.collect().await?.to_bytes().len())
    }

    #[tokio::test(start_paused = true)]
    async fn who_keeps_the_pace_may_take_as_long_as_it_takes() {
        assert_eq!(read(1000, 500).await.unwrap(), 50_000);
        assert_eq!(read(1, 9_999).await.unwrap(), 50);
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_is_given_up() {
        let begun = Instant::now();
        assert!(is_too_slow(&*read(1000, 1000).await.unwrap_err()));
        // Half of the pace: what is earned is used up with what is given.
        let took = begun.elapsed();
        assert!(took > Duration::from_secs(19) && took < Duration::from_secs(21), "{took:?}");
        assert!(is_too_slow(&*read(1, 10_001).await.unwrap_err()));
    }
    /// Looks at a socket again and again, while a body comes that is always there: how much of it was read between looks.
    #[tokio::test]
    async fn a_body_that_is_always_there_leaves_others_their_turn() {
        const FRAME: &[u8] = &[b'x'; 16 << 10];
        let read = Arc::new(AtomicUsize::new(0));
        let (mut near, mut far) = tokio::net::UnixStream::pair().unwrap();
        let looking = tokio::spawn({
            let read = read.clone();
            async move {
                let (mut before, mut most) = (0, 0);
                while near.read_u8().await.is_ok() {
                    let now = read.load(Ordering::Relaxed);
                    most = most.max(now - before);
                    before = now;
                }
                most
            }
        });
        let frames = stream::repeat_with(|| Ok::<_, axum::BoxError>(Frame::data(Bytes::from_static(FRAME)))).take(2000);
        let mut body = Paced::new(StreamBody::new(frames), PATIENCE);
        tokio::spawn(async move {
            while let Some(frame) = body.frame().await {
                let bytes = frame.unwrap().into_data().unwrap().len();
                read.fetch_add(bytes, Ordering::Relaxed);
                far.try_write(&[0]).unwrap();
            }
            far.shutdown().await.unwrap();
        })
        .await
        .unwrap();
        let most = looking.await.unwrap();
        // Whoever has something to read is told of it when a turn ends, and has his own before the next one does.
        assert!(most <= 3 * TURN_BYTES, "{most} bytes between looks");
    }
}
