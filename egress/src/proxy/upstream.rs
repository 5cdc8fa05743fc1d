//! The other side: one connection a request, to an address that was checked.

use super::{Body, Proxy, Refusal, Session};
use crate::resolve::Checked;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

const HANDSHAKE_WITHIN: Duration = Duration::from_secs(15);
const ANSWER_WITHIN: Duration = Duration::from_secs(300);

/// Send a request in origin form and wait for the head of its answer.
pub async fn send(
    proxy: &Proxy,
    session: &Session,
    to: &Checked,
    tls: bool,
    request: Request<Body>,
) -> Result<Response<Incoming>, Refusal> {
    let stream = to.dial().await?;
    if !tls {
        return exchange(session, stream, request).await;
    }
    let name = ServerName::try_from(to.host.clone()).map_err(|_| Refusal::bad("the host has no name for TLS"))?;
    let handshake = TlsConnector::from(proxy.tls.clone()).connect(name, stream);
    match tokio::time::timeout(HANDSHAKE_WITHIN, handshake).await {
        Ok(Ok(stream)) => exchange(session, stream, request).await,
        Ok(Err(_)) => Err(Refusal::gateway(format!("{} did not show a certificate that is trusted", to.host))),
        Err(_) => Err(Refusal::gateway(format!("{} did not answer", to.host))),
    }
}

async fn exchange(
    session: &Session,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Body>,
) -> Result<Response<Incoming>, Refusal> {
    let broken = |_| Refusal::gateway("the connection broke");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let over = session.over.clone();
    tokio::spawn(async move {
        tokio::select! {
            // How it ends is seen by whoever reads the body.
            ended = connection => drop(ended),
            () = over.cancelled() => {}
        }
    });
    match tokio::time::timeout(ANSWER_WITHIN, sender.send_request(request)).await {
        Ok(answer) => answer.map_err(broken),
        Err(_) => Err(Refusal::gateway("no answer came")),
    }
}
