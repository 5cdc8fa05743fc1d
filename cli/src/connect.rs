//! The connection to the engine: in process, over node.sock, or to a Temporal cluster. Nothing else differs.

use crate::{
    error::{Code, Hint},
    forward::{Forwarder, cluster_host},
    grpc::RawClient,
};
use bytes::Bytes;
use engine::Engine;
use http::{HeaderMap, HeaderName, HeaderValue};
use log::ClaimCheck;
use std::{sync::Arc, time::Duration};
use store::Blobs;
use temporalio_client::{
    Client, ClientOptions, Connection, ConnectionOptions, Url,
    callback_based::{CallbackBasedGrpcService, GrpcRequest, GrpcSuccessResponse},
};
use tonic::Status;

/// The embedded engine behind the client's own interface: no socket is opened.
pub async fn embedded(engine: Engine, identity: &str) -> anyhow::Result<Connection> {
    let service = CallbackBasedGrpcService {
        callback: Arc::new(move |request: GrpcRequest| {
            let engine = engine.clone();
            Box::pin(async move {
                let body = Bytes::copy_from_slice(&request.proto);
                let proto = engine.call(&request.service, &request.rpc, &request.headers, body).await?;
                Ok(GrpcSuccessResponse { headers: HeaderMap::new(), proto })
            })
        }),
    };
    overridden(service, identity).await
}

/// The engine behind a node's socket.
pub async fn node(node: RawClient, token: Option<String>, identity: &str) -> anyhow::Result<Connection> {
    let mut extra = HeaderMap::new();
    if let Some(token) = token {
        let mut value = HeaderValue::from_str(&format!("Bearer {token}"))?;
        value.set_sensitive(true);
        extra.insert(HeaderName::from_static("authorization"), value);
    }
    let service = CallbackBasedGrpcService {
        callback: Arc::new(move |request: GrpcRequest| {
            let (node, extra) = (node.clone(), extra.clone());
            Box::pin(async move {
                let mut headers = request.headers;
                headers.extend(extra);
                let (headers, proto) = node.call(&request.service, &request.rpc, &headers, &request.proto).await?;
                Ok(GrpcSuccessResponse { headers, proto: proto.to_vec() })
            })
        }),
    };
    overridden(service, identity).await
}

async fn overridden(service: CallbackBasedGrpcService, identity: &str) -> anyhow::Result<Connection> {
    let options = ConnectionOptions::new(Url::parse("http://embedded.invalid")?)
        .service_override(service)
        .dns_load_balancing(None)
        .identity(identity)
        .build();
    Ok(Connection::connect(options).await?)
}

/// A Temporal cluster.
pub async fn cluster(address: &str, identity: &str) -> anyhow::Result<Connection> {
    let url = format!("http://{}", cluster_host(address)?);
    let hint = "is it running, and is HOST:PORT that of its frontend (usually port 7233)?";
    let problem = format!("reach Temporal at {address}");
    let url = Url::parse(&url).hint(Code::Usage, problem.clone(), hint)?;
    let options = ConnectionOptions::new(url).identity(identity).build();
    let connecting = tokio::time::timeout(Duration::from_secs(10), Connection::connect(options)).await;
    connecting
        .map_err(|_| anyhow::anyhow!("no answer within 10 s"))
        .and_then(|connected| connected.map_err(Into::into))
        .hint(Code::Unreachable, problem, hint)
}

/// What a worker works through; `blobs` is where its large payloads go.
pub fn client(connection: Connection, namespace: &str, blobs: Arc<dyn Blobs>) -> anyhow::Result<Client> {
    let options = ClientOptions::new(namespace).data_converter(ClaimCheck::converter(blobs)).build();
    Ok(Client::new(connection, options)?)
}

/// The engine as node.sock offers it.
#[derive(Clone)]
pub enum Rpc {
    Embedded(Engine),
    Cluster(Arc<Forwarder>),
}

impl Rpc {
    pub async fn call(&self, service: &str, rpc: &str, headers: &HeaderMap, body: Bytes) -> Result<Vec<u8>, Status> {
        match self {
            Rpc::Embedded(engine) => engine.call(service, rpc, headers, body).await,
            Rpc::Cluster(cluster) => cluster.call(service, rpc, headers, &body).await,
        }
    }
}
