//! Files: what clients upload for sessions, and what sessions leave behind. The row is here, the bytes are a blob.
//!
//! Only what a session made can be downloaded: an uploaded file is given to sessions, and its owner has it already.

mod row;
mod upload;

use std::collections::BTreeSet;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderValue, header};
use store::catalog::Error as CatalogError;
use store::{Batch, Durability, Versioned};

pub(crate) use self::row::{BY_EXPIRY, expire, expired_by, verify};
use self::row::{BY_SCOPE, BY_TIME, File};
pub use self::row::{FileRow, insert, of_session, remove};
use crate::app::App;
use crate::error::{ApiError, Kind, Result};
use crate::listing::{self, Index};
use crate::media::{Octets, Sent};
use crate::operation::{get, post};
use crate::page::{self, Limits, Order, Page, PageRequest};
use crate::query::{Param, Query, TimeRange};
use crate::resources::deleted::{Deleted, deleted};
use crate::router::{Resource, Route};

pub const RESOURCE: Resource = Resource {
    name: "files",
    routes: &[
        Route {
            path: "/v1/files",
            methods: || {
                let filters = [Param::text("scope_id"), Param::texts("ids")];
                post(upload::upload).get(list).query(filters).query([LIMITS.param(), page::param()])
            },
        },
        Route { path: "/v1/files/{file_id}", methods: || get(retrieve).delete(delete) },
        Route { path: "/v1/files/{file_id}/content", methods: || get(content) },
    ],
};

const LIMITS: Limits = Limits { default: 20, max: 1000 };
const IDS_MAX: usize = 100;

async fn retrieve(State(app): State<App>, Path(id): Path<String>) -> Result<Json<File>> {
    Ok(Json(read(&app, &id).await?.row.into()))
}

async fn list(State(app): State<App>, query: Query) -> Result<Json<Page<File>>> {
    let scope_id = query.text("scope_id")?;
    let ids = query.list("ids");
    if !ids.is_empty() {
        if query.text("page")?.is_some() || query.text("limit")?.is_some() {
            return Err(ApiError::field("ids", "cannot be combined with page or limit"));
        }
        return Ok(Json(Page::whole(named(&app, ids, scope_id).await?)));
    }
    let (name, index) = match scope_id {
        None => ("files".to_owned(), Index::new(BY_TIME)),
        Some(scope_id) => (format!("files of {scope_id}"), Index::within(BY_SCOPE, scope_id)),
    };
    let request = PageRequest::of(&query, name, Order::Desc, LIMITS)?;
    let page = listing::page(&*app.catalog, &index, &request, TimeRange::default(), |_: &FileRow| true).await?;
    Ok(Json(page.map(File::from)))
}

/// The files with these ids, newest first; ids of no file are left out.
async fn named(app: &App, ids: BTreeSet<&str>, scope_id: Option<&str>) -> Result<Vec<File>> {
    if ids.len() > IDS_MAX {
        return Err(ApiError::field("ids", format!("{} ids, at most {IDS_MAX} are allowed", ids.len())));
    }
    let mut rows = Vec::new();
    for id in ids {
        let row = app.catalog.row::<FileRow>(id).await?.map(|read| read.row);
        rows.extend(row.filter(|row| scope_id.is_none_or(|scope_id| row.session_id.as_deref() == Some(scope_id))));
    }
    rows.sort_by(|one, other| (other.created_at, &other.id).cmp(&(one.created_at, &one.id)));
    Ok(rows.into_iter().map(File::from).collect())
}

async fn content(State(app): State<App>, Path(id): Path<String>) -> Result<Sent<Octets>> {
    let row = load(&app, &id).await?;
    if !row.downloadable {
        let error =
            ApiError::invalid(format!("file {id} was uploaded, and only files that a session made can be downloaded"));
        return Err(error.code("file_not_downloadable"));
    }
    let reader = app.blobs.open(row.digest, None).await?;
    let mut response = Response::new(Body::from_stream(reader.stream));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, reader.size.into());
    let octets = HeaderValue::from_static(upload::OCTETS);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_str(&row.mime_type).unwrap_or(octets));
    // A session's output is nobody's web page.
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(Sent::new(response))
}

async fn delete(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Deleted>> {
    let read = read(&app, &id).await?;
    match app.catalog.write(remove(Batch::new(), &read), Durability::Synced).await {
        // Rows of files never change, so another request deleted it.
        Err(CatalogError::Conflict { .. }) => return Err(ApiError::not_found("file", &id)),
        written => written?,
    }
    Ok(deleted(id, "file_deleted"))
}

async fn read(app: &App, id: &str) -> Result<Versioned<FileRow>> {
    app.catalog.row::<FileRow>(id).await?.ok_or_else(|| ApiError::not_found("file", id))
}

/// A file whose bytes are still there.
pub async fn load(app: &App, id: &str) -> Result<FileRow> {
    let row = read(app, id).await?.row;
    if row.is_expired(app.clock.now()) {
        return Err(ApiError::new(Kind::NotFound, format!("file {id} has expired")).code("file_expired"));
    }
    Ok(row)
}
