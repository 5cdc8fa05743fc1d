//! Bodies that a handler reads or writes by itself, and still says what they are: [`Given`] is a request, [`Sent`] an
//! answer, and their parameter a kind of content.

use std::borrow::Cow;
use std::marker::PhantomData;

use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::{Value, json};

use crate::resources::stream::only;

/// A kind of content, and what it looks like.
pub trait Media {
    /// An OpenAPI `content` object.
    fn content(generator: &mut SchemaGenerator) -> Value;
}

/// A request whose body is an `M`, still to be read.
pub struct Given<M>(Request, PhantomData<M>);

impl<M> Given<M> {
    pub fn request(self) -> Request {
        self.0
    }
}

impl<S: Send + Sync, M> FromRequest<S> for Given<M> {
    type Rejection = std::convert::Infallible;

    async fn from_request(request: Request, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self(request, PhantomData))
    }
}

/// An answer whose body is an `M`.
pub struct Sent<M>(Response, PhantomData<M>);

impl<M> Sent<M> {
    pub fn new(response: Response) -> Self {
        Self(response, PhantomData)
    }
}

impl<M> IntoResponse for Sent<M> {
    fn into_response(self) -> Response {
        self.0
    }
}

/// Bytes of any type.
pub struct Octets;

impl Media for Octets {
    fn content(_: &mut SchemaGenerator) -> Value {
        json!({"*/*": {}})
    }
}

pub struct Text;

impl Media for Text {
    fn content(_: &mut SchemaGenerator) -> Value {
        json!({"text/plain": {"schema": {"type": "string"}}})
    }
}

/// A stream of session events.
pub struct Events;

impl Media for Events {
    fn content(generator: &mut SchemaGenerator) -> Value {
        // Without a schema of the whole: it has no end. `itemSchema` is OpenAPI 3.2's, an extension before.
        json!({"text/event-stream": {"x-itemSchema": only::schema(generator)}})
    }
}

/// A file and fields beside it.
pub struct Form;

impl Media for Form {
    fn content(_: &mut SchemaGenerator) -> Value {
        json!({"multipart/form-data": {"schema": {
            "type": "object",
            "required": ["file"],
            "properties": {
                "file": {"type": "string", "contentMediaType": "application/octet-stream"},
                "expires_in_seconds": {"type": "integer"},
            },
        }}})
    }
}

/// What is shown as it is kept, for people to look at: an object, and the API promises no more of it.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(transparent)]
pub struct Open<T>(pub T);

impl<T> JsonSchema for Open<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Open".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "object"})
    }
}
