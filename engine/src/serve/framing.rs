//! One gRPC message a request and one a response: the five bytes in front, the trailers behind.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::{BodyExt, Full};
use std::convert::Infallible;
use tonic::Status;
use tonic::body::Body;

const PREFIX: usize = 5;
/// The largest request that is taken in.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The message of a request body.
pub fn unframe(mut body: Bytes) -> Result<Bytes, Status> {
    if body.len() < PREFIX {
        return Err(Status::internal("the request has no message"));
    }
    let compressed = body.get_u8() != 0;
    let length = body.get_u32() as usize;
    if compressed {
        // In these words SDKs recognise that they have to send without compression.
        return Err(Status::unimplemented("Content is compressed with `gzip` grpc-encoding which isn't supported"));
    }
    if body.len() != length {
        return Err(Status::internal("the request is not one whole message"));
    }
    Ok(body)
}

/// A response with one message, or with the status of an error.
pub fn respond(answer: Result<Vec<u8>, Status>) -> Response<Body> {
    let message = match answer {
        Ok(message) => message,
        Err(status) => return status.into_http(),
    };
    let mut framed = BytesMut::with_capacity(PREFIX + message.len());
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(&message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(framed.freeze()).with_trailers(async move { Some(Ok::<_, Infallible>(trailers)) });
    let mut response = Response::new(Body::new(body));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    #[test]
    fn a_message_is_taken_out_of_its_frame_or_the_reason_is_said() {
        let frame = |flag: u8, length: u32, rest: &[u8]| {
            let mut bytes = BytesMut::new();
            bytes.put_u8(flag);
            bytes.put_u32(length);
            bytes.put_slice(rest);
            bytes.freeze()
        };
        assert_eq!(unframe(frame(0, 3, b"abc")).unwrap(), "abc");
        assert_eq!(unframe(frame(0, 0, b"")).unwrap(), "");
        assert_eq!(unframe(frame(0, 4, b"abc")).unwrap_err().code(), Code::Internal);
        assert_eq!(unframe(Bytes::from_static(b"abc")).unwrap_err().code(), Code::Internal);
        let zipped = unframe(frame(1, 3, b"abc")).unwrap_err();
        assert_eq!(zipped.code(), Code::Unimplemented);
        assert!(zipped.message().contains("grpc-encoding"));
    }
}
