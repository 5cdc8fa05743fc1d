//! Another access token for an MCP server, by OAuth's refresh token. One at a time for a credential: whoever comes second
//! finds the token that the first one got.
//!
//! A refresh token is often good for one use, so what was asked for is kept, whatever becomes of the call that needed it
//! and of its session. It never brings back what was deleted meanwhile, nor takes the place of what is newer.

use super::mcp::Place;
use super::{Proxy, Refusal, Session, upstream};
use crate::vault::Opened;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use domain::egress::{ClientAuth, CredentialId, McpServer, Refresh, Secret};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
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

/// Has a token in the vault that is not `refused` any more. Whoever stops waiting for that stops nothing but his waiting.
pub async fn refresh(
    proxy: &Arc<Proxy>,
    session: &Arc<Session>,
    server: &McpServer,
    refused: Option<&str>,
) -> Result<(), Refusal> {
    let (Some(id), Some(refresh), Some(refused)) = (&server.credential, &server.refresh, refused) else {
        return Ok(());
    };
    let held = proxy.refreshes.of(id).lock_owned().await;
    let access = proxy.entry(id)?;
    if access.secret.as_str() != refused {
        return Ok(());
    }
    let (proxy, session, refresh, id) = (Arc::clone(proxy), Arc::clone(session), refresh.clone(), id.clone());
    let renewed = tokio::spawn(async move {
        let _held = held;
        renew(&proxy, &session, &refresh, (&id, access)).await
    });
    renewed.await.unwrap_or_else(|_| Err(Refusal::gateway("the token could not be refreshed")))
}

async fn renew(
    proxy: &Proxy,
    session: &Session,
    refresh: &Refresh,
    (id, access): (&CredentialId, Opened),
) -> Result<(), Refusal> {
    let before = proxy.entry(&refresh.refresh_token)?;
    let asked = tokio::time::timeout(ANSWER_WITHIN, ask(proxy, session, refresh, (id, &before.secret))).await;
    let Tokens { access_token, refresh_token } =
        asked.map_err(|_| Refusal::gateway("the token endpoint did not answer"))??;
    // First what cannot be had again.
    if let Some(next) = refresh_token {
        keep(proxy, &refresh.refresh_token, &before, next)?;
    }
    keep(proxy, id, &access, access_token)
}

fn keep(proxy: &Proxy, id: &CredentialId, before: &Opened, secret: Secret) -> Result<(), Refusal> {
    match proxy.vault.replace(id, before, &Zeroizing::new(secret.0)) {
        Ok(Some(_)) => Ok(()),
        // The caller goes on with what is there now, if anything is.
        Ok(None) => {
            tracing::info!("a token that was refreshed has been changed or deleted meanwhile");
            Ok(())
        }
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "token not kept");
            Err(Refusal::gateway("the token that the endpoint gave could not be kept"))
        }
    }
}

async fn ask(
    proxy: &Proxy,
    session: &Session,
    refresh: &Refresh,
    (id, secret): (&CredentialId, &str),
) -> Result<Tokens, Refusal> {
    let place = Place::of(&refresh.token_endpoint)?;
    let to = proxy.guard.check_bound(session, &place.host, place.port).await?;
    if !place.tls && !to.listed {
        return Err(Refusal::denied("token endpoints are reached by https"));
    }
    session.opening(&proxy.audit, &to.host, to.port)?;
    let mut form = vec![("grant_type", encoded("refresh_token")), ("refresh_token", encoded(secret))];
    let optional = [("resource", &refresh.resource), ("scope", &refresh.scope)];
    form.extend(optional.into_iter().filter_map(|(name, value)| Some((name, encoded(value.as_ref()?)))));
    let mut authorization = None;
    match &refresh.client {
        ClientAuth::Basic { secret } => {
            let secret = proxy.secret(secret)?;
            let pair = Zeroizing::new(format!("{}:{}", *encoded(&refresh.client_id), *encoded(&secret)));
            authorization = Some(Zeroizing::new(format!("Basic {}", *Zeroizing::new(BASE64.encode(pair.as_bytes())))));
        }
        ClientAuth::Post { secret } => {
            form.push(("client_id", encoded(&refresh.client_id)));
            form.push(("client_secret", encoded(&proxy.secret(secret)?)));
        }
        ClientAuth::None {} => form.push(("client_id", encoded(&refresh.client_id))),
    }
    let body = Bytes::from_owner(joined(&form));
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
    // The session may end meanwhile: the token is not its own.
    let until = upstream::Until { over: CancellationToken::new(), answer_within: ANSWER_WITHIN };
    let answer = upstream::send(proxy, until, &to, place.tls, request).await?;
    let status = answer.status();
    proxy.used(session, id, &to.host, "refresh", status);
    if !status.is_success() {
        return Err(refused(status));
    }
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|_| Refusal::gateway("the token endpoint's answer broke off"))?.to_bytes();
    serde_json::from_slice(&body).map_err(|_| Refusal::gateway("the token endpoint gave no token"))
}

/// Where it is the token or the client that the endpoint does not take, whoever calls has to be let in anew, and hears it
/// as the server would have said it. Anything else may pass.
fn refused(status: StatusCode) -> Refusal {
    let said = format!("the token endpoint answered {status}");
    match status {
        StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Refusal::new(StatusCode::UNAUTHORIZED, said)
        }
        _ => Refusal::gateway(said),
    }
}

/// Fields of a form, one of which is a secret.
fn joined(form: &[(&str, Zeroizing<String>)]) -> Zeroizing<Vec<u8>> {
    // All of it at once: what a buffer leaves behind where it grows is not wiped.
    let length = form.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    let mut body = Zeroizing::new(Vec::with_capacity(length));
    for (name, value) in form {
        if !body.is_empty() {
            body.push(b'&');
        }
        body.extend_from_slice(name.as_bytes());
        body.push(b'=');
        body.extend_from_slice(value.as_bytes());
    }
    body
}

/// As in a form: everything but letters, digits and what needs no escape.
fn encoded(text: &str) -> Zeroizing<String> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let mut form = Zeroizing::new(String::with_capacity(text.len() * 3));
    for byte in text.bytes() {
        if plain(byte) {
            form.push(char::from(byte));
        } else {
            form.extend(['%', DIGITS[usize::from(byte >> 4)].into(), DIGITS[usize::from(byte & 15)].into()]);
        }
    }
    form
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_escaped() {
        assert_eq!(&*encoded("a-B_9.~ +/=&ü"), "a-B_9.~%20%2B%2F%3D%26%C3%BC");
        let form = [("a", encoded("1 2")), ("b", encoded("")), ("c", encoded("3"))];
        let body = joined(&form);
        assert_eq!(&**body, b"a=1%202&b=&c=3");
        // It was never moved.
        assert_eq!(body.capacity(), body.len() + 1);
    }

    #[test]
    fn only_what_is_wrong_with_the_token_asks_for_another() {
        for (status, told) in [(400, 401), (401, 401), (403, 401), (404, 502), (429, 502), (302, 502), (503, 502)] {
            assert_eq!(refused(StatusCode::from_u16(status).unwrap()).status.as_u16(), told, "{status}");
        }
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
