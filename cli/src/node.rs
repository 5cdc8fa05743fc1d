//! `node.sock`: what the service offers to workers on the same machine, and to whom it offers what.
//!
//! Three services in one framing: engine RPCs, blobs, deltas. A worker's role decides; a child has its role from
//! the socket it was born with, a process started by hand shows a token from `DIR/roles/`.

mod brain;
mod hand;
#[cfg(test)]
mod tests;

use crate::connect::Rpc;
use bytes::Bytes;
use domain::delta::Delta;
use engine::serve::{Callee, connection};
use hand::Bounds;
use http::HeaderMap;
use std::{collections::BTreeMap, sync::Arc};
use store::{Blobs, remote};
use tokio::net::{UnixListener, UnixStream};
use tonic::Status;

/// Blobs and deltas are rpcs of this service.
pub const SERVICE: &str = "steadyhand.Node";
pub const PUBLISH_DELTA: &str = "PublishDelta";

const WORKFLOW_SERVICE: &str = "temporal.api.workflowservice.v1.WorkflowService";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Runs sessions: needs workflow tasks, histories and its own activities.
    Brain,
    /// Runs tools: polls activities and reports on those it was given. Reads no history, signals nobody.
    Hand,
}

impl Role {
    pub const ALL: [Role; 2] = [Role::Brain, Role::Hand];

    pub fn name(self) -> &'static str {
        match self {
            Role::Brain => "brain",
            Role::Hand => "hand",
        }
    }

    /// Whether a worker in this role may make a call.
    pub fn allows(self, service: &str, rpc: &str) -> bool {
        match (self, service) {
            (Role::Brain, WORKFLOW_SERVICE) => HAND_RPCS.contains(&rpc) || BRAIN_RPCS.contains(&rpc),
            (Role::Hand, WORKFLOW_SERVICE) => HAND_RPCS.contains(&rpc),
            (Role::Brain, SERVICE) => true,
            (Role::Hand, SERVICE) => rpc != PUBLISH_DELTA,
            _ => false,
        }
    }
}

const HAND_RPCS: &[&str] = &[
    "GetSystemInfo",
    "DescribeNamespace",
    "PollActivityTaskQueue",
    "RecordActivityTaskHeartbeat",
    "RespondActivityTaskCompleted",
    "RespondActivityTaskFailed",
    "RespondActivityTaskCanceled",
    "RecordWorkerHeartbeat",
    "ShutdownWorker",
];

const BRAIN_RPCS: &[&str] = &[
    "PollWorkflowTaskQueue",
    "RespondWorkflowTaskCompleted",
    "RespondWorkflowTaskFailed",
    "RespondQueryTaskCompleted",
    "ResetStickyTaskQueue",
    "GetWorkflowExecutionHistory",
    "GetWorkflowExecutionHistoryReverse",
    "DescribeWorkflowExecution",
];

/// Takes in what a brain worker in another process publishes.
pub type Publish = Arc<dyn Fn(Delta) + Send + Sync>;

#[derive(Clone)]
pub struct Node {
    engine: Rpc,
    blobs: Arc<dyn Blobs>,
    publish: Publish,
    /// Tokens of processes started by hand.
    tokens: Arc<BTreeMap<String, Role>>,
    namespace: String,
}

/// Who a connection belongs to, where the connection itself says it.
#[derive(Clone, Debug)]
pub struct Peer {
    pub role: Role,
    /// The host of a hand worker.
    pub host: Option<String>,
}

impl Node {
    pub fn new(
        engine: Rpc,
        namespace: &str,
        blobs: Arc<dyn Blobs>,
        publish: Publish,
        tokens: BTreeMap<String, Role>,
    ) -> Self {
        Node { engine, blobs, publish, tokens: Arc::new(tokens), namespace: namespace.to_owned() }
    }

    /// Accepts processes that were started by hand, until dropped.
    pub async fn listen(self, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(self.clone().serve(stream, None));
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "a worker could not be accepted");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// Serves one connection; `peer` is given when the connection itself says who it is.
    pub async fn serve(self, stream: UnixStream, peer: Option<Peer>) {
        connection(self.connected(peer), stream, std::future::pending()).await;
    }

    /// What one connection is offered.
    pub fn connected(self, peer: Option<Peer>) -> Connected {
        let role = peer.as_ref().map(|peer| peer.role);
        let bounds = Arc::new(Bounds::new(&self.namespace, peer.and_then(|peer| peer.host)));
        Connected { node: self, role, bounds }
    }

    async fn call(
        &self,
        role: Option<Role>,
        bounds: &Bounds,
        service: &str,
        rpc: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Vec<u8>, Status> {
        let role = self.role(role, headers)?;
        if !role.allows(service, rpc) {
            return Err(Status::permission_denied(format!("a {} worker may not call {rpc}", role.name())));
        }
        if service != SERVICE && role == Role::Hand {
            bounds.check(rpc, &body)?;
            let reply = self.engine.call(service, rpc, headers, body.clone()).await?;
            bounds.done(rpc, &body, &reply)?;
            return Ok(reply);
        }
        if service != SERVICE {
            brain::check(&self.namespace, rpc, &body)?;
            return self.engine.call(service, rpc, headers, body).await;
        }
        if rpc == PUBLISH_DELTA {
            let delta = serde_json::from_slice(&body).map_err(|error| Status::invalid_argument(error.to_string()))?;
            (self.publish)(delta);
            return Ok(Vec::new());
        }
        match remote::answer(&*self.blobs, rpc, body).await {
            Some(Ok(answer)) => Ok(answer.to_vec()),
            Some(Err(error)) => Err(Status::internal(error.to_string())),
            None => Err(Status::unimplemented(format!("unknown method {rpc}"))),
        }
    }

    fn role(&self, role: Option<Role>, headers: &HeaderMap) -> Result<Role, Status> {
        role.or_else(|| self.role_of(headers)).ok_or_else(|| Status::unauthenticated("no or unknown role token"))
    }

    fn role_of(&self, headers: &HeaderMap) -> Option<Role> {
        let shown = bearer(headers)?;
        self.tokens.iter().find(|(token, _)| same(shown, token)).map(|(_, role)| *role)
    }
}

/// One connection, with what its worker was handed on it.
pub struct Connected {
    node: Node,
    role: Option<Role>,
    bounds: Arc<Bounds>,
}

impl Callee for Connected {
    fn admit(&self, headers: &HeaderMap) -> Result<(), Status> {
        self.node.role(self.role, headers).map(drop)
    }

    async fn call(&self, service: &str, rpc: &str, headers: &HeaderMap, body: Bytes) -> Result<Vec<u8>, Status> {
        self.node.call(self.role, &self.bounds, service, rpc, headers, body).await
    }
}

/// The token that a caller shows, as SDKs send API keys.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get("authorization")?.to_str().ok()?.strip_prefix("Bearer ")
}

/// Whether two tokens are the same; how long it takes does not tell where they differ.
pub fn same(shown: &str, token: &str) -> bool {
    let differences = shown.bytes().zip(token.bytes()).fold(0, |found, (a, b)| found | (a ^ b));
    differences == 0 && shown.len() == token.len() && !token.is_empty()
}
