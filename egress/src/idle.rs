//! Bodies that end: one that stalls, or goes on without end, holds a connection that others wait for.

use crate::proxy::{Body, BoxError};
use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Body as HttpBody;
use std::time::Duration;

#[derive(thiserror::Error, Debug)]
enum Error {
    #[error("nothing came for {} s", .0.as_secs())]
    Stalled(Duration),
    #[error("more than {0} bytes came")]
    TooLong(u64),
}

/// The same body, broken off where nothing comes for `silence_max`, or more than `bytes_max` in all.
pub fn bounded<B>(body: B, silence_max: Duration, bytes_max: u64) -> Body
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<BoxError>,
{
    let frames = futures::stream::try_unfold((body, 0), move |(mut body, seen)| async move {
        let frame = match tokio::time::timeout(silence_max, body.frame()).await {
            Ok(Some(frame)) => frame.map_err(Into::into)?,
            Ok(None) => return Ok(None),
            Err(_) => return Err(Error::Stalled(silence_max).into()),
        };
        let seen = seen + frame.data_ref().map_or(0, |data| data.len() as u64);
        if seen > bytes_max {
            return Err(Error::TooLong(bytes_max).into());
        }
        Ok::<_, BoxError>(Some((frame, (body, seen))))
    });
    StreamBody::new(frames).boxed_unsync()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::Full;
    use hyper::body::Frame;

    fn body(pieces: &[&'static str], stalls: bool) -> Body {
        let pieces: Vec<_> = pieces.iter().map(|piece| Ok::<_, BoxError>(Frame::data(Bytes::from(*piece)))).collect();
        let end = futures::stream::pending();
        let end = if stalls {
            futures::future::Either::Left(end)
        } else {
            futures::future::Either::Right(futures::stream::empty())
        };
        StreamBody::new(futures::StreamExt::chain(futures::stream::iter(pieces), end)).boxed_unsync()
    }

    async fn read(body: Body) -> Result<Bytes, String> {
        body.collect().await.map(|body| body.to_bytes()).map_err(|error| error.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_is_broken_off_and_others_are_not() {
        let minute = Duration::from_secs(60);
        assert_eq!(read(bounded(body(&["a", "b"], false), minute, 2)).await.unwrap(), "ab");
        assert_eq!(read(bounded(body(&["a"], true), minute, 2)).await.unwrap_err(), "nothing came for 60 s");
        assert_eq!(read(bounded(body(&["a", "bc"], false), minute, 2)).await.unwrap_err(), "more than 2 bytes came");
        let whole = Full::new(Bytes::from("ab"));
        assert_eq!(read(bounded(whole, minute, 2)).await.unwrap(), "ab");
    }
}
