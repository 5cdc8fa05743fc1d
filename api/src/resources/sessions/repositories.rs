//! `github_repository` resources: any git server that speaks smart HTTP. What a session says of one is kept in its log; the
//! token goes to egress and stays there.

use domain::egress::{CredentialId, Reply, Repository, Request, Secret};
use domain::session::{Checkout, Resource, ResourceKind};
use http::Uri;
use schemars::JsonSchema;
use serde::Deserialize;

use super::uploads;
use crate::app::App;
use crate::error::{ApiError, Result};

const URL_BYTES_MAX: usize = 2048;
const TOKEN_BYTES_MAX: usize = 8 * 1024;
const NAME_BYTES_MAX: usize = 255;
const PUSH_MAX: usize = 64;
/// Whoever gives a token means to have it used: without a list every branch may be pushed to.
const BRANCHES: &str = "refs/heads/*";

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RepositoryParam {
    url: String,
    #[serde(default)]
    authorization_token: Option<Secret>,
    #[serde(default)]
    mount_path: Option<String>,
    #[serde(default)]
    checkout: Option<Checkout>,
    /// Ours: refs that may be pushed to, `*` at the end for all below.
    #[serde(default)]
    push: Option<Vec<String>>,
}

/// A resource before it has an id: what it is, where it goes, and what is kept apart from it.
pub struct Described {
    pub kind: ResourceKind,
    pub mount_path: String,
    pub token: Option<Secret>,
}

pub fn describe(app: &App, param: RepositoryParam, at: &str) -> Result<Described> {
    let RepositoryParam { url, authorization_token: token, mount_path, checkout, push } = param;
    let egress = app.egress.as_deref().ok_or_else(|| {
        let message = "this service runs without egress, through which alone repositories are reached";
        ApiError::unavailable(message).should_retry(false)
    })?;
    let name = check_url(&url, |authority| egress.may_go_unencrypted(authority))
        .map_err(|problem| ApiError::field(format!("{at}.url"), problem))?;
    if let Some(token) = &token {
        check_token(token, format!("{at}.authorization_token"))?;
    }
    if checkout.as_ref().is_some_and(|checkout| !is_checkout(checkout)) {
        let problem = "must name a branch, or a commit by its 40 or 64 hexadecimal digits";
        return Err(ApiError::field(format!("{at}.checkout"), problem));
    }
    let push = match (push, &token) {
        (Some(push), None) if !push.is_empty() => {
            return Err(ApiError::field(format!("{at}.push"), "needs an authorization_token"));
        }
        (Some(push), _) if push.len() > PUSH_MAX || !push.iter().all(|entry| is_pushable(entry)) => {
            let problem = format!("must be at most {PUSH_MAX} names of refs, as refs/heads/main or refs/heads/agent/*");
            return Err(ApiError::field(format!("{at}.push"), problem));
        }
        (Some(push), _) => push,
        (None, Some(_)) => vec![BRANCHES.to_owned()],
        (None, None) => Vec::new(),
    };
    let mount_path = match mount_path {
        Some(path) => uploads::workspace_path(&path, at)?,
        None => uploads::workspace_path(&format!("{}/{name}", uploads::WORKSPACE), at)?,
    };
    let kind = ResourceKind::GithubRepository { url, checkout, authorized: token.is_some(), push };
    Ok(Described { kind, mount_path, token })
}

/// What egress has to let a session of these resources reach.
pub fn reached(session_id: &str, resources: &[Resource]) -> Vec<Repository> {
    let repository = |resource: &Resource| match &resource.kind {
        ResourceKind::GithubRepository { url, authorized, push, .. } => Some(Repository {
            url: url.clone(),
            credential: authorized.then(|| credential(session_id, &resource.id)),
            push: push.clone(),
        }),
        ResourceKind::File { .. } | ResourceKind::GitBundle { .. } => None,
    };
    resources.iter().filter_map(repository).collect()
}

/// The session's own vault: it goes with the session.
fn credential(session_id: &str, resource_id: &str) -> CredentialId {
    CredentialId { vault: session_id.to_owned(), credential: resource_id.to_owned() }
}

/// Gives a token to egress, in place of the one before, if there was one.
pub async fn keep_token(app: &App, session_id: &str, resource_id: &str, token: Secret) -> Result<()> {
    match ask(app, Request::PutCredential { id: credential(session_id, resource_id), secret: token }).await? {
        Reply::Done => Ok(()),
        reply => {
            tracing::error!(session_id, resource_id, ?reply, "token not kept");
            Err(ApiError::unavailable("the token could not be kept"))
        }
    }
}

/// A token that somebody wants used, given in the field `at`.
pub fn check_token(token: &Secret, at: impl std::fmt::Display) -> Result<()> {
    match (1..=TOKEN_BYTES_MAX).contains(&token.0.len()) && token.0.bytes().all(|b| b.is_ascii_graphic()) {
        true => Ok(()),
        false => Err(ApiError::field(at, "must be 1 to 8,192 visible ASCII characters")),
    }
}

/// The resource was taken away: its repository is reached with its token no more.
pub async fn drop_token(app: &App, session_id: &str, resource_id: &str) -> Result<()> {
    match ask(app, Request::DeleteCredential { id: credential(session_id, resource_id) }).await? {
        Reply::Done => Ok(()),
        reply => {
            tracing::error!(session_id, resource_id, ?reply, "token not dropped");
            Err(ApiError::unavailable("the token could not be removed: try again"))
        }
    }
}

/// A fork goes on with its parent's tokens, as far as the parent still has them; without one the fork's log will say what
/// its server thinks of that.
pub async fn copy_tokens(app: &App, parent: (&str, &[Resource]), fork: (&str, &[Resource])) -> Result<()> {
    for (from, to) in parent.1.iter().zip(fork.1) {
        if !matches!(to.kind, ResourceKind::GithubRepository { authorized: true, .. }) {
            continue;
        }
        let (from, to) = (credential(parent.0, &from.id), credential(fork.0, &to.id));
        if ask(app, Request::CopyCredential { from, to }).await? != Reply::Done {
            tracing::warn!(session_id = fork.0, "a token of the parent is not there any more");
        }
    }
    Ok(())
}

async fn ask(app: &App, request: Request) -> Result<Reply> {
    let Some(egress) = app.egress.as_deref() else {
        return Err(ApiError::unavailable("this service runs without egress, which alone keeps tokens"));
    };
    egress.ask(request).await.map_err(|error| {
        tracing::warn!(error = &error as &dyn std::error::Error, "egress not reached");
        ApiError::unavailable("tokens cannot be kept or removed right now: try again")
    })
}

/// The last name of the path, which its clone is called by.
fn check_url(url: &str, may_go_unencrypted: impl Fn(&str) -> bool) -> std::result::Result<String, &'static str> {
    const SHAPE: &str = "must be https://HOST/PATH, without user, query and fragment";
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\' | b'#' | b'?' | b';' | b'<' | b'>' | b'%');
    if url.len() > URL_BYTES_MAX || !url.bytes().all(plain) {
        return Err(SHAPE);
    }
    let uri: Uri = url.parse().map_err(|_| SHAPE)?;
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or(SHAPE)?;
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") if may_go_unencrypted(authority.as_str()) => {}
        Some("http") => return Err("must be https: only addresses that the operator lists are reached without"),
        _ => return Err(SHAPE),
    }
    let path = uri.path().trim_end_matches('/');
    if path.split('/').skip(1).any(|part| matches!(part, "" | "." | "..")) {
        return Err(SHAPE);
    }
    let name = path.rsplit('/').next().unwrap_or_default();
    let name = name.strip_suffix(".git").unwrap_or(name);
    if name.is_empty() { Err(SHAPE) } else { Ok(name.to_owned()) }
}

fn is_checkout(checkout: &Checkout) -> bool {
    match checkout {
        Checkout::Branch { name } => is_ref(name),
        Checkout::Commit { sha } => matches!(sha.len(), 40 | 64) && sha.bytes().all(|b| b.is_ascii_hexdigit()),
    }
}

fn is_pushable(entry: &str) -> bool {
    let name = entry.strip_suffix("/*").unwrap_or(entry);
    entry.starts_with("refs/") && is_ref(name)
}

/// A name that git takes for a branch or a ref, and for nothing else.
fn is_ref(name: &str) -> bool {
    let fine = |b: u8| b.is_ascii_graphic() && !b"~^:?*[\\".contains(&b);
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(fine)
        && !name.starts_with('-')
        && !name.contains("..")
        && !name.contains("@{")
        && !name.ends_with(".lock")
        && name.split('/').all(|part| !part.is_empty() && !part.starts_with('.') && !part.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_named_by_plain_urls() {
        let listed = |authority: &str| authority == "127.0.0.1:3000";
        for (url, name) in [
            ("https://github.com/acme/app", Some("app")),
            ("https://github.com/acme/app.git", Some("app")),
            ("https://git.example.com:8443/deep/er/app/", Some("app")),
            ("http://127.0.0.1:3000/acme/app", Some("app")),
            ("http://github.com/acme/app", None),
            ("ssh://git@github.com/acme/app", None),
            ("git@github.com:acme/app", None),
            ("https://token@github.com/acme/app", None),
            ("https://github.com", None),
            ("https://github.com/", None),
            ("https://github.com/acme/../app", None),
            ("https://github.com/acme//app", None),
            ("https://github.com/acme/%2e%2e/app", None),
            ("https://github.com/acme/app?x=1", None),
            ("https://github.com/acme/app#main", None),
            ("https://github.com/acme/a b", None),
            ("https://github.com/acme/.git", None),
            ("--upload-pack=x", None),
        ] {
            assert_eq!(check_url(url, listed).ok().as_deref(), name, "{url}");
        }
    }

    #[test]
    fn refs_are_names_and_no_expressions() {
        for (name, sound) in [
            ("main", true),
            ("feature/x.y", true),
            ("-f", false),
            ("a..b", false),
            ("main~1", false),
            ("a:b", false),
            ("a b", false),
            ("/a", false),
            ("a/", false),
            (".a", false),
            ("a.lock", false),
            ("@{u}", false),
            ("", false),
        ] {
            assert_eq!(is_checkout(&Checkout::Branch { name: name.to_owned() }), sound, "{name}");
        }
        for (entry, sound) in
            [("refs/heads/*", true), ("refs/heads/main", true), ("refs/*", true), ("main", false), ("*", false)]
        {
            assert_eq!(is_pushable(entry), sound, "{entry}");
        }
        assert!(is_checkout(&Checkout::Commit { sha: "a".repeat(40) }));
        assert!(!is_checkout(&Checkout::Commit { sha: "abc".into() }));
    }
}
