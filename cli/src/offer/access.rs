//! Who may call what on the engine's listener, and what it takes to open one.

use crate::{
    error::{Code, failed},
    node::{Connected, Node, bearer, same},
};
use bytes::Bytes;
use engine::Engine;
use engine::serve::{Callee, connection};
use http::HeaderMap;
use std::{net::SocketAddr, sync::Arc};
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::Status;

/// Who is let in.
#[derive(Clone)]
pub enum Access {
    /// Whoever can connect.
    Everybody(Engine),
    /// Whoever has a key: the engine's, or one of a worker's role.
    ByKey { engine: Engine, node: Node, key: Arc<str> },
}

impl Access {
    pub fn by_key(engine: Engine, node: Node, key: String) -> Access {
        Access::ByKey { engine, node, key: key.into() }
    }

    /// Serves one connection until its peer goes away, or `closing` resolves.
    pub async fn serve<Io>(self, io: Io, closing: impl Future<Output = ()>)
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match self {
            Access::Everybody(engine) => connection(engine, io, closing).await,
            Access::ByKey { engine, node, key } => {
                connection(KeyHolder { engine, worker: node.connected(None), key }, io, closing).await;
            }
        }
    }
}

/// Whoever has a key, on one connection.
struct KeyHolder {
    engine: Engine,
    worker: Connected,
    key: Arc<str>,
}

impl KeyHolder {
    fn may_everything(&self, headers: &HeaderMap) -> bool {
        bearer(headers).is_some_and(|token| same(token, &self.key))
    }
}

impl Callee for KeyHolder {
    fn admit(&self, headers: &HeaderMap) -> Result<(), Status> {
        if self.may_everything(headers) { Ok(()) } else { self.worker.admit(headers) }
    }

    async fn call(&self, service: &str, rpc: &str, headers: &HeaderMap, message: Bytes) -> Result<Vec<u8>, Status> {
        if self.may_everything(headers) {
            return self.engine.call(service, rpc, headers, message).await;
        }
        self.worker.call(service, rpc, headers, message).await
    }
}

/// What decides whether a listener may be opened, and whether it asks for keys.
pub struct Exposure {
    pub addr: SocketAddr,
    pub tls: bool,
    pub client_certificates: bool,
    /// Whether it was said that callers must have keys.
    pub keys: Option<bool>,
    /// Whether it was said that the network may reach it in plaintext.
    pub plaintext: bool,
}

/// Whether callers must have keys. On a loopback address everything goes; from the network nobody comes in plaintext, or
/// without a certificate or a key.
pub fn wants_keys(exposure: &Exposure) -> anyhow::Result<bool> {
    let Exposure { addr, tls, client_certificates, keys, plaintext } = *exposure;
    let is_open = !addr.ip().is_loopback();
    if is_open && !tls && !plaintext {
        return Err(failed(
            Code::Usage,
            format!("the engine's listener would send everything in plaintext over the network on {addr}"),
            "give it --engine-tls-cert and --engine-tls-key; behind a proxy that ends TLS, --engine-plaintext true",
        ));
    }
    if is_open && keys == Some(false) && !client_certificates {
        return Err(failed(
            Code::Usage,
            format!("the engine's listener would be open to everybody on {addr}"),
            "leave out --engine-keys false, or ask clients for certificates with --engine-tls-client-ca",
        ));
    }
    Ok(keys.unwrap_or(is_open && !client_certificates))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_network_can_reach_is_encrypted_and_asks_who_calls() {
        let (local, open) = ("127.0.0.1:7233", "0.0.0.0:7233");
        // address, TLS, client certificates, keys asked for, plaintext allowed: refused, or whether keys are wanted
        let table = [
            (local, false, false, None, false, Some(false)),
            (local, true, false, None, false, Some(false)),
            (local, false, false, Some(true), false, Some(true)),
            ("[::1]:7233", false, false, None, false, Some(false)),
            (open, false, false, None, false, None),
            (open, false, false, Some(true), false, None),
            (open, false, false, None, true, Some(true)),
            (open, false, false, Some(false), true, None),
            (open, true, false, None, false, Some(true)),
            (open, true, false, Some(false), false, None),
            (open, true, true, None, false, Some(false)),
            (open, true, true, Some(true), false, Some(true)),
            (open, true, true, Some(false), false, Some(false)),
            ("[::]:7233", false, false, None, false, None),
        ];
        for (addr, tls, client_certificates, keys, plaintext, expected) in table {
            let exposure =
                Exposure { addr: addr.parse().expect("an address"), tls, client_certificates, keys, plaintext };
            let case = format!("{addr} {tls} {client_certificates} {keys:?} {plaintext}");
            assert_eq!(wants_keys(&exposure).ok(), expected, "{case}");
        }
    }
}
