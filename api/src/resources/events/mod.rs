//! The events of a session: sending, listing.

pub mod calls;
mod check;
pub mod list;
pub mod post;
pub mod public;
pub mod retry;
mod sources;
pub mod turn;
pub mod wire;

use axum::Json;
use axum::extract::{Path, State};

use self::public::PublicEvent;
use super::sessions::row;
use crate::app::App;
use crate::error::Result;
use crate::operation::get;
use crate::page::Page;
use crate::query::Query;
use crate::router::{Resource, Route};

pub const RESOURCE: Resource = Resource {
    name: "session events",
    routes: &[Route {
        path: "/v1/sessions/{session_id}/events",
        methods: || get(events).query(list::params()).post(post::send),
    }],
};

async fn events(
    State(app): State<App>,
    Path(session_id): Path<String>,
    query: Query,
) -> Result<Json<Page<PublicEvent>>> {
    row::find(&app, &session_id).await?;
    let followed = app.session(&session_id);
    let name = format!("sessions/{session_id}/events");
    Ok(Json(list::list(&followed, &*app.blobs, &query, name).await?))
}
