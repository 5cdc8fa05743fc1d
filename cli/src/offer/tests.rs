//! The listener as other programs meet it: through TLS of their own, with and without certificates and keys. The
//! certificates beside this file were made for it, and open nothing else.

use super::*;
use crate::connect::Rpc;
use crate::grpc::RawClient;
use crate::node::Role;
use engine::{Options, Store};
use http::HeaderMap;
use prost::Message;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use store::MemoryBlobs;
use temporalio_common::protos::temporal::api::taskqueue::v1::TaskQueue;
use temporalio_common::protos::temporal::api::workflowservice::v1::*;
use tokio_rustls::TlsConnector;
use tonic::{Code, Status};

const SERVICE: &str = "temporal.api.workflowservice.v1.WorkflowService";

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/offer/certificates").join(name)
}

/// An engine that is offered, until dropped.
struct Offered {
    engine: Engine,
    addr: SocketAddr,
    close: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl Offered {
    async fn new(shape: impl FnOnce(&mut OfferArgs)) -> Offered {
        let mut args = OfferArgs { engine_listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))), ..OfferArgs::default() };
        shape(&mut args);
        let offer = args.offer().expect("may be opened").expect("is asked for");
        let engine = Engine::open(Options::new(Store::Memory)).expect("opens");
        let tokens = BTreeMap::from([("hand key".to_owned(), Role::Hand), ("brain key".to_owned(), Role::Brain)]);
        let rpc = Rpc::Embedded(engine.clone());
        let node = Node::new(rpc, "default", Arc::new(MemoryBlobs::default()), Arc::new(|_| {}), tokens);
        let (close, closing) = watch::channel(false);
        let (addr, serving) =
            offer.open(engine.clone(), node, "engine key".to_owned(), closing).await.expect("listens");
        Offered { engine, addr, close, serving }
    }

    async fn plain(&self) -> RawClient {
        let stream = TcpStream::connect(self.addr).await.expect("connects");
        RawClient::new(stream, "http://engine", None, || {}).await.expect("speaks HTTP/2")
    }

    /// Through TLS, with a certificate or without.
    async fn secret(&self, with_certificate: bool) -> std::io::Result<RawClient> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(file("ca.pem")).expect("a certificate")).expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("versions").with_root_certificates(roots);
        let mut config = match with_certificate {
            false => config.with_no_client_auth(),
            true => {
                let certificate = CertificateDer::from_pem_file(file("client.pem")).expect("a certificate");
                let key = PrivateKeyDer::from_pem_file(file("client.key")).expect("a key");
                config.with_client_auth_cert(vec![certificate], key).expect("fits")
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(self.addr).await?;
        let name = ServerName::try_from("localhost").expect("a name");
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        RawClient::new(stream, "https://localhost", None, || {}).await.map_err(std::io::Error::other)
    }

    async fn close(self) {
        self.close.send_replace(true);
        self.engine.shutdown().await;
        self.serving.await.expect("ends in good order");
    }
}

async fn ask<R: Message + Default>(
    client: &RawClient,
    key: Option<&str>,
    rpc: &str,
    message: impl Message,
) -> Result<R, Status> {
    let mut headers = HeaderMap::new();
    if let Some(key) = key {
        headers.insert(http::header::AUTHORIZATION, format!("Bearer {key}").parse().expect("a header"));
    }
    let (_, answer) = client.call(SERVICE, rpc, &headers, &message.encode_to_vec()).await?;
    Ok(R::decode(answer).expect("an answer"))
}

async fn list(client: &RawClient, key: Option<&str>) -> Result<(), Code> {
    let listed = ask::<ListNamespacesResponse>(client, key, "ListNamespaces", ListNamespacesRequest::default()).await;
    listed.map(|listed| assert_eq!(listed.namespaces.len(), 1)).map_err(|status| status.code())
}

fn with_tls(args: &mut OfferArgs) {
    args.engine_tls_cert = Some(file("server.pem"));
    args.engine_tls_key = Some(file("server.key"));
}

#[tokio::test]
async fn a_loopback_listener_takes_everybody_in_plaintext() {
    let offered = Offered::new(|_| {}).await;
    assert_eq!(list(&offered.plain().await, None).await, Ok(()));
    offered.close().await;
}

#[tokio::test]
async fn a_listener_with_a_certificate_speaks_tls_and_nothing_else() {
    let offered = Offered::new(with_tls).await;
    assert_eq!(list(&offered.secret(false).await.expect("is let in"), None).await, Ok(()));
    assert_eq!(list(&offered.plain().await, None).await, Err(Code::Unavailable));
    offered.close().await;
}

#[tokio::test]
async fn renewed_certificates_count_from_the_next_connection_on_and_bad_ones_never() {
    let folder = tempfile::tempdir().expect("a folder");
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let put = |name: &str, to: &Path| {
        // As those who renew certificates do: the name is another file from one moment to the next.
        let new = folder.path().join("new");
        std::fs::copy(file(name), &new).expect("copies");
        std::fs::rename(new, to).expect("renames");
    };
    // Nobody takes a client's certificate for localhost's.
    put("client.pem", &cert);
    put("client.key", &key);
    let offered = Offered::new(|args| {
        args.engine_tls_cert = Some(cert.clone());
        args.engine_tls_key = Some(key.clone());
    })
    .await;
    assert!(offered.secret(false).await.is_err());
    put("server.pem", &cert);
    assert!(offered.secret(false).await.is_err(), "its key is not there yet");
    put("server.key", &key);
    let before = offered.secret(false).await.expect("is let in");
    assert_eq!(list(&before, None).await, Ok(()));
    put("ca.pem", &key);
    let after = offered.secret(false).await.expect("the last ones that could be used stay");
    std::fs::remove_file(&cert).expect("removes");
    let last = offered.secret(false).await.expect("also when there are none");
    for client in [before, after, last] {
        assert_eq!(list(&client, None).await, Ok(()));
    }
    offered.close().await;
}

#[tokio::test]
async fn where_clients_need_certificates_nobody_else_is_let_in() {
    let offered = Offered::new(|args| {
        with_tls(args);
        args.engine_tls_client_ca = Some(file("ca.pem"));
    })
    .await;
    assert_eq!(list(&offered.secret(true).await.expect("is let in"), None).await, Ok(()));
    // A client of TLS 1.3 hears of it with its first answer.
    let stranger = match offered.secret(false).await {
        Ok(client) => list(&client, None).await,
        Err(_) => Err(Code::Unavailable),
    };
    assert_eq!(stranger, Err(Code::Unavailable));
    offered.close().await;
}

#[tokio::test]
async fn a_key_opens_what_its_role_may_call() {
    let offered = Offered::new(|args| {
        with_tls(args);
        args.engine_keys = Some(true);
    })
    .await;
    let client = offered.secret(false).await.expect("is let in");
    for (key, expected) in [
        (None, Err(Code::Unauthenticated)),
        (Some("another key"), Err(Code::Unauthenticated)),
        (Some("engine ke"), Err(Code::Unauthenticated)),
        (Some("hand key"), Err(Code::PermissionDenied)),
        (Some("brain key"), Err(Code::PermissionDenied)),
        (Some("engine key"), Ok(())),
    ] {
        assert_eq!(list(&client, key).await, expected, "{key:?}");
    }
    let poll = |name: &str| PollActivityTaskQueueRequest {
        namespace: "default".to_owned(),
        task_queue: Some(TaskQueue { name: name.to_owned(), ..Default::default() }),
        ..Default::default()
    };
    let refused =
        ask::<PollActivityTaskQueueResponse>(&client, Some("hand key"), "PollActivityTaskQueue", poll("brain"));
    assert_eq!(refused.await.expect_err("is another's queue").code(), Code::PermissionDenied);
    let info =
        ask::<GetSystemInfoResponse>(&client, Some("hand key"), "GetSystemInfo", GetSystemInfoRequest::default());
    info.await.expect("workers may ask that");
    offered.close().await;
}

#[tokio::test]
async fn the_temporal_cli_comes_in_with_its_certificate_and_key() {
    let temporal = std::env::var_os("STEADYHAND_TEMPORAL_BIN");
    let temporal = temporal.expect("STEADYHAND_TEMPORAL_BIN is not set: run the tests through scripts/test");
    let offered = Offered::new(|args| {
        with_tls(args);
        args.engine_tls_client_ca = Some(file("ca.pem"));
        args.engine_keys = Some(true);
    })
    .await;
    let addr = offered.addr.to_string();
    for (key, is_let_in) in [("engine key", true), ("another key", false)] {
        let mut command = Command::new(&temporal);
        command.args(["operator", "namespace", "list", "--address", &addr, "--api-key", key, "--tls"]);
        command.args(["--tls-server-name", "localhost"]).arg("--tls-ca-path").arg(file("ca.pem"));
        command.arg("--tls-cert-path").arg(file("client.pem")).arg("--tls-key-path").arg(file("client.key"));
        let ran = tokio::task::spawn_blocking(move || command.env_clear().env("HOME", "/nonexistent").output());
        let ran = ran.await.expect("runs").expect("can be started");
        let said = String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned();
        assert_eq!((ran.status.success(), said.contains("unauthenticated")), (is_let_in, !is_let_in), "{said}");
    }
    offered.close().await;
}

#[test]
fn half_of_what_tls_needs_and_files_that_are_none_are_refused() {
    let listen = || OfferArgs { engine_listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))), ..Default::default() };
    let table: [fn(&mut OfferArgs); 5] = [
        |args| args.engine_tls_cert = Some(file("server.pem")),
        |args| args.engine_tls_client_ca = Some(file("ca.pem")),
        |args| {
            args.engine_tls_cert = Some(file("server.pem"));
            args.engine_tls_key = Some(file("client.key"));
        },
        |args| {
            args.engine_tls_cert = Some(file("server.key"));
            args.engine_tls_key = Some(file("server.key"));
        },
        |args| {
            args.engine_tls_cert = Some(file("none.pem"));
            args.engine_tls_key = Some(file("server.key"));
        },
    ];
    for (n, shape) in table.into_iter().enumerate() {
        let mut args = listen();
        shape(&mut args);
        assert!(args.offer().is_err(), "{n}");
    }
    assert!(OfferArgs::default().offer().expect("nothing is asked for").is_none());
}
