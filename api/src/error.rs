//! The one table of errors, and the envelope in which clients see them.
//!
//! A client reads the outer message; the inner error, if there is one, is logged where the envelope is written and never
//! sent. Handlers return [`ApiError`]; `router.rs` writes the envelope, as only it knows the request id.

use std::borrow::Cow;
use std::error::Error;
use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

pub type Result<T, E = ApiError> = std::result::Result<T, E>;

const SHOULD_RETRY: &str = "x-should-retry";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    InvalidRequest,
    Authentication,
    Permission,
    NotFound,
    MethodNotAllowed,
    TooSlow,
    Conflict,
    PreconditionFailed,
    TooLarge,
    RateLimit,
    Internal,
    NotBuilt,
    Unavailable,
}

impl Kind {
    /// Status, `error.type`, and whether repeating the request can help, where the status alone misleads: the SDKs
    /// repeat every 409 and 5xx by themselves.
    fn row(self) -> (StatusCode, &'static str, Option<bool>) {
        match self {
            Kind::InvalidRequest => (StatusCode::BAD_REQUEST, "invalid_request_error", None),
            Kind::Authentication => (StatusCode::UNAUTHORIZED, "authentication_error", None),
            Kind::Permission => (StatusCode::FORBIDDEN, "permission_error", None),
            Kind::NotFound => (StatusCode::NOT_FOUND, "not_found_error", None),
            Kind::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", None),
            Kind::TooSlow => (StatusCode::REQUEST_TIMEOUT, "timeout_error", None),
            Kind::Conflict => (StatusCode::CONFLICT, "conflict_error", Some(false)),
            Kind::PreconditionFailed => (StatusCode::PRECONDITION_FAILED, "invalid_request_error", None),
            Kind::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", None),
            Kind::RateLimit => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", None),
            Kind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "api_error", None),
            Kind::NotBuilt => (StatusCode::NOT_IMPLEMENTED, "api_error", Some(false)),
            Kind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "api_error", None),
        }
    }

    /// The kind that stands for a bare status, as the frame under the handlers makes it.
    fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::NOT_FOUND => Kind::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => Kind::MethodNotAllowed,
            StatusCode::PAYLOAD_TOO_LARGE => Kind::TooLarge,
            status if status.is_client_error() => Kind::InvalidRequest,
            _ => Kind::Internal,
        }
    }
}

/// An error as clients see it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Error")]
pub struct Envelope {
    #[serde(rename = "type")]
    #[schemars(extend("const" = "error"))]
    kind: &'static str,
    error: Told,
    request_id: String,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ErrorDetails")]
struct Told {
    #[serde(rename = "type")]
    kind: &'static str,
    message: Cow<'static, str>,
    /// `error_code`, where there is one, tells errors of one type apart.
    #[serde(skip_serializing_if = "Map::is_empty")]
    details: Map<String, Value>,
}

#[derive(Clone, Debug)]
pub struct ApiError {
    kind: Kind,
    message: Cow<'static, str>,
    code: Option<&'static str>,
    details: Map<String, Value>,
    should_retry: Option<bool>,
    retry_after_s: Option<u64>,
    inner: Option<Arc<dyn Error + Send + Sync>>,
}

impl ApiError {
    pub fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            message: message.into(),
            code: None,
            details: Map::new(),
            should_retry: kind.row().2,
            retry_after_s: None,
            inner: None,
        }
    }

    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::InvalidRequest, message)
    }

    /// A wrong value in a body or query; `field` is its path there, as in `tools[1].name`.
    pub fn field(field: impl std::fmt::Display, problem: impl std::fmt::Display) -> Self {
        Self::invalid(format!("{field}: {problem}"))
    }

    /// The same error of a value that sits under `field` in what the client sent.
    pub fn within(mut self, field: &str) -> Self {
        self.message = format!("{field}.{}", self.message).into();
        self
    }

    /// `what` is the noun that a client knows it by, as in "agent".
    pub fn not_found(what: &str, id: &str) -> Self {
        Self::new(Kind::NotFound, format!("{what} {id} not found"))
    }

    pub fn conflict(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Conflict, message)
    }

    /// Something of the API that this server does not have yet.
    pub fn not_built(what: impl std::fmt::Display) -> Self {
        Self::new(Kind::NotBuilt, format!("{what}: not implemented by this server yet")).code("not_implemented")
    }

    /// A failure of ours: the client learns nothing but the request id, the log has the rest. A full disk is an
    /// operator's to mend, and said.
    pub fn internal(inner: impl Error + Send + Sync + 'static) -> Self {
        if is_disk_full(&inner) {
            return Self::unavailable("the disk of the service is full").inner(inner);
        }
        Self::new(Kind::Internal, "internal server error").inner(inner)
    }

    pub fn unavailable(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Unavailable, message)
    }

    /// The machine-readable code, from which the SDKs choose a class.
    pub fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    pub fn detail(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    pub fn should_retry(mut self, should_retry: bool) -> Self {
        self.should_retry = Some(should_retry);
        self
    }

    pub fn retry_after_s(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    pub fn inner(mut self, inner: impl Error + Send + Sync + 'static) -> Self {
        self.inner = Some(Arc::new(inner));
        self
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn of_status(status: StatusCode) -> Self {
        Self::new(Kind::of(status), status.canonical_reason().unwrap_or("request failed"))
    }

    /// The envelope, as the client gets it. Logs the inner error.
    pub(crate) fn envelope(self, request_id: &str) -> Response {
        let (status, kind, _) = self.kind.row();
        match &self.inner {
            Some(inner) if status.is_server_error() => {
                tracing::error!(request_id, error = chain(inner.as_ref()), "request failed");
            }
            Some(inner) => tracing::debug!(request_id, error = chain(inner.as_ref()), "request refused"),
            None => {}
        }
        let mut details = self.details;
        if let Some(code) = self.code {
            details.insert("error_code".to_owned(), code.into());
        }
        let error = Told { kind, message: self.message, details };
        let envelope = Envelope { kind: "error", error, request_id: request_id.to_owned() };
        let mut response = (status, Json(envelope)).into_response();
        let headers = response.headers_mut();
        if let Some(should_retry) = self.should_retry {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static(if should_retry { "true" } else { "false" }));
        }
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

/// An error and its causes, on one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Only the status and the error itself; `router.rs` makes the envelope of them.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.kind.row().0.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

fn is_disk_full(error: &(dyn Error + 'static)) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|io| io.kind() == std::io::ErrorKind::StorageFull) || error.source().is_some_and(is_disk_full)
}

impl From<store::catalog::Error> for ApiError {
    fn from(error: store::catalog::Error) -> Self {
        use store::catalog::Error as Catalog;
        match error {
            // Who can decide again does so before it comes to this.
            Catalog::Conflict { .. } => ApiError::conflict("changed by another request, try again").should_retry(true),
            Catalog::Poisoned { .. } | Catalog::Closed => {
                ApiError::unavailable("storage takes no more writes until the service is restarted").inner(error)
            }
            error => ApiError::internal(error),
        }
    }
}

impl From<store::blobs::Error> for ApiError {
    fn from(error: store::blobs::Error) -> Self {
        match error {
            store::blobs::Error::Poisoned => {
                ApiError::unavailable("storage takes no more writes until the service is restarted").inner(error)
            }
            error => ApiError::internal(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use http_body_util::BodyExt;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn the_cause_of_our_failures_is_not_told() {
        let secret = store::blobs::Error::Io { operation: "read", source: io::Error::other("/secret/path") };
        let response = ApiError::from(secret).envelope("req_1");
        assert_eq!(response.status(), 500);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let expected = json!({"type": "error", "request_id": "req_1",
            "error": {"type": "api_error", "message": "internal server error"}});
        assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), expected);
    }

    #[test]
    fn a_full_disk_says_so() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let error = ApiError::from(store::blobs::Error::Io { operation: "write", source: full });
        assert_eq!((error.kind(), error.message()), (Kind::Unavailable, "the disk of the service is full"));
    }

    #[test]
    fn causes_are_logged_on_one_line() {
        let error = store::blobs::Error::Io { operation: "read", source: io::Error::other("no disk") };
        assert_eq!(chain(&error), "read a blob: no disk");
    }

    #[test]
    fn headers_say_whether_and_when_to_try_again() {
        let headers = |error: ApiError| {
            let response = error.envelope("req_1");
            let header = |name: &str| Some(response.headers().get(name)?.to_str().unwrap().to_owned());
            (header("x-should-retry"), header("retry-after"))
        };
        assert_eq!(headers(ApiError::conflict("no")), (Some("false".into()), None));
        assert_eq!(headers(ApiError::invalid("no")), (None, None));
        let busy = ApiError::new(Kind::RateLimit, "busy").should_retry(true).retry_after_s(3);
        assert_eq!(headers(busy), (Some("true".into()), Some("3".into())));
    }
}
