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
use tokio_util::sync::CancellationToken;

const HANDSHAKE_WITHIN: Duration = Duration::from_secs(15);
/// What sandboxes ask for.
const ANSWER_WITHIN: Duration = Duration::from_secs(300);

/// How long a connection is of use.
pub struct Until {
    /// It is cut then, whatever is under way on it.
    pub over: CancellationToken,
    /// The head of the answer comes within this time.
    pub answer_within: Duration,
}

impl Until {
    /// What a sandbox asks for ends with its session's policy.
    pub fn policy_of(session: &Session) -> Self {
        Self { over: session.over.clone(), answer_within: ANSWER_WITHIN }
    }
}

/// Send a request in origin form and wait for the head of its answer.
pub async fn send(
    proxy: &Proxy,
    until: Until,
    to: &Checked,
    tls: bool,
    request: Request<Body>,
) -> Result<Response<Incoming>, Refusal> {
    let stream = to.dial().await?;
    if !tls {
        return exchange(until, stream, request).await;
    }
    let name = ServerName::try_from(to.host.clone()).map_err(|_| Refusal::bad("the host has no name for TLS"))?;
    let handshake = TlsConnector::from(proxy.tls.clone()).connect(name, stream);
    match tokio::time::timeout(HANDSHAKE_WITHIN, handshake).await {
        Ok(Ok(stream)) => exchange(until, stream, request).await,
        Ok(Err(_)) => Err(Refusal::gateway(format!("{} did not show a certificate that is trusted", to.host))),
        Err(_) => Err(Refusal::gateway(format!("{} did not answer", to.host))),
    }
}

async fn exchange(
    until: Until,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Body>,
) -> Result<Response<Incoming>, Refusal> {
    let broken = |_| Refusal::gateway("the connection broke");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let Until { over, answer_within } = until;
    tokio::spawn(async move {
        tokio::select! {
            // How it ends is seen by whoever reads the body.
            ended = connection => drop(ended),
            () = over.cancelled() => {}
        }
    });
    match tokio::time::timeout(answer_within, sender.send_request(request)).await {
        Ok(answer) => answer.map_err(broken),
        Err(_) => Err(Refusal::gateway("no answer came")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::full;
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Asks a server that answers after so long.
    async fn asked(until: Until, answers_after: Duration) -> Result<Response<Incoming>, Refusal> {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        tokio::spawn(async move {
            let mut head = [0; 4096];
            assert!(theirs.read(&mut head).await.unwrap() > 0);
            tokio::time::sleep(answers_after).await;
            // Whoever asked may be gone by then.
            theirs.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.ok();
        });
        exchange(until, ours, Request::get("/").body(full("")).unwrap()).await
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_waited_for_as_long_as_was_promised() {
        let session = Session::new("s", domain::egress::Policy::default());
        let call = || Until { over: session.over.clone(), answer_within: super::super::mcp::ANSWER_WITHIN };
        let longest = Duration::from_millis(domain::limits::MCP_CALL_TIMEOUT_MS);
        assert!(asked(call(), longest).await.is_ok());
        assert!(asked(call(), longest * 2).await.is_err());
        assert!(asked(Until::policy_of(&session), ANSWER_WITHIN - Duration::from_secs(1)).await.is_ok());
        assert!(asked(Until::policy_of(&session), ANSWER_WITHIN + Duration::from_secs(1)).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_cut_when_it_is_over() {
        let session = Session::new("s", domain::egress::Policy::default());
        let over = session.over.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            over.cancel();
        });
        let began = tokio::time::Instant::now();
        assert!(asked(Until::policy_of(&session), Duration::from_secs(100)).await.is_err());
        assert_eq!(began.elapsed().as_secs(), 1);
    }
}
