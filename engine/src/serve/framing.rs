//! One gRPC message a request and one a response: the five bytes in front, the trailers behind. Whoever compresses its
//! request is answered compressed.

use super::intake::{Intake, MESSAGE_BYTES_MAX, Place, SMALL_BYTES_MAX};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Body as HttpBody;
use std::convert::Infallible;
use std::error::Error;
use std::io::{Read, Write};
use std::time::Duration;
use tonic::Status;
use tonic::body::Body;

const PREFIX: usize = 5;
/// Of a body that is too large this much is read and thrown away, as few clients listen before they have said it all.
const REFUSED_BYTES_MAX: usize = MESSAGE_BYTES_MAX;
/// How long the rest of a large message may take once it has its place.
const TIME: Duration = Duration::from_secs(60);
const ENCODING: &str = "grpc-encoding";
const GZIP: HeaderValue = HeaderValue::from_static("gzip");

/// How a message stands in its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Plain,
    Gzip,
}

impl Encoding {
    /// That of a request.
    pub fn of(headers: &HeaderMap) -> Encoding {
        if headers.get(ENCODING).is_some_and(|encoding| encoding == GZIP) { Encoding::Gzip } else { Encoding::Plain }
    }
}

/// The message of a request's body, unpacked; a large one with the place that it has in memory.
pub async fn take_in<B>(body: B, intake: &Intake) -> Result<(Bytes, Option<Place>), Status>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Error,
{
    let max = intake.message_bytes_max;
    let (body, mut place) = receive(body, intake).await?;
    let (encoding, packed) = unframe(body)?;
    if encoding == Encoding::Plain {
        return Ok((packed, place));
    }
    if place.is_none() {
        // Small as it came. What it becomes may be large, and is not made before it has a place.
        if let Some(message) = unzip(&packed, SMALL_BYTES_MAX.min(max))? {
            return Ok((message, None));
        }
        place = Some(intake.place(max).await?);
    }
    match unzip(&packed, max)? {
        Some(message) => Ok((message, place)),
        None => Err(too_large("grpc: received message after decompression larger than max", max + 1, max)),
    }
}

/// A body, read to its end. A large one is counted as what it says that it will be, or may become.
async fn receive<B>(mut body: B, intake: &Intake) -> Result<(Bytes, Option<Place>), Status>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Error,
{
    let mut taken = Taken::default();
    if taken.read(&mut body, SMALL_BYTES_MAX, usize::MAX).await? {
        return Ok((taken.bytes.freeze(), None));
    }
    let max = intake.message_bytes_max;
    let late = |_elapsed| Status::deadline_exceeded("the request took too long to arrive");
    let (encoding, length) = head(&taken.bytes)?;
    if length > max {
        taken.bytes = BytesMut::new();
        tokio::time::timeout(TIME, taken.read(&mut body, PREFIX + REFUSED_BYTES_MAX, 0)).await.map_err(late)??;
        return Err(too_large("grpc: received message larger than max", length, max));
    }
    let place = intake.place(if encoding == Encoding::Plain { length } else { max }).await?;
    let whole = PREFIX + length;
    taken.bytes.reserve(whole.saturating_sub(taken.bytes.len()));
    if tokio::time::timeout(TIME, taken.read(&mut body, whole, whole)).await.map_err(late)?? {
        Ok((taken.bytes.freeze(), Some(place)))
    } else {
        Err(not_one_message())
    }
}

/// What is here of a body.
#[derive(Default)]
struct Taken {
    bytes: BytesMut,
    length: usize,
}

impl Taken {
    /// Reads on, to the end (then `true`) or until there is more than `pause`. What goes beyond `kept_max` is thrown away.
    async fn read<B>(&mut self, body: &mut B, pause: usize, kept_max: usize) -> Result<bool, Status>
    where
        B: HttpBody<Data = Bytes> + Unpin,
        B::Error: Error,
    {
        while self.length <= pause {
            let Some(frame) = body.frame().await else { return Ok(true) };
            let frame = frame.map_err(|error| Status::cancelled(format!("the request could not be read: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            self.length += data.len();
            if self.length <= kept_max {
                self.bytes.extend_from_slice(&data);
            }
        }
        Ok(false)
    }
}

/// In these words SDKs recognise that the same message will never be taken.
fn too_large(how: &str, length: usize, max: usize) -> Status {
    Status::resource_exhausted(format!("{how} ({length} vs. {max})"))
}

fn not_one_message() -> Status {
    Status::internal("the request is not one whole message")
}

/// What the prefix says: how the message is packed, and how long it is so.
fn head(mut body: &[u8]) -> Result<(Encoding, usize), Status> {
    if body.len() < PREFIX {
        return Err(Status::internal("the request has no message"));
    }
    let encoding = if body.get_u8() == 0 { Encoding::Plain } else { Encoding::Gzip };
    Ok((encoding, body.get_u32() as usize))
}

/// The message of a body, as it is packed.
fn unframe(mut body: Bytes) -> Result<(Encoding, Bytes), Status> {
    let (encoding, length) = head(&body)?;
    body.advance(PREFIX);
    if body.len() == length { Ok((encoding, body)) } else { Err(not_one_message()) }
}

/// `None`: it is larger than `max`.
fn unzip(zipped: &[u8], max: usize) -> Result<Option<Bytes>, Status> {
    let mut message = Vec::new();
    let read = GzDecoder::new(zipped).take(max as u64 + 1).read_to_end(&mut message);
    let length = read.map_err(|error| Status::internal(format!("the message is not compressed by gzip: {error}")))?;
    Ok((length <= max).then(|| message.into()))
}

fn zip(message: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut zipped = GzEncoder::new(Vec::new(), Compression::fast());
    zipped.write_all(message)?;
    zipped.finish()
}

/// A response with one message, or with the status of an error.
pub fn respond(answer: Result<Vec<u8>, Status>, encoding: Encoding) -> Response<Body> {
    let answer = answer.and_then(|message| match encoding {
        Encoding::Plain => Ok(message),
        Encoding::Gzip => zip(&message).map_err(|error| Status::internal(format!("cannot compress: {error}"))),
    });
    let message = match answer {
        Ok(message) => message,
        Err(status) => return status.into_http(),
    };
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.put_u8(u8::from(encoding == Encoding::Gzip));
    framed.put_u32(message.len() as u32);
    framed.put_slice(&message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(framed.freeze()).with_trailers(async move { Some(Ok::<_, Infallible>(trailers)) });
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    if encoding == Encoding::Gzip {
        response.headers_mut().insert(ENCODING, GZIP);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::super::intake::Intakes;
    use super::*;
    use futures::{StreamExt, future, poll, stream};
    use http_body_util::StreamBody;
    use hyper::body::Frame;
    use tonic::Code;

    fn frame(flag: u8, length: usize, rest: &[u8]) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_u8(flag);
        bytes.put_u32(length as u32);
        bytes.put_slice(rest);
        bytes.freeze()
    }

    /// Has room for one of the largest.
    fn intake(max: usize) -> Intake {
        Intake::new(max, max.max(SMALL_BYTES_MAX), Duration::from_millis(20))
    }

    /// A body whose message is said to be of `length` bytes; some of them come, and then nothing more.
    fn half_sent(length: usize, sent: usize) -> impl HttpBody<Data = Bytes, Error = Infallible> + Unpin {
        let first = Frame::data(frame(0, length, &vec![0; sent]));
        StreamBody::new(stream::once(future::ready(Ok(first))).chain(stream::pending()))
    }

    #[tokio::test]
    async fn a_message_is_taken_out_of_its_frame_or_the_reason_is_said() {
        let take = async |body: Bytes| take_in(Full::new(body), &intake(9)).await.map(|taken| taken.0);
        let zipped = zip(b"abc").unwrap();
        assert_eq!(take(frame(0, 3, b"abc")).await.unwrap(), "abc");
        assert_eq!(take(frame(0, 0, b"")).await.unwrap(), "");
        assert_eq!(take(frame(1, zipped.len(), &zipped)).await.unwrap(), "abc");
        let large = vec![0; SMALL_BYTES_MAX * 2];
        let longer_than_said = [frame(0, 3, &large), frame(0, 0, &large)];
        let broken = [frame(0, 4, b"abc"), frame(1, 3, b"abc"), Bytes::from_static(b"abc")];
        for broken in broken.into_iter().chain(longer_than_said) {
            assert_eq!(take(broken).await.unwrap_err().code(), Code::Internal);
        }
    }

    #[tokio::test]
    async fn what_is_too_large_is_refused_in_the_words_that_sdks_know() {
        let bomb = zip(&[0; 10]).unwrap();
        let refused = take_in(Full::new(frame(1, bomb.len(), &bomb)), &intake(9)).await.map(drop).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(refused.message(), "grpc: received message after decompression larger than max (10 vs. 9)");

        let body = |length: usize| Full::new(frame(0, length, &vec![0; length]));
        let intakes = Intakes::of_the_process();
        let engine = intakes.of("temporal.api.workflowservice.v1.WorkflowService");
        let max = engine.message_bytes_max;
        assert_eq!(take_in(body(max), engine).await.map(|taken| taken.0.len()).unwrap(), max);
        let refused = take_in(body(max + 1), engine).await.map(drop).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(refused.message(), "grpc: received message larger than max (4194305 vs. 4194304)");
    }

    #[tokio::test]
    async fn only_what_is_large_needs_a_place_and_has_it_until_it_is_done() {
        let max = SMALL_BYTES_MAX * 2;
        let intake = intake(max);
        let body = |length: usize| Full::new(frame(0, length, &vec![0; length]));
        let (taken, place) = take_in(body(max), &intake).await.unwrap();
        assert_eq!(taken.len(), max);
        let refused = take_in(body(max), &intake).await.map(drop).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        let (taken, none) = take_in(body(SMALL_BYTES_MAX - PREFIX), &intake).await.unwrap();
        assert!(none.is_none() && taken.len() == SMALL_BYTES_MAX - PREFIX, "what is small does not wait");
        drop(place);
        assert!(take_in(body(max), &intake).await.is_ok());
    }

    #[tokio::test]
    async fn what_comes_slowly_holds_no_more_than_it_says_that_it_is() {
        let intake = Intake::new(MESSAGE_BYTES_MAX, SMALL_BYTES_MAX * 6, Duration::from_millis(20));
        let length = SMALL_BYTES_MAX * 2;
        let mut first = Box::pin(take_in(half_sent(length, length - 1), &intake));
        let mut second = Box::pin(take_in(half_sent(length, length - 1), &intake));
        assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending());
        let body = || Full::new(frame(0, length, &vec![0; length]));
        let (_, third) = take_in(body(), &intake).await.expect("there is room for three");
        let refused = take_in(body(), &intake).await.map(drop).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        drop(third);
        assert!(take_in(body(), &intake).await.is_ok());
    }

    #[tokio::test]
    async fn what_is_packed_is_counted_as_the_largest_that_it_may_become() {
        let max = SMALL_BYTES_MAX * 2;
        let intake = intake(max);
        let zipped = |length: usize| {
            let zipped = zip(&vec![0; length]).unwrap();
            Full::new(frame(1, zipped.len(), &zipped))
        };
        let (taken, place) = take_in(zipped(SMALL_BYTES_MAX + 1), &intake).await.unwrap();
        assert!(place.is_some() && taken.len() == SMALL_BYTES_MAX + 1, "it came small and is large");
        let refused = take_in(zipped(SMALL_BYTES_MAX + 1), &intake).await.map(drop).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        let (taken, none) = take_in(zipped(SMALL_BYTES_MAX), &intake).await.unwrap();
        assert!(none.is_none() && taken.len() == SMALL_BYTES_MAX);
    }

    #[tokio::test]
    async fn an_answer_is_compressed_as_its_request_was() {
        for (named, encoding) in [("", Encoding::Plain), ("identity", Encoding::Plain), ("gzip", Encoding::Gzip)] {
            let headers =
                HeaderMap::from_iter([(http::HeaderName::from_static(ENCODING), HeaderValue::from_static(named))]);
            assert_eq!(Encoding::of(&headers), encoding);
            let response = respond(Ok(b"abc".to_vec()), encoding);
            assert_eq!(response.headers().contains_key(ENCODING), encoding == Encoding::Gzip);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body[0] == 1, encoding == Encoding::Gzip);
            assert_eq!(take_in(Full::new(body), &intake(9)).await.unwrap().0, "abc");
        }
    }
}
