//! What a session's hand is made from: listed, added and taken away while the session lives.

use axum::Json;
use axum::extract::{Path, State};
use domain::egress::Secret;
use domain::session::{Resource as Mounted, ResourceKind};
use schemars::JsonSchema;
use serde::Deserialize;
use store::catalog::Error as CatalogError;
use store::{Batch, Durability};

use super::change::{self, Edit};
use super::object::PublicResource;
use super::repositories;
use super::row::{self, SessionRow};
use super::uploads::{self, ResourceParam};
use crate::app::App;
use crate::body::JsonBody;
use crate::error::{ApiError, Result};
use crate::operation::get;
use crate::page::Page;
use crate::resources::deleted::{Deleted, deleted};
use crate::resources::files::{self, FileRow};
use crate::router::{Resource, Route};

pub const RESOURCE: Resource = Resource {
    name: "session resources",
    routes: &[
        Route { path: "/v1/sessions/{session_id}/resources", methods: || get(list).post(add) },
        Route {
            path: "/v1/sessions/{session_id}/resources/{resource_id}",
            methods: || get(retrieve).post(rotate).delete(remove),
        },
    ],
};

async fn resources(app: &App, id: &str) -> Result<Vec<Mounted>> {
    row::find(app, id).await?;
    Ok(super::read(app, id).await?.summary.attributes.resources)
}

/// All of them: there are at most [`uploads::RESOURCES_MAX`].
async fn list(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Page<PublicResource>>> {
    let resources = resources(&app, &id).await?;
    Ok(Json(Page::whole(resources.iter().map(PublicResource::from).collect())))
}

async fn retrieve(
    State(app): State<App>,
    Path((id, resource_id)): Path<(String, String)>,
) -> Result<Json<PublicResource>> {
    let resources = resources(&app, &id).await?;
    let found = resources.iter().find(|resource| resource.id == resource_id);
    found.map(|resource| Json(resource.into())).ok_or_else(|| missing(&resource_id))
}

fn missing(resource_id: &str) -> ApiError {
    ApiError::not_found("session resource", resource_id)
}

async fn add(
    State(app): State<App>,
    Path(id): Path<String>,
    JsonBody(param): JsonBody<ResourceParam>,
) -> Result<Json<PublicResource>> {
    row::find(&app, &id).await?;
    if !matches!(param, ResourceParam::File(_)) {
        return Err(ApiError::field("type", "must be file: other resources are given when the session is created"));
    }
    let (added, _) = change::apply(&app, &id, async |current| {
        let attributes = &current.summary.attributes;
        if attributes.self_hosted {
            return Err(ApiError::invalid("a session in a self-hosted environment takes no file resources"));
        }
        let mut resources = attributes.resources.clone();
        let uploads = uploads::resolve(&app, &id, vec![param], &resources, app.clock.now()).await?;
        let batch = uploads.iter().fold(Batch::new(), |batch, upload| upload.keep(batch));
        app.catalog.write(batch, Durability::Synced).await?;
        let added = uploads.into_iter().map(|upload| upload.resource).collect::<Vec<_>>();
        resources.extend(added.iter().cloned());
        Ok((Edit { resources: Some(resources), ..Edit::default() }, added))
    })
    .await?;
    Ok(Json(PublicResource::from(&added[0])))
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Rotate {
    authorization_token: Secret,
}

/// Another token for a repository, from the next request on that git makes.
async fn rotate(
    State(app): State<App>,
    Path((id, resource_id)): Path<(String, String)>,
    JsonBody(body): JsonBody<Rotate>,
) -> Result<Json<PublicResource>> {
    let resources = resources(&app, &id).await?;
    let resource = resources.iter().find(|resource| resource.id == resource_id);
    let resource = resource.ok_or_else(|| missing(&resource_id))?;
    match &resource.kind {
        ResourceKind::GithubRepository { authorized: true, .. } => {}
        ResourceKind::GithubRepository { .. } => {
            let message = "the session was made without a token for this repository, and reads it as anybody can";
            return Err(ApiError::invalid(message));
        }
        _ => return Err(ApiError::invalid("only the token of a github_repository can be changed")),
    }
    repositories::check_token(&body.authorization_token, "authorization_token")?;
    if !lives(&app, &id).await? {
        return Err(change::ended());
    }
    repositories::keep_token(&app, &id, &resource_id, body.authorization_token).await?;
    if !lives(&app, &id).await? {
        // Its secrets may have gone before this one came.
        repositories::drop_token(&app, &id, &resource_id).await?;
        return Err(change::ended());
    }
    Ok(Json(resource.into()))
}

/// What has ended keeps no secret: it is deleted, or told to end, before its secrets go.
async fn lives(app: &App, id: &str) -> Result<bool> {
    let row = app.catalog.row::<SessionRow>(id).await?.map(|read| read.row);
    let is_there = row.is_some_and(|row| row.is_there() && row.archived_at.is_none());
    Ok(is_there && !super::read(app, id).await?.is_over())
}

async fn remove(State(app): State<App>, Path((id, resource_id)): Path<(String, String)>) -> Result<Json<Deleted>> {
    row::find(&app, &id).await?;
    let (removed, _) = change::apply(&app, &id, async |current| {
        let (removed, resources): (Vec<_>, Vec<_>) =
            current.summary.attributes.resources.iter().cloned().partition(|resource| resource.id == resource_id);
        let removed = removed.into_iter().next().ok_or_else(|| missing(&resource_id))?;
        if let ResourceKind::GithubRepository { authorized: true, .. } = &removed.kind {
            // As long as this fails the resource is there, and can be taken away again.
            repositories::drop_token(&app, &id, &resource_id).await?;
        }
        Ok((Edit { resources: Some(resources), ..Edit::default() }, removed))
    })
    .await?;
    if let ResourceKind::File { file_id, .. } = &removed.kind
        && let Some(read) = app.catalog.row::<FileRow>(file_id).await?
    {
        match app.catalog.write(files::remove(Batch::new(), &read), Durability::Synced).await {
            // Another request removed it.
            Err(CatalogError::Conflict { .. }) => {}
            written => written?,
        }
    }
    Ok(deleted(resource_id, "session_resource_deleted"))
}
