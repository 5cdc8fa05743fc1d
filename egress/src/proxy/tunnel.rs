//! CONNECT: bytes to and from a checked address, and nothing looked at in between. TLS and HTTP/2 go through here.

use super::{Body, Proxy, Refusal, Session, TUNNELS_MAX, full};
use crate::audit::Entry;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

pub async fn open(
    proxy: &Arc<Proxy>,
    session: &Arc<Session>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let authority = request.uri().authority().ok_or_else(|| Refusal::bad("CONNECT takes HOST:PORT"))?;
    let port = authority.port_u16().ok_or_else(|| Refusal::bad("CONNECT takes HOST:PORT"))?;
    if authority.as_str().contains('@') {
        return Err(Refusal::bad("CONNECT takes HOST:PORT"));
    }
    let place = Arc::clone(&session.tunnels).try_acquire_owned();
    let place = place.map_err(|_| Refusal::busy(format!("{TUNNELS_MAX} tunnels are open: end one first")))?;
    let checked = proxy.guard.check(&session.policy, authority.host(), port).await?;
    let upstream = checked.dial().await?;
    let upgrade = hyper::upgrade::on(&mut request);
    let (proxy, session) = (Arc::clone(proxy), Arc::clone(session));
    tokio::spawn(async move {
        let copied = tokio::select! {
            copied = copy(upgrade, upstream) => copied,
            () = session.over.cancelled() => (0, 0),
        };
        let (session_id, (sent, received)) = (session.id.clone(), copied);
        session.note(&proxy.audit, Entry::Connected { session_id, host: checked.host, port, sent, received });
        drop(place);
    });
    Ok(Response::new(full("")))
}

async fn copy(upgrade: hyper::upgrade::OnUpgrade, mut upstream: TcpStream) -> (u64, u64) {
    let Ok(upgraded) = upgrade.await else { return (0, 0) };
    let mut inside = TokioIo::new(upgraded);
    let copied = tokio::io::copy_bidirectional(&mut inside, &mut upstream).await;
    // Whoever is left on either side sees the end.
    inside.shutdown().await.ok();
    copied.unwrap_or((0, 0))
}
