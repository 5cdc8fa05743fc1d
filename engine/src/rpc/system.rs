//! What this server is and can do.

use super::{Call, Reply};
use crate::pb::version::v1::{ReleaseInfo, VersionInfo};
use crate::pb::workflowservice::v1::*;
use temporalio_protos::grpc::health::v1::{HealthCheckRequest, HealthCheckResponse, health_check_response};

/// The Temporal server whose behaviour is reproduced. SDKs and tools compare it with what they need.
const SERVER_VERSION: &str = "1.32.0";

pub async fn get_system_info(_: Call, _: GetSystemInfoRequest) -> Reply<GetSystemInfoResponse> {
    Ok(GetSystemInfoResponse {
        server_version: SERVER_VERSION.to_owned(),
        capabilities: Some(get_system_info_response::Capabilities {
            signal_and_query_header: true,
            internal_error_differentiation: true,
            activity_failure_include_heartbeat: true,
            encoded_failure_attributes: true,
            upsert_memo: true,
            sdk_metadata: true,
            count_group_by_execution_status: true,
            ..Default::default()
        }),
    })
}

pub async fn get_cluster_info(_: Call, _: GetClusterInfoRequest) -> Reply<GetClusterInfoResponse> {
    Ok(GetClusterInfoResponse {
        server_version: SERVER_VERSION.to_owned(),
        cluster_id: "steadyhand".to_owned(),
        cluster_name: super::namespace::CLUSTER.to_owned(),
        history_shard_count: 1,
        persistence_store: "embedded".to_owned(),
        visibility_store: "embedded".to_owned(),
        version_info: Some(VersionInfo {
            current: Some(ReleaseInfo { version: SERVER_VERSION.to_owned(), ..Default::default() }),
            ..Default::default()
        }),
        ..Default::default()
    })
}

pub async fn health(_: Call, _: HealthCheckRequest) -> Reply<HealthCheckResponse> {
    Ok(HealthCheckResponse { status: health_check_response::ServingStatus::Serving as i32 })
}
