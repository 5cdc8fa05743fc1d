//! A body that has to come at some pace: whoever sends one a byte at a time holds a request, and whatever that holds, for
//! as long as he likes.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::Patience;

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
}

impl<B> Paced<B> {
    pub fn new(body: B, patience: Patience) -> Self {
        Self { body, patience, begun: None, bytes: 0, overdue: None }
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
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            if let Some(Ok(frame)) = &frame {
                this.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
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
    use futures::stream;
    use http_body_util::{BodyExt, StreamBody};

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
}
