//! One unary gRPC call after another over a connection that is already there: a unix socket, a socket given by
//! the parent, or TCP. It knows bytes, not messages.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Version, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::{Code, Status};

const PREFIX_BYTES: usize = 5;

/// Cheap to clone; all clones share the connection.
#[derive(Clone)]
pub struct RawClient {
    sender: SendRequest<Full<Bytes>>,
    /// `http://host`, as HTTP/2 wants an authority.
    origin: String,
    /// A call failed by the connection and not by its answer.
    is_broken: Arc<AtomicBool>,
}

impl RawClient {
    /// `closed` runs when the connection is gone. With `ping`, it is gone too when nobody answers for so long.
    pub async fn new<Io>(
        io: Io,
        origin: &str,
        ping: Option<Duration>,
        closed: impl FnOnce() + Send + 'static,
    ) -> Result<Self, hyper::Error>
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).adaptive_window(true).keep_alive_interval(ping);
        let (sender, connection) = builder.handshake(TokioIo::new(io)).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = &error as &dyn std::error::Error, "connection ended");
            }
            closed();
        });
        Ok(RawClient { sender, origin: origin.to_owned(), is_broken: Arc::default() })
    }

    /// Whether it is worth another call: servers end connections by their age, and those that are going take no more.
    pub fn is_usable(&self) -> bool {
        !self.is_broken.load(Ordering::Relaxed) && !self.sender.is_closed()
    }

    pub async fn call(
        &self,
        service: &str,
        rpc: &str,
        headers: &HeaderMap,
        message: &[u8],
    ) -> Result<(HeaderMap, Bytes), Status> {
        let unreachable = |error: hyper::Error| {
            self.is_broken.store(true, Ordering::Relaxed);
            Status::unavailable(format!("the connection failed: {error}"))
        };
        let mut sender = self.sender.clone();
        sender.ready().await.map_err(unreachable)?;
        let response = sender.send_request(self.request(service, rpc, headers, message)?).await.map_err(unreachable)?;
        let (head, body) = response.into_parts();
        // An error may come in the headers alone.
        if let Some(status) = Status::from_header_map(&head.headers)
            && status.code() != Code::Ok
        {
            return Err(status);
        }
        let body = body.collect().await.map_err(unreachable)?;
        if let Some(status) = body.trailers().and_then(Status::from_header_map)
            && status.code() != Code::Ok
        {
            return Err(status);
        }
        let mut bytes = body.to_bytes();
        if bytes.len() < PREFIX_BYTES {
            return Err(Status::internal(format!("a reply without a message (HTTP {})", head.status)));
        }
        bytes.advance(PREFIX_BYTES);
        Ok((head.headers, bytes))
    }

    fn request(
        &self,
        service: &str,
        rpc: &str,
        headers: &HeaderMap,
        message: &[u8],
    ) -> Result<Request<Full<Bytes>>, Status> {
        let mut framed = BytesMut::with_capacity(PREFIX_BYTES + message.len());
        framed.put_u8(0);
        framed.put_u32(u32::try_from(message.len()).map_err(|_| Status::out_of_range("a message of over 4 GiB"))?);
        framed.put_slice(message);
        let mut request = Request::post(format!("{}/{service}/{rpc}", self.origin))
            .version(Version::HTTP_2)
            .body(Full::new(framed.freeze()))
            .map_err(|error| Status::internal(error.to_string()))?;
        for (name, value) in headers {
            // These belong to a connection, not to a call.
            if *name != header::HOST && *name != header::CONTENT_LENGTH && *name != header::TRANSFER_ENCODING {
                request.headers_mut().append(name, value.clone());
            }
        }
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
        Ok(request)
    }
}
