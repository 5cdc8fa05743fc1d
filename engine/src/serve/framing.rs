//! One gRPC message a request and one a response: the five bytes in front, the trailers behind. Whoever compresses its
//! request is answered compressed.

use super::intake::{Intake, Place, SMALL_BYTES_MAX};
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
/// The largest message that is taken in. Of a body that is too large this much is read and thrown away, as few clients
/// listen before they have said it all.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The largest message to the engine, compressed or not: as on a Temporal server.
const ENGINE_MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
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

/// The largest message to a service, compressed or not.
pub fn message_bytes_max(service: &str) -> usize {
    if service.starts_with("temporal.") { ENGINE_MESSAGE_BYTES_MAX } else { MESSAGE_BYTES_MAX }
}

/// A request's body, if its message is not larger than `max`; a large one with the place that it has in memory.
pub async fn take_in<B>(mut body: B, max: usize, intake: &Intake) -> Result<(Bytes, Option<Place>), Status>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Error,
{
    let mut taken = Taken::default();
    taken.read(&mut body, max, SMALL_BYTES_MAX).await?;
    let mut place = None;
    if !taken.is_whole {
        place = Some(intake.place(max).await?);
        let rest = tokio::time::timeout(TIME, taken.read(&mut body, max, usize::MAX)).await;
        rest.map_err(|_late| Status::deadline_exceeded("the request took too long to arrive"))??;
    }
    if taken.length > PREFIX + max {
        return Err(too_large("grpc: received message larger than max", taken.length - PREFIX, max));
    }
    Ok((taken.bytes.freeze(), place))
}

/// What is here of a body.
#[derive(Default)]
struct Taken {
    bytes: BytesMut,
    length: usize,
    is_whole: bool,
}

impl Taken {
    /// Reads on, to the end or until there is more than `pause`. Of what is longer than `max` nothing is kept.
    async fn read<B>(&mut self, body: &mut B, max: usize, pause: usize) -> Result<(), Status>
    where
        B: HttpBody<Data = Bytes> + Unpin,
        B::Error: Error,
    {
        while self.length <= pause {
            let Some(frame) = body.frame().await else {
                self.is_whole = true;
                return Ok(());
            };
            let frame = frame.map_err(|error| Status::cancelled(format!("the request could not be read: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            self.length += data.len();
            if self.length <= PREFIX + max {
                self.bytes.extend_from_slice(&data);
            } else if self.length <= PREFIX + MESSAGE_BYTES_MAX {
                self.bytes.clear();
            } else {
                self.is_whole = true;
                return Ok(());
            }
        }
        Ok(())
    }
}

/// In these words SDKs recognise that the same message will never be taken.
fn too_large(how: &str, length: usize, max: usize) -> Status {
    Status::resource_exhausted(format!("{how} ({length} vs. {max})"))
}

/// The message of a request body, not larger than `max` when it is unpacked.
pub fn unframe(mut body: Bytes, max: usize) -> Result<Bytes, Status> {
    if body.len() < PREFIX {
        return Err(Status::internal("the request has no message"));
    }
    let compressed = body.get_u8() != 0;
    let length = body.get_u32() as usize;
    if body.len() != length {
        return Err(Status::internal("the request is not one whole message"));
    }
    if compressed { unzip(&body, max) } else { Ok(body) }
}

fn unzip(zipped: &[u8], max: usize) -> Result<Bytes, Status> {
    let mut message = Vec::new();
    let read = GzDecoder::new(zipped).take(max as u64 + 1).read_to_end(&mut message);
    let length = read.map_err(|error| Status::internal(format!("the message is not compressed by gzip: {error}")))?;
    if length > max {
        return Err(too_large("grpc: received message after decompression larger than max", length, max));
    }
    Ok(Bytes::from(message))
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
    use super::*;
    use tonic::Code;

    fn frame(flag: u8, length: usize, rest: &[u8]) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_u8(flag);
        bytes.put_u32(length as u32);
        bytes.put_slice(rest);
        bytes.freeze()
    }

    #[test]
    fn a_message_is_taken_out_of_its_frame_or_the_reason_is_said() {
        let zipped = zip(b"abc").unwrap();
        assert_eq!(unframe(frame(0, 3, b"abc"), 9).unwrap(), "abc");
        assert_eq!(unframe(frame(0, 0, b""), 9).unwrap(), "");
        assert_eq!(unframe(frame(1, zipped.len(), &zipped), 9).unwrap(), "abc");
        let broken = [frame(0, 4, b"abc"), frame(1, 3, b"abc"), Bytes::from_static(b"abc")];
        for broken in broken {
            assert_eq!(unframe(broken, 9).unwrap_err().code(), Code::Internal);
        }
    }

    #[tokio::test]
    async fn what_is_too_large_is_refused_in_the_words_that_sdks_know() {
        let bomb = zip(&[0; 10]).unwrap();
        let refused = unframe(frame(1, bomb.len(), &bomb), 9).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(refused.message(), "grpc: received message after decompression larger than max (10 vs. 9)");

        let body = |length: usize| Full::new(frame(0, length, &vec![0; length]));
        let max = message_bytes_max("temporal.api.workflowservice.v1.WorkflowService");
        let intake = Intake::of_the_process();
        assert_eq!(take_in(body(max), max, &intake).await.map(|taken| taken.0.len()).unwrap(), PREFIX + max);
        let refused = take_in(body(max + 1), max, &intake).await.map(drop).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(refused.message(), "grpc: received message larger than max (4194305 vs. 4194304)");
    }

    #[tokio::test]
    async fn only_what_is_large_needs_a_place_and_has_it_until_it_is_done() {
        // Room for one.
        let intake = Intake::new(SMALL_BYTES_MAX * 2, Duration::from_millis(20));
        let body = |length: usize| Full::new(frame(0, length, &vec![0; length]));
        let max = SMALL_BYTES_MAX * 2;
        let (taken, place) = take_in(body(max), max, &intake).await.unwrap();
        assert_eq!(taken.len(), PREFIX + max);
        let refused = take_in(body(max), max, &intake).await.map(drop).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        let (taken, none) = take_in(body(SMALL_BYTES_MAX - PREFIX), max, &intake).await.unwrap();
        assert!(none.is_none() && taken.len() == SMALL_BYTES_MAX, "what is small does not wait");
        drop(place);
        assert!(take_in(body(max), max, &intake).await.is_ok());
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
            assert_eq!(unframe(body, 9).unwrap(), "abc");
        }
    }
}
