//! Who changed what: one entry for each call that changes something, with ids and never with what was sent.
//!
//! Events of sessions are not here, as the session's own log has them; nor is the beating of workers.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::Method;
use http_body::Body as _;
use http_body_util::BodyExt;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use store::catalog::Error as CatalogError;
use store::{Batch, Catalog, Direction, Durability, KeyRange, Record, Table};

use super::Principal;
use crate::app::App;
use crate::listing::{self, Index};
use crate::page::{Page, PageRequest};
use crate::query::TimeRange;
use crate::router::RequestId;

/// How long an entry is kept.
const KEPT: SignedDuration = SignedDuration::from_hours(24 * 90);
/// Answers that are larger name nothing that was made.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
const STRIDE: usize = 500;

/// Endings of routes that change nothing but what another log has.
const ELSEWHERE: &[&str] = &["/events", "/ack", "/heartbeat"];

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AuditRow {
    /// The request's.
    pub id: String,
    pub at: Timestamp,
    pub workspace_id: String,
    pub key_id: String,
    pub method: String,
    /// The route, as in `/v1/agents/{agent_id}`.
    pub route: String,
    /// As it was called.
    pub path: String,
    pub status: u16,
    /// What was made, or changed, where the answer says so.
    pub object_id: Option<String>,
}

impl Record for AuditRow {
    const TABLE: Table = Table::new("audit");
    const VERSION: u32 = 1;
}

/// What is known of a call before it is answered.
pub struct Entry {
    principal: Principal,
    id: String,
    method: Method,
    route: String,
    path: String,
}

impl Entry {
    /// None where the call is not kept.
    pub fn of(principal: &Principal, request: &Request, route: &str) -> Option<Self> {
        let method = request.method();
        if *method == Method::GET || *method == Method::HEAD || ELSEWHERE.iter().any(|end| route.ends_with(end)) {
            return None;
        }
        let id = request.extensions().get::<RequestId>().map(|id| id.0.to_string()).unwrap_or_default();
        let (method, route, path) = (method.clone(), route.to_owned(), request.uri().path().to_owned());
        Some(Self { principal: principal.clone(), id, method, route, path })
    }
}

/// Keeps an entry of a call that was answered. Lazy: it survives the end of the process, as what it tells of does.
pub async fn keep(app: &App, entry: Option<Entry>, response: Response) -> Response {
    let Some(Entry { principal, id, method, route, path }) = entry else { return response };
    let (response, object_id) = object_id(response).await;
    let row = AuditRow {
        id,
        at: app.clock.now(),
        workspace_id: principal.workspace_id.to_string(),
        key_id: principal.key_id.to_string(),
        method: method.to_string(),
        route,
        path,
        status: response.status().as_u16(),
        object_id,
    };
    let batch = index().insert(Batch::new().insert(&row.id, &row), row.at, &row.id);
    if let Err(error) = app.catalog.write(batch, Durability::Lazy).await {
        tracing::error!(request_id = row.id, error = &error as &dyn std::error::Error, "audit entry not kept");
    }
    response
}

/// In the extensions of an answer whose body may not be looked at: what was made.
#[derive(Clone)]
pub struct Made(pub String);

/// The id in an answer, and the answer as it was.
async fn object_id(mut response: Response) -> (Response, Option<String>) {
    #[derive(Deserialize)]
    struct Object {
        id: String,
    }
    if let Some(Made(id)) = response.extensions_mut().remove::<Made>() {
        return (response, Some(id));
    }
    let size = response.body().size_hint().exact();
    if !response.status().is_success() || size.is_none_or(|bytes| bytes > ANSWER_BYTES_MAX) {
        return (response, None);
    }
    let (parts, body) = response.into_parts();
    // What knows its length is in memory already and cannot fail.
    let bytes: Bytes = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let object = serde_json::from_slice::<Object>(&bytes).ok();
    (Response::from_parts(parts, Body::from(bytes)), object.map(|object| object.id))
}

/// The index of entries by time.
pub const BY_TIME: Table = Table::new("audit_by_time");

fn index() -> Index {
    Index::new(BY_TIME)
}

/// Entries of all tenants, as the catalog of any of them has them.
pub async fn page(catalog: &dyn Catalog, request: &PageRequest, times: TimeRange) -> crate::Result<Page<AuditRow>> {
    listing::page(catalog, &index(), request, times, |_: &AuditRow| true).await
}

/// Lets go of what is older than it has to be.
pub async fn forget(catalog: &dyn Catalog, now: Timestamp) -> Result<(), CatalogError> {
    let range: KeyRange = index().until(now - KEPT);
    loop {
        let entries = catalog.scan(BY_TIME, range.clone(), Direction::Forward, STRIDE).await?;
        if entries.is_empty() {
            return Ok(());
        }
        let batch = entries.into_iter().fold(Batch::new(), |batch, entry| {
            batch.delete(BY_TIME, entry.key.to_vec()).delete(AuditRow::TABLE, entry.value.to_vec())
        });
        catalog.write(batch, Durability::Lazy).await?;
    }
}
