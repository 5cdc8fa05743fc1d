//! Namespaces: names under which workflow ids are apart. The configured ones always exist; more can be registered.

use super::filter::Registered;
use super::{Call, Reply, status};
use crate::core::ids;
use crate::host::Kept;
use crate::pb::enums::v1::{ArchivalState, IndexedValueType, NamespaceState};
use crate::pb::errordetails::v1::NamespaceAlreadyExistsFailure;
use crate::pb::namespace::v1::{NamespaceConfig, NamespaceInfo, namespace_info};
use crate::pb::replication::v1::{ClusterReplicationConfig, NamespaceReplicationConfig};
use crate::pb::workflowservice::v1::*;
use crate::time::{duration, nanos};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use tonic::{Code, Status};

/// How this server is called among those that it has not.
pub const CLUSTER: &str = "active";

/// The names that exist, each with what is known of it.
#[derive(Default)]
pub struct Namespaces(RwLock<BTreeMap<String, Namespace>>);

#[derive(Default)]
struct Namespace {
    kept: Kept,
    attributes: Registered,
}

impl Namespaces {
    /// Namespaces with what is kept of each.
    pub fn new(names: impl IntoIterator<Item = (String, Kept)>) -> Self {
        let namespace = |kept| Namespace { kept, attributes: Registered::new() };
        Namespaces(RwLock::new(names.into_iter().map(|(name, kept)| (name, namespace(kept))).collect()))
    }

    pub fn exists(&self, name: &str) -> bool {
        self.0.read().contains_key(name)
    }

    /// The search attributes that were registered in a namespace.
    pub fn attributes(&self, name: &str) -> Registered {
        self.0.read().get(name).map(|namespace| namespace.attributes.clone()).unwrap_or_default()
    }

    pub fn add_attributes(&self, name: &str, attributes: impl IntoIterator<Item = (String, IndexedValueType)>) {
        if let Some(namespace) = self.0.write().get_mut(name) {
            namespace.attributes.extend(attributes);
        }
    }

    pub fn remove_attributes(&self, name: &str, attributes: &[String]) {
        if let Some(namespace) = self.0.write().get_mut(name) {
            namespace.attributes.retain(|name, _| !attributes.contains(name));
        }
    }
}

fn response(call: &Call, name: &str, Kept { description, retention_ns }: &Kept) -> DescribeNamespaceResponse {
    let limits = &call.host.limits;
    DescribeNamespaceResponse {
        namespace_info: Some(NamespaceInfo {
            name: name.to_owned(),
            state: NamespaceState::Registered as i32,
            description: description.clone(),
            id: ids::namespace(name),
            capabilities: Some(namespace_info::Capabilities {
                worker_poll_complete_on_shutdown: true,
                sync_update: true,
                async_update: true,
                worker_heartbeats: true,
                ..Default::default()
            }),
            limits: Some(namespace_info::Limits {
                blob_size_limit_error: limits.blob_bytes_max as i64,
                memo_size_limit_error: limits.memo_bytes_max as i64,
                ..Default::default()
            }),
            ..Default::default()
        }),
        config: Some(NamespaceConfig {
            history_archival_state: ArchivalState::Disabled as i32,
            visibility_archival_state: ArchivalState::Disabled as i32,
            workflow_execution_retention_ttl: (*retention_ns > 0).then(|| duration(*retention_ns)).flatten(),
            ..Default::default()
        }),
        replication_config: Some(NamespaceReplicationConfig {
            active_cluster_name: CLUSTER.to_owned(),
            clusters: vec![ClusterReplicationConfig { cluster_name: CLUSTER.to_owned(), ..Default::default() }],
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub async fn describe(call: Call, request: DescribeNamespaceRequest) -> Reply<DescribeNamespaceResponse> {
    if request.namespace.is_empty() && request.id.is_empty() {
        return Err(Status::invalid_argument("Namespace not set on request."));
    }
    let names = call.namespaces.0.read();
    let found = names.iter().find(|(name, _)| match request.namespace.as_str() {
        "" => ids::namespace(name) == request.id,
        wanted => *name == wanted,
    });
    match found {
        Some((name, namespace)) => Ok(response(&call, name, &namespace.kept)),
        None => Err(status::namespace_not_found(&format!("{}{}", request.namespace, request.id))),
    }
}

pub async fn list(call: Call, _: ListNamespacesRequest) -> Reply<ListNamespacesResponse> {
    let names = call.namespaces.0.read();
    let namespaces = names.iter().map(|(name, namespace)| response(&call, name, &namespace.kept)).collect();
    Ok(ListNamespacesResponse { namespaces, next_page_token: Vec::new() })
}

pub async fn register(call: Call, request: RegisterNamespaceRequest) -> Reply<RegisterNamespaceResponse> {
    call.id("Namespace", &request.namespace)?;
    if request.is_global_namespace {
        return Err(Status::invalid_argument("global namespaces are not supported by this server"));
    }
    if call.namespaces.exists(&request.namespace) {
        let detail = NamespaceAlreadyExistsFailure {};
        let message = format!("Namespace {:?} already exists", request.namespace);
        return Err(status::detailed(Code::AlreadyExists, &message, "NamespaceAlreadyExistsFailure", &detail));
    }
    let retention_ns = nanos(request.workflow_execution_retention_period.as_ref());
    if retention_ns < call.host.limits.retention_min_ns {
        return Err(Status::invalid_argument("A valid retention period is not set on request."));
    }
    let kept = Kept { description: request.description, retention_ns };
    call.host.store_namespace(&request.namespace, &kept).await?;
    let namespace = Namespace { kept, attributes: Registered::new() };
    call.namespaces.0.write().insert(request.namespace, namespace);
    Ok(RegisterNamespaceResponse {})
}
