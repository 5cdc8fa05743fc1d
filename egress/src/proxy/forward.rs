//! Plain HTTP by absolute URL. Placeholders of credentials are replaced here, for their own host and no other.

use super::{Body, Proxy, Refusal, SILENCE_MAX, Session, end_to_end, redact, upstream};
use crate::idle;
use crate::policy;
use domain::egress::Variable;
use http::header::{ACCEPT_ENCODING, HOST};
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;
use zeroize::Zeroizing;

pub async fn send(proxy: &Proxy, session: &Session, request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
    let uri = request.uri().clone();
    let authority = uri.authority().ok_or_else(|| Refusal::bad("the URL has no host"))?;
    if authority.as_str().contains('@') {
        return Err(Refusal::bad("the URL holds a user"));
    }
    one_host(request.headers(), authority.as_str())?;
    let port = authority.port_u16().unwrap_or(80);
    let mut to = proxy.guard.check(session, authority.host(), port).await?;

    let (mut parts, body) = request.into_parts();
    end_to_end(&mut parts.headers);
    let replaced = replace(proxy, session, &mut parts.headers, &to.host, port)?;
    // A secret does not cross the internet in the clear: what was asked for by http:// is asked for by https.
    let tls = !replaced.is_empty() && !to.listed;
    if tls && port == 80 {
        to = proxy.guard.check(session, &to.host, 443).await?;
    }
    session.opening(&proxy.audit, &to.host, to.port)?;
    parts.headers.insert(HOST, HeaderValue::from_str(authority.as_str()).map_err(|_| Refusal::bad("no such host"))?);
    if !replaced.is_empty() {
        // What is packed cannot be looked through for the secret.
        parts.headers.remove(ACCEPT_ENCODING);
    }
    parts.uri = origin_form(&uri);
    let answer = upstream::send(
        proxy,
        upstream::Until::policy_of(session),
        &to,
        tls,
        Request::from_parts(parts, idle::bounded(body, SILENCE_MAX, u64::MAX)),
    )
    .await?;

    let (mut parts, body) = answer.into_parts();
    end_to_end(&mut parts.headers);
    for (variable, _) in &replaced {
        proxy.used(session, &variable.credential, &to.host, "header", parts.status);
    }
    if replaced.is_empty() {
        return Ok(Response::from_parts(parts, idle::bounded(body, SILENCE_MAX, u64::MAX)));
    }
    let secrets: Vec<_> = replaced.into_iter().map(|(_, secret)| secret).collect();
    redact::headers(&mut parts.headers, &secrets);
    Ok(Response::from_parts(parts, idle::bounded(redact::body(body, secrets), SILENCE_MAX, u64::MAX)))
}

/// The host that is asked for is the one in the URL, and nothing else in the request may say otherwise.
fn one_host(headers: &HeaderMap, authority: &str) -> Result<(), Refusal> {
    let mut hosts = headers.get_all(HOST).iter();
    let (first, more) = (hosts.next(), hosts.next());
    let same = first.is_none_or(|host| host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()));
    if same && more.is_none() { Ok(()) } else { Err(Refusal::bad("the URL and the Host header name different hosts")) }
}

fn origin_form(uri: &Uri) -> Uri {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    path.parse().unwrap_or_else(|_| Uri::from_static("/"))
}

/// Put secrets in the place of their placeholders; refuse where one is sent to another host than its own, or in a header
/// that is not for it: a host that may have the secret may still store, log or show to others what comes in another.
fn replace<'a>(
    proxy: &Proxy,
    session: &'a Session,
    headers: &mut HeaderMap,
    host: &str,
    port: u16,
) -> Result<Vec<(&'a Variable, Zeroizing<String>)>, Refusal> {
    let mut replaced = Vec::new();
    for variable in &session.policy.variables {
        for (name, value) in headers.iter_mut() {
            let Ok(text) = value.to_str() else { continue };
            if !text.contains(&variable.placeholder) {
                continue;
            }
            if !policy::names(&variable.host, host, port) {
                return Err(Refusal::denied(format!("{} is a credential of {} alone", variable.name, variable.host)));
            }
            if !variable.headers.iter().any(|header| is_for(header, name.as_str())) {
                return Err(Refusal::denied(format!("{} is not sent in the header {name}", variable.name)));
            }
            let secret = proxy.secret(&variable.credential)?;
            let text = Zeroizing::new(text.replace(&variable.placeholder, &secret));
            *value = HeaderValue::from_str(&text)
                .map_err(|_| Refusal::denied(format!("{} cannot be sent in a header", variable.name)))?;
            value.set_sensitive(true);
            replaced.push((variable, secret));
        }
    }
    Ok(replaced)
}

/// Whether an entry names this header, which is in lower case.
fn is_for(entry: &str, name: &str) -> bool {
    let entry = entry.to_ascii_lowercase();
    match entry.strip_prefix('*') {
        Some(end) => name.ends_with(end),
        None => name == entry,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::egress::credential_headers;

    #[test]
    fn credentials_go_in_headers_that_are_made_for_them() {
        let fits = |name: &str| credential_headers().iter().any(|entry| is_for(entry, name));
        for name in
            ["authorization", "x-api-key", "private-token", "x-vault-token", "dd-api-key", "x-authorization", "apikey"]
        {
            assert!(fits(name), "{name}");
        }
        for name in [
            "cookie",
            "user-agent",
            "idempotency-key",
            "referer",
            "x-forwarded-for",
            "x-tokens",
            "authorization-x",
            "key",
        ] {
            assert!(!fits(name), "{name}");
        }
        assert!(is_for("X-Own", "x-own") && !is_for("X-Own", "x-own2"));
    }
}
