//! The OpenAPI document: which paths there are, what each takes and who answers, read off the router itself. It cannot
//! tell of a route that is not there, nor leave one out.
//!
//! It says how to call and what errors look like. The shapes of bodies are the official SDKs' and are not repeated here.

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::routing::get;
use http::Method;
use http::header::ALLOW;
use serde_json::{Map, Value, json};
use tower::ServiceExt;

use crate::app::App;
use crate::error::{ApiError, Result};
use crate::resources::{files, unbuilt};
use crate::router::{self, RESOURCES, Resource, Route};

pub const RESOURCE: Resource =
    Resource { name: "openapi", routes: &[Route { path: "/openapi.json", methods: || get(document) }] };

/// No route takes it, so whoever is asked says what it does take.
const NEVER: Method = Method::TRACE;

async fn document(State(app): State<App>) -> Result<Json<Value>> {
    Ok(Json(describe(&app).await?))
}

/// The document of what this build serves.
pub async fn describe(app: &App) -> Result<Value> {
    let mut paths = Map::new();
    for resource in RESOURCES.iter().filter(|resource| resource.name != unbuilt::RESOURCE.name) {
        for route in resource.routes {
            paths.insert(route.path.to_owned(), operations(resource, route, &methods(app, route).await?));
        }
    }
    Ok(json!({
        "openapi": "3.1.0",
        "info": {"title": "Steadyhand", "version": env!("CARGO_PKG_VERSION")},
        "security": [{"bearer": []}, {"key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
            "headers": {
                "RequestId": {"description": "The id under which to ask about a request.", "schema": {"type": "string"}},
            },
            "responses": {
                "Error": {
                    "description": "The request was refused, or could not be answered.",
                    "headers": {"request-id": {"$ref": "#/components/headers/RequestId"}},
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
                },
            },
            "schemas": {"Error": error_schema()},
        },
    }))
}

fn error_schema() -> Value {
    json!({
        "type": "object",
        "required": ["type", "error", "request_id"],
        "properties": {
            "type": {"const": "error"},
            "request_id": {"type": "string"},
            "error": {
                "type": "object",
                "required": ["type", "message"],
                "properties": {
                    "type": {"type": "string"},
                    "message": {"type": "string"},
                    "details": {"type": "object", "properties": {"error_code": {"type": "string"}}},
                },
            },
        },
    })
}

/// What a route answers to, in the router's own words.
async fn methods(app: &App, route: &Route) -> Result<Vec<String>> {
    let path = route.path.replace(['{', '}'], "");
    let request = Request::builder().method(NEVER).uri(path).body(Body::empty()).map_err(ApiError::internal)?;
    let response = match router::routes().with_state(app.clone()).oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let allowed = response.headers().get(ALLOW).and_then(|allowed| allowed.to_str().ok()).unwrap_or_default();
    // Every GET answers to HEAD too, by the router's doing.
    Ok(allowed.split(',').filter(|method| !matches!(*method, "" | "HEAD")).map(str::to_ascii_lowercase).collect())
}

fn operations(resource: &Resource, route: &Route, methods: &[String]) -> Value {
    let params = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let params: Vec<Value> = params
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    let mut operations = Map::new();
    for method in methods {
        let mut operation = json!({
            "operationId": operation_id(method, route.path),
            "tags": [resource.name],
            "responses": {"200": answer(route.path), "default": {"$ref": "#/components/responses/Error"}},
        });
        if method == "post" {
            operation["requestBody"] = body(route.path);
        }
        operations.insert(method.clone(), operation);
    }
    if !params.is_empty() {
        operations.insert("parameters".to_owned(), params.into());
    }
    Value::Object(operations)
}

/// As in `post_v1_sessions_session_id_events`.
fn operation_id(method: &str, path: &str) -> String {
    let words = path.split(['/', '.']).map(|part| part.trim_matches(['{', '}'])).filter(|part| !part.is_empty());
    std::iter::once(method).chain(words).collect::<Vec<_>>().join("_")
}

fn body(path: &str) -> Value {
    let kind = if path == files::PATH { "multipart/form-data" } else { "application/json" };
    json!({"content": {kind: {"schema": {"type": "object"}}}})
}

fn answer(path: &str) -> Value {
    let kind = match path.rsplit('/').next() {
        Some("stream") => "text/event-stream",
        Some("content") => "application/octet-stream",
        Some("diff") => "text/plain",
        _ => "application/json",
    };
    json!({
        "description": "Done.",
        "headers": {"request-id": {"$ref": "#/components/headers/RequestId"}},
        "content": {kind: {}},
    })
}
