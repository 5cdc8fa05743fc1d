//! The embedded engine for other programs: a gRPC listener with TLS, client certificates and keys. Nobody reaches it from
//! the network in plaintext or unrecognised unless that was said in so many words.
//!
//! A key is a token of `DIR/roles/`: `engine.token` may call everything, those of workers what `node.sock` lets them.

mod access;
#[cfg(test)]
mod tests;
mod tls;

use crate::{
    env_vars,
    error::{Code, Hint as _},
    node::Node,
};
use access::{Access, Exposure};
use clap::Args;
use engine::Engine;
use engine::serve::{Closing, accept};
use std::{net::SocketAddr, path::PathBuf, time::Duration};
use tls::Certificates;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use tracing::{debug, info};

/// Whoever has not shown by then that it speaks TLS is somebody else.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How `serve` is told to offer the engine.
#[derive(Clone, Debug, Default, Args)]
pub struct OfferArgs {
    /// Offer the embedded engine to the temporal CLI and other SDKs, on this address
    #[arg(long, env = env_vars::ENGINE_LISTEN, value_name = "ADDR")]
    pub engine_listen: Option<SocketAddr>,
    /// Certificates (PEM) with which that listener shows who it is, its own first
    #[arg(long, env = env_vars::ENGINE_TLS_CERT, value_name = "FILE", hide_short_help = true)]
    pub engine_tls_cert: Option<PathBuf>,
    /// Key (PEM) of its certificate
    #[arg(long, env = env_vars::ENGINE_TLS_KEY, value_name = "FILE", hide_short_help = true)]
    pub engine_tls_key: Option<PathBuf>,
    /// Certificates (PEM) of those who sign for clients: only clients with such a certificate are let in
    #[arg(long, env = env_vars::ENGINE_TLS_CLIENT_CA, value_name = "FILE", hide_short_help = true)]
    pub engine_tls_client_ca: Option<PathBuf>,
    /// Whether callers must send a token of DATA/roles as their API key [default: where the network can reach the listener and
    /// clients show no certificates]
    #[arg(long, env = env_vars::ENGINE_KEYS, value_name = "BOOL", hide_short_help = true)]
    pub engine_keys: Option<bool>,
    /// Whether the listener may be reached from the network without TLS: behind a proxy that ends it [default: false]
    #[arg(long, env = env_vars::ENGINE_PLAINTEXT, value_name = "BOOL", hide_short_help = true)]
    pub engine_plaintext: Option<bool>,
}

impl OfferArgs {
    /// What was given here, else there.
    pub fn or(self, file: OfferArgs) -> OfferArgs {
        OfferArgs {
            engine_listen: self.engine_listen.or(file.engine_listen),
            engine_tls_cert: self.engine_tls_cert.or(file.engine_tls_cert),
            engine_tls_key: self.engine_tls_key.or(file.engine_tls_key),
            engine_tls_client_ca: self.engine_tls_client_ca.or(file.engine_tls_client_ca),
            engine_keys: self.engine_keys.or(file.engine_keys),
            engine_plaintext: self.engine_plaintext.or(file.engine_plaintext),
        }
    }

    /// Where to listen and how, if anywhere; refuses what would leave the engine open to the network.
    pub fn offer(self) -> anyhow::Result<Option<Offer>> {
        let Some(addr) = self.engine_listen else { return Ok(None) };
        let tls = Certificates::given(&self)?;
        let wants_keys = access::wants_keys(&Exposure {
            addr,
            tls: tls.is_some(),
            client_certificates: self.engine_tls_client_ca.is_some(),
            keys: self.engine_keys,
            plaintext: self.engine_plaintext.unwrap_or(false),
        })?;
        Ok(Some(Offer { addr, tls, wants_keys }))
    }
}

/// A listener to be.
pub struct Offer {
    addr: SocketAddr,
    tls: Option<Certificates>,
    wants_keys: bool,
}

impl Offer {
    /// Listens until `closing`; `key` is the one that may call everything.
    pub async fn open(
        self,
        engine: Engine,
        node: Node,
        key: String,
        mut closing: watch::Receiver<bool>,
    ) -> anyhow::Result<(SocketAddr, JoinHandle<()>)> {
        let listener = TcpListener::bind(self.addr).await.hint(
            Code::Failed,
            format!("listen on {} for the engine", self.addr),
            "another program has that port: choose another with --engine-listen",
        )?;
        let addr = listener.local_addr()?;
        info!(%addr, tls = self.tls.is_some(), keys = self.wants_keys, "engine offered to other programs");
        let access = if self.wants_keys { Access::by_key(engine, node, key) } else { Access::Everybody(engine) };
        let tls = self.tls;
        let serve = move |stream, closing| connection(stream, tls.clone(), access.clone(), closing);
        let shutdown = async move {
            let _closed = closing.wait_for(|closing| *closing).await;
        };
        Ok((addr, tokio::spawn(accept(listener, shutdown, serve))))
    }
}

async fn connection(stream: TcpStream, tls: Option<Certificates>, access: Access, closing: Closing) {
    let Some(tls) = tls else { return access.serve(stream, closing.begun()).await };
    match tokio::time::timeout(HANDSHAKE, tls.acceptor().accept(stream)).await {
        Ok(Ok(stream)) => access.serve(stream, closing.begun()).await,
        Ok(Err(error)) => debug!(error = &error as &dyn std::error::Error, "a client was not let in"),
        Err(_) => debug!("a client said nothing"),
    }
}
