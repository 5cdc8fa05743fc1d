//! Another access token for an MCP server, by OAuth's refresh token. One at a time for a credential: whoever comes second
//! finds the token that the first one got.

use super::mcp::Place;
use super::{Proxy, Refusal, Session, upstream};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use domain::egress::{ClientAuth, CredentialId, McpServer, Refresh, Secret};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

const ANSWER_BYTES_MAX: usize = 64 * 1024;
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Refreshes that are under way, by credential.
#[derive(Default)]
pub struct Refreshes(std::sync::Mutex<BTreeMap<CredentialId, Arc<Mutex<()>>>>);

impl Refreshes {
    fn of(&self, id: &CredentialId) -> Arc<Mutex<()>> {
        let mut under_way = self.0.lock().expect("no holder panics");
        under_way.retain(|_, one| Arc::strong_count(one) > 1);
        Arc::clone(under_way.entry(id.clone()).or_default())
    }
}

#[derive(Deserialize)]
struct Tokens {
    access_token: Secret,
    /// Where the server gives another one out with each use.
    #[serde(default)]
    refresh_token: Option<Secret>,
}

/// Has a token in the vault that is not `refused` any more.
pub async fn refresh(
    proxy: &Proxy,
    session: &Session,
    server: &McpServer,
    refused: &Option<Zeroizing<String>>,
) -> Result<(), Refusal> {
    let (Some(id), Some(refresh)) = (&server.credential, &server.refresh) else { return Ok(()) };
    let one = proxy.refreshes.of(id);
    let _held = one.lock().await;
    if refused.as_ref().is_none_or(|refused| proxy.secret(id).is_ok_and(|now| now != *refused)) {
        return Ok(());
    }
    let tokens = tokio::time::timeout(ANSWER_WITHIN, ask(proxy, session, refresh, id)).await;
    let tokens = tokens.map_err(|_| Refusal::gateway("the token endpoint did not answer"))??;
    let keep = |id: &CredentialId, secret: &str| {
        proxy.vault.put(id, secret).map(drop).map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "token not kept");
            Refusal::gateway("the token that the endpoint gave could not be kept")
        })
    };
    // First what cannot be had again.
    if let Some(next) = &tokens.refresh_token {
        keep(&refresh.refresh_token, &next.0)?;
    }
    keep(id, &tokens.access_token.0)
}

async fn ask(proxy: &Proxy, session: &Session, refresh: &Refresh, id: &CredentialId) -> Result<Tokens, Refusal> {
    let place = Place::of(&refresh.token_endpoint)?;
    let to = proxy.guard.check_bound(session, &place.host, place.port).await?;
    if !place.tls && !to.listed {
        return Err(Refusal::denied("token endpoints are reached by https"));
    }
    session.opening(&proxy.audit, &to.host, to.port)?;
    let secret = proxy.secret(&refresh.refresh_token)?;
    let mut form = vec![("grant_type", "refresh_token".to_owned()), ("refresh_token", secret.to_string())];
    let optional = [("resource", &refresh.resource), ("scope", &refresh.scope)];
    form.extend(optional.into_iter().filter_map(|(name, value)| value.clone().map(|value| (name, value))));
    let mut authorization = None;
    match &refresh.client {
        ClientAuth::Basic { secret } => {
            let secret = proxy.secret(secret)?;
            let pair = Zeroizing::new(format!("{}:{}", *encoded(&refresh.client_id), *encoded(&secret)));
            authorization = Some(Zeroizing::new(format!("Basic {}", BASE64.encode(pair.as_bytes()))));
        }
        ClientAuth::Post { secret } => {
            form.push(("client_id", refresh.client_id.clone()));
            form.push(("client_secret", proxy.secret(secret)?.to_string()));
        }
        ClientAuth::None {} => form.push(("client_id", refresh.client_id.clone())),
    }
    let pairs = form.iter().map(|(name, value)| format!("{name}={}", *encoded(value)));
    let body = Bytes::from(pairs.collect::<Vec<_>>().join("&"));
    for (_, value) in &mut form {
        zeroize::Zeroize::zeroize(value);
    }
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(&place.path)
        .header(HOST, &place.authority)
        .header(ACCEPT, "application/json")
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(CONTENT_LENGTH, body.len());
    if let Some(authorization) = authorization {
        let mut value =
            HeaderValue::from_str(&authorization).map_err(|_| Refusal::bad("the client cannot be named"))?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    let body = Full::new(body).map_err(|never| match never {}).boxed_unsync();
    let request = request.body(body).map_err(|_| Refusal::bad("the token endpoint cannot be asked"))?;
    let answer = upstream::send(proxy, session, &to, place.tls, request).await?;
    let status = answer.status();
    proxy.used(session, id, &to.host, "refresh", status);
    if !status.is_success() {
        // As the server would have said it: whoever calls has to be let in anew.
        return Err(Refusal::new(http::StatusCode::UNAUTHORIZED, format!("the token endpoint answered {status}")));
    }
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|_| Refusal::gateway("the token endpoint's answer broke off"))?.to_bytes();
    serde_json::from_slice(&body).map_err(|_| Refusal::gateway("the token endpoint gave no token"))
}

/// As in a form: everything but letters, digits and what needs no escape.
fn encoded(text: &str) -> Zeroizing<String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let one = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    Zeroizing::new(text.bytes().map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_escaped() {
        assert_eq!(&*encoded("a-B_9.~ +/=&ü"), "a-B_9.~%20%2B%2F%3D%26%C3%BC");
    }

    #[test]
    fn a_refresh_is_shared_while_it_is_under_way() {
        let id = |name: &str| CredentialId { vault: "v".into(), credential: name.into() };
        let refreshes = Refreshes::default();
        let (one, same, other) = (refreshes.of(&id("a")), refreshes.of(&id("a")), refreshes.of(&id("b")));
        assert!(Arc::ptr_eq(&one, &same) && !Arc::ptr_eq(&one, &other));
        drop((one, same, other));
        refreshes.of(&id("c"));
        assert_eq!(refreshes.0.lock().unwrap().len(), 1);
    }
}
