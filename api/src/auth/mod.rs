//! Who may call, and what: the middleware in front of every route that wants a key.
//!
//! It finds out whose request it is, hands it to the api of that tenant, and says on the answer whose it was.

pub mod access;
pub mod audit;
pub mod keys;
pub mod limits;

use std::sync::Arc;

use axum::extract::{MatchedPath, RawPathParams, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, header};
use tower::ServiceExt;

pub use self::keys::{Keys, Scope};
use crate::error::{ApiError, Kind, Result};
use crate::resources::environments::work::token::TokenRow;
use crate::router::RequestId;
use crate::tenants::{Place, Tenants};

const API_KEY: &str = "x-api-key";
const ORGANIZATION_ID: HeaderName = HeaderName::from_static("anthropic-organization-id");
const WORKSPACE_ID: HeaderName = HeaderName::from_static("anthropic-workspace-id");

/// Who a request comes from. In the extensions of every request that got past [`require`].
#[derive(Clone, PartialEq, Debug)]
pub struct Principal {
    /// Of a key, or of the work item whose token it is.
    pub key_id: Arc<str>,
    pub workspace_id: Arc<str>,
    pub grant: Grant,
}

/// What somebody may do.
#[derive(Clone, PartialEq, Debug)]
pub enum Grant {
    /// Whoever runs the service.
    Admin,
    All,
    Read,
    /// A worker of a self-hosted environment.
    Environment {
        environment_id: String,
    },
    /// A worker that holds one item of work.
    Work(TokenRow),
}

impl Principal {
    pub fn is_admin(&self) -> bool {
        self.grant == Grant::Admin
    }

    /// Whether this is a worker, which brings results and says nothing else.
    pub fn is_worker(&self) -> bool {
        matches!(self.grant, Grant::Environment { .. } | Grant::Work(_))
    }
}

/// The middleware. `tenants` are all that there are.
pub async fn require(
    State(tenants): State<Tenants>,
    path: MatchedPath,
    params: RawPathParams,
    mut request: Request,
    next: Next,
) -> Result<Response> {
    let first = tenants.first();
    let token = token(request.headers())
        .ok_or_else(|| ApiError::new(Kind::Authentication, "no API key: send it as Authorization: Bearer KEY"))?;
    let principal = first.keys.check(token, &first.tenant.workspace_id, first.clock.now()).await?;
    let principal = principal.ok_or_else(invalid_key)?;
    // A key of a workspace that is no more is no key.
    let place = tenants.place(&principal.workspace_id).await?.ok_or_else(invalid_key)?;
    let app = match &place {
        Place::First(app) => app.clone(),
        Place::Other(other) => other.app.clone(),
    };
    if request.headers().get(WORKSPACE_ID).is_some_and(|id| id != app.tenant.workspace_id.as_str()) {
        return Err(ApiError::new(Kind::Permission, "the API key belongs to another workspace"));
    }
    let mut headers = HeaderMap::new();
    for (name, id) in [(ORGANIZATION_ID, &app.tenant.organization_id), (WORKSPACE_ID, &app.tenant.workspace_id)] {
        headers.insert(name, HeaderValue::from_str(id).expect("an id is plain ascii"));
    }
    let entry = audit::Entry::of(&principal, &request, path.as_str());
    let allowed = access::check(&app, &principal, request.method(), path.as_str(), &params).await;
    let admitted = allowed.and_then(|()| {
        let organization_id = &app.tenant.organization_id;
        let (counted, admitted) = app.limits.take(organization_id, request.method(), path.as_str(), app.clock.now());
        counted.show(&mut headers);
        admitted
    });
    let response = match admitted {
        Ok(()) => {
            request.extensions_mut().insert(principal);
            match place {
                Place::First(_) => next.run(request).await,
                Place::Other(other) => match other.routes.oneshot(bare(request)).await {
                    Ok(response) => response,
                    Err(never) => match never {},
                },
            }
        }
        Err(error) => error.into_response(),
    };
    let mut response = audit::keep(&app, entry, response).await;
    response.headers_mut().extend(headers);
    Ok(response)
}

fn invalid_key() -> ApiError {
    ApiError::new(Kind::Authentication, "invalid API key")
}

/// The request as it came, to be routed again: without what the first routing noted of it.
fn bare(request: Request) -> Request {
    let (mut parts, body) = request.into_parts();
    let mut kept = Extensions::new();
    if let Some(id) = parts.extensions.remove::<RequestId>() {
        kept.insert(id);
    }
    if let Some(principal) = parts.extensions.remove::<Principal>() {
        kept.insert(principal);
    }
    parts.extensions = kept;
    Request::from_parts(parts, body)
}

/// The SDKs send a bearer token, older ones and curl samples `x-api-key`.
fn token(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    bearer.or_else(|| headers.get(API_KEY)?.to_str().ok()).filter(|token| !token.is_empty())
}
