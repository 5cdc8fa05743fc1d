//! What is left of a thing that was deleted: its id, and that it is gone.

use axum::Json;
use schemars::JsonSchema;
use serde::Serialize;

#[derive(Serialize, JsonSchema)]
pub struct Deleted {
    id: String,
    /// As in `file_deleted`.
    #[serde(rename = "type")]
    kind: &'static str,
}

pub fn deleted(id: String, kind: &'static str) -> Json<Deleted> {
    Json(Deleted { id, kind })
}
