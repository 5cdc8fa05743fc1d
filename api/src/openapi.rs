//! The OpenAPI document: which paths there are, what each takes and what it answers, read off the routes and the
//! signatures of their handlers (`operation.rs`). It cannot tell of a route that is not there, nor leave one out.

use std::sync::LazyLock;

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::error::Envelope;
use crate::ids;
use crate::media::Open;
use crate::operation::{Operation, Schemas, get};
use crate::resources::unbuilt;
use crate::router::{RESOURCES, Resource, Route};

pub const RESOURCE: Resource =
    Resource { name: "openapi", routes: &[Route { path: "/openapi.json", methods: || get(document) }] };

/// What ids in paths look like. A parameter that is not here is a name.
const IDS: &[(&str, &str)] = &[
    ("agent_id", ids::AGENT),
    ("environment_id", ids::ENVIRONMENT),
    ("work_id", ids::WORK),
    ("session_id", ids::SESSION),
    ("thread_id", ids::THREAD),
    ("resource_id", ids::RESOURCE),
    ("vault_id", ids::VAULT),
    ("credential_id", ids::CREDENTIAL),
    ("file_id", ids::FILE),
    ("key_id", ids::API_KEY),
    ("rollout_id", ids::ROLLOUT),
];

/// Made once: it is of the build.
pub(crate) static DOCUMENT: LazyLock<Value> = LazyLock::new(describe);

async fn document(State(_): State<App>) -> Json<Open<&'static Value>> {
    Json(Open(&DOCUMENT))
}

/// The document of what this build serves.
fn describe() -> Value {
    let mut schemas = Schemas::default();
    let mut paths = Map::new();
    for resource in RESOURCES.iter().filter(|resource| resource.name != unbuilt::RESOURCE.name) {
        for route in resource.routes {
            paths.insert(route.path.to_owned(), item(resource, route, &mut schemas));
        }
    }
    let error = schemas.given::<Envelope>();
    json!({
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
                    "content": {"application/json": {"schema": error}},
                },
            },
            "schemas": schemas.named(),
        },
    })
}

fn item(resource: &Resource, route: &Route, schemas: &mut Schemas) -> Value {
    let operations = (route.methods)().operations.into_iter();
    let mut item: Map<String, Value> = operations
        .map(|operation| {
            let method = operation.method.as_str().to_ascii_lowercase();
            let described = described(&method, resource, route, &operation, schemas);
            (method, described)
        })
        .collect();
    let params = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let params: Vec<Value> =
        params.map(|name| json!({"name": name, "in": "path", "required": true, "schema": path_param(name)})).collect();
    if !params.is_empty() {
        item.insert("parameters".to_owned(), params.into());
    }
    Value::Object(item)
}

fn path_param(name: &str) -> Value {
    match IDS.iter().find(|(known, _)| *known == name) {
        Some((_, prefix)) => json!({"type": "string", "pattern": format!("^{prefix}_[0-9A-Za-z]+$")}),
        None => json!({"type": "string"}),
    }
}

fn described(method: &str, resource: &Resource, route: &Route, operation: &Operation, schemas: &mut Schemas) -> Value {
    let (body, answer) = operation.describe(schemas);
    let mut described = json!({
        "operationId": operation_id(method, route.path),
        "tags": [resource.name],
        "responses": {
            "200": {
                "description": "Done.",
                "headers": {"request-id": {"$ref": "#/components/headers/RequestId"}},
                "content": answer,
            },
            "default": {"$ref": "#/components/responses/Error"},
        },
    });
    let query = operation.params.iter().flat_map(|param| param.spelled());
    let query: Vec<Value> =
        query.map(|(name, schema)| json!({"name": name, "in": "query", "schema": schema})).collect();
    if !query.is_empty() {
        described["parameters"] = query.into();
    }
    if let Some(content) = body {
        described["requestBody"] = json!({"content": content});
    }
    described
}

/// As in `post_v1_sessions_session_id_events`.
fn operation_id(method: &str, path: &str) -> String {
    let words = path.split(['/', '.']).map(|part| part.trim_matches(['{', '}'])).filter(|part| !part.is_empty());
    std::iter::once(method).chain(words).collect::<Vec<_>>().join("_")
}
