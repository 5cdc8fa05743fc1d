//! The routes, and the frame around them: a request id on every answer, the error envelope, the span.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing;
use axum::{Json, Router};
use futures::FutureExt;
use http::{HeaderValue, header};
use serde_json::json;
use tracing::field::Empty;
use tracing::{Instrument, Span};

use crate::app::App;
use crate::auth;
use crate::drain;
use crate::error::{ApiError, Kind};
use crate::ids;
use crate::openapi;
use crate::operation::Methods;
use crate::resources::{
    agents, api_keys, environments, events, files, hands, harnesses, inspect, rollouts, sessions, stream, threads,
    unbuilt, vaults, workspaces,
};
use crate::tenants::Tenants;

/// A resource of the API: where it is and who answers.
pub struct Resource {
    pub name: &'static str,
    pub routes: &'static [Route],
}

pub struct Route {
    /// In axum's notation, as in `/v1/agents/{agent_id}`.
    pub path: &'static str,
    pub methods: fn() -> Methods,
}

/// Every resource behind a key. A new one adds its line.
pub const RESOURCES: &[Resource] = &[
    agents::RESOURCE,
    environments::RESOURCE,
    environments::work::RESOURCE,
    environments::keys::RESOURCE,
    files::RESOURCE,
    hands::RESOURCE,
    sessions::RESOURCE,
    events::RESOURCE,
    sessions::resources::RESOURCE,
    stream::RESOURCE,
    threads::RESOURCE,
    vaults::RESOURCE,
    inspect::RESOURCE,
    harnesses::RESOURCE,
    rollouts::RESOURCE,
    api_keys::RESOURCE,
    workspaces::RESOURCE,
    openapi::RESOURCE,
    unbuilt::RESOURCE,
];

/// The id under which a client can ask about a request. In the extensions of every request.
#[derive(Clone, Debug)]
pub struct RequestId(pub Arc<str>);

const REQUEST_ID: &str = "request-id";

/// The routes alone, of any tenant.
pub(crate) fn routes() -> Router<App> {
    let mut routes = Router::new();
    for route in RESOURCES.iter().flat_map(|resource| resource.routes) {
        routes = (route.methods)().serve(routes, route.path);
    }
    routes.fallback(unknown_path).method_not_allowed_fallback(unknown_method)
}

/// The whole API: of the first tenant, and of the others behind the key.
pub fn router(app: App) -> Router {
    served(&Tenants::new(app))
}

pub(crate) fn served(tenants: &Tenants) -> Router {
    routes()
        .route_layer(middleware::from_fn_with_state(tenants.clone(), auth::require))
        .route("/healthz", routing::get(healthz))
        .layer(middleware::from_fn(drain::whole))
        .layer(middleware::from_fn(frame))
        .with_state(tenants.first().clone())
}

async fn healthz() -> Response {
    Json(json!({"status": "ok"})).into_response()
}

async fn unknown_path() -> ApiError {
    ApiError::new(Kind::NotFound, "no such path")
}

async fn unknown_method() -> ApiError {
    ApiError::new(Kind::MethodNotAllowed, "the path does not know this method")
}

async fn frame(mut request: Request, next: Next) -> Response {
    let request_id: Arc<str> = ids::new(ids::REQUEST).into();
    let route = request.extensions().get::<MatchedPath>().map_or("-", MatchedPath::as_str).to_owned();
    let retry = request.headers().get("x-stainless-retry-count").and_then(|count| count.to_str().ok()).unwrap_or("0");
    let span = tracing::info_span!(
        "request",
        %request_id,
        method = %request.method(),
        route,
        retry,
        status = Empty,
        session_id = Empty,
        begins_turn = Empty,
        turn_event = Empty,
    );
    request.extensions_mut().insert(RequestId(request_id.clone()));
    async {
        let mut response = match AssertUnwindSafe(next.run(request)).catch_unwind().await {
            Ok(response) => response,
            Err(_) => {
                tracing::error!("handler panicked");
                ApiError::new(Kind::Internal, "internal server error").into_response()
            }
        };
        if response.status().is_client_error() || response.status().is_server_error() {
            response = enveloped(response, &request_id);
        }
        let id = HeaderValue::from_str(&request_id).expect("an id is plain ascii");
        response.headers_mut().insert(REQUEST_ID, id);
        let status = response.status().as_u16();
        Span::current().record("status", status);
        tracing::debug!(status, "answered");
        response
    }
    .instrument(span)
    .await
}

/// Writes the envelope of the error that a handler left in the response, or of the bare status that a layer under the
/// handlers made, keeping its headers.
fn enveloped(mut response: Response, request_id: &str) -> Response {
    let error = response.extensions_mut().remove::<ApiError>();
    let mut enveloped = error.unwrap_or_else(|| ApiError::of_status(response.status())).envelope(request_id);
    for (name, value) in response.headers() {
        if *name != header::CONTENT_TYPE && *name != header::CONTENT_LENGTH {
            enveloped.headers_mut().append(name, value.clone());
        }
    }
    enveloped
}
