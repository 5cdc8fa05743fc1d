//! What the parts of a credential must be. A message names the field and never quotes it.

use std::collections::BTreeSet;

use domain::egress::Secret;
use jiff::Timestamp;

use super::Networking;
use crate::error::{ApiError, Result};
use crate::resources::agents::tools::is_host;
use crate::resources::vaults::secrets::{Part, Secrets};

const URL_CHARS_MAX: usize = 2048;
const TEXT_CHARS_MAX: usize = 2048;
const SECRET_CHARS_MAX: usize = 16_384;
const HOSTS_MAX: usize = 16;
const NAME_CHARS_MAX: usize = 128;

pub(super) fn keep(secrets: &mut Secrets, part: Part, secret: Secret, field: &str) -> Result<()> {
    let chars = secret.0.chars().count();
    if !(1..=SECRET_CHARS_MAX).contains(&chars) {
        return Err(ApiError::field(field, format!("must be 1 to {SECRET_CHARS_MAX} characters")));
    }
    // It becomes part of a header.
    if secret.0.chars().any(char::is_control) {
        return Err(ApiError::field(field, "must have no control characters"));
    }
    secrets.push((part, secret));
    Ok(())
}

pub(super) fn check_url(url: String, field: &str) -> Result<String> {
    let is_url = url.chars().count() <= URL_CHARS_MAX
        && url.parse::<http::Uri>().is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty())
                && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
        });
    if is_url {
        return Ok(url);
    }
    let problem = format!("must be an http or https URL of at most {URL_CHARS_MAX} characters, without a user");
    Err(ApiError::field(field, problem))
}

pub(super) fn check_text(text: String, field: &str) -> Result<String> {
    match text.chars().count() {
        1..=TEXT_CHARS_MAX => Ok(text),
        _ => Err(ApiError::field(field, format!("must be 1 to {TEXT_CHARS_MAX} characters"))),
    }
}

/// The name of an environment variable.
pub(super) fn check_name(name: String) -> Result<String> {
    let mut chars = name.chars();
    let begins = chars.next().is_some_and(|char| char.is_ascii_alphabetic() || char == '_');
    if begins && name.len() <= NAME_CHARS_MAX && chars.all(|char| char.is_ascii_alphanumeric() || char == '_') {
        return Ok(name);
    }
    let problem = format!("must be the name of an environment variable of at most {NAME_CHARS_MAX} characters");
    Err(ApiError::field("auth.secret_name", problem))
}

pub(super) fn check_expiry(at: Timestamp, now: Timestamp) -> Result<Timestamp> {
    if at > now { Ok(at) } else { Err(ApiError::field("auth.expires_at", "must be in the future")) }
}

impl Networking {
    pub(super) fn check(self) -> Result<Self> {
        let at = "auth.networking.allowed_hosts";
        if let Networking::Limited { allowed_hosts } = &self {
            if !(1..=HOSTS_MAX).contains(&allowed_hosts.len()) {
                return Err(ApiError::field(at, format!("must be 1 to {HOSTS_MAX} hosts")));
            }
            let known: BTreeSet<_> = allowed_hosts.iter().collect();
            if known.len() < allowed_hosts.len() {
                return Err(ApiError::field(at, "names a host twice"));
            }
            if let Some(n) = allowed_hosts.iter().position(|host| !is_host(host.strip_prefix("*.").unwrap_or(host))) {
                let problem = "must be a host name like example.com or *.example.com";
                return Err(ApiError::field(format!("{at}[{n}]"), problem));
            }
        }
        Ok(self)
    }
}
