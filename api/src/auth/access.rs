//! What each kind of caller may call. Keys of a workspace may call everything or only look; workers may call what their
//! work needs, and only for it.

use axum::extract::RawPathParams;
use http::Method;

use super::{Grant, Principal};
use crate::app::App;
use crate::error::{ApiError, Kind, Result};
use crate::resources::environments::work::row::SessionWork;
use crate::resources::environments::work::token;

const SESSION: &str = "/v1/sessions/{session_id}";
const EVENTS: &str = "/v1/sessions/{session_id}/events";
const STREAM: &str = "/v1/sessions/{session_id}/events/stream";
const POLL: &str = "/v1/environments/{environment_id}/work/poll";
const ACK: &str = "/v1/environments/{environment_id}/work/{work_id}/ack";
const HEARTBEAT: &str = "/v1/environments/{environment_id}/work/{work_id}/heartbeat";
const STOP: &str = "/v1/environments/{environment_id}/work/{work_id}/stop";

/// What a worker needs of the session that it serves.
const OF_SESSIONS: &[(Method, &str)] =
    &[(Method::GET, SESSION), (Method::GET, EVENTS), (Method::POST, EVENTS), (Method::GET, STREAM)];
/// What it needs of the queue.
const OF_ITEMS: &[(Method, &str)] = &[(Method::POST, HEARTBEAT), (Method::POST, STOP)];
const OF_QUEUES: &[(Method, &str)] = &[(Method::GET, POLL), (Method::POST, ACK)];

/// `path` is that of the route.
pub async fn check(
    app: &App,
    principal: &Principal,
    method: &Method,
    path: &str,
    params: &RawPathParams,
) -> Result<()> {
    let is_one_of = |routes: &[(Method, &str)]| routes.iter().any(|(known, route)| known == method && *route == path);
    let param = |name: &str| params.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value);
    match &principal.grant {
        Grant::Admin | Grant::All if is_one_of(OF_QUEUES) || (is_one_of(OF_ITEMS) && path == HEARTBEAT) => {
            Err(forbidden("the work of an environment is taken with a key of that environment"))
        }
        Grant::Admin | Grant::All => Ok(()),
        Grant::Read if method == Method::GET && !is_one_of(OF_QUEUES) => Ok(()),
        Grant::Read => Err(forbidden("the API key may only read")),
        Grant::Environment { environment_id } if is_one_of(OF_QUEUES) || is_one_of(OF_ITEMS) => {
            if param("environment_id") == environment_id {
                Ok(())
            } else {
                Err(not_found("environment", param("environment_id")))
            }
        }
        Grant::Environment { environment_id } if is_one_of(OF_SESSIONS) => {
            let session_id = param("session_id");
            let work = app.catalog.row::<SessionWork>(session_id).await?;
            match work.filter(|read| read.row.environment_id == *environment_id) {
                Some(_) => Ok(()),
                None => Err(not_found("session", session_id)),
            }
        }
        Grant::Work(token) if is_one_of(OF_ITEMS) => {
            let is_own = param("environment_id") == token.environment_id && param("work_id") == token.work_id;
            if is_own { Ok(()) } else { Err(not_found("work item", param("work_id"))) }
        }
        Grant::Work(token) if is_one_of(OF_SESSIONS) => {
            if param("session_id") != token.session_id {
                return Err(not_found("session", param("session_id")));
            }
            if !token::is_live(app, token).await? {
                return Err(ApiError::new(Kind::Authentication, "the work item of this token is no longer held by it"));
            }
            Ok(())
        }
        Grant::Environment { .. } | Grant::Work(_) => Err(forbidden("this is not for workers")),
    }
}

fn not_found(what: &str, id: &str) -> ApiError {
    ApiError::not_found(what, id)
}

fn forbidden(message: &'static str) -> ApiError {
    ApiError::new(Kind::Permission, message)
}
