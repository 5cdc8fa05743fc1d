//! What a session brings into its hand: files that were uploaded, a repository as a git bundle, and repositories by URL.
//!
//! A file becomes the session's own copy under a new id; the bytes stay the same blob.

use std::collections::BTreeSet;

use domain::content::BlobRef;
use domain::egress::Secret;
use domain::session::{Resource, ResourceKind};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::IgnoredAny;
use store::{Batch, Digest};

use super::moment;
use super::repositories::{self, Described, RepositoryParam};
use crate::app::App;
use crate::error::{ApiError, Result};
use crate::ids;
use crate::references;
use crate::resources::files::{self, FileRow};

pub const RESOURCES_MAX: usize = 500;
const UPLOADS: &str = "/mnt/session/uploads";
pub const WORKSPACE: &str = "/workspace";
const PATH_BYTES_MAX: usize = 1024;

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ResourceParam {
    File(FileParam),
    /// Ours: an uploaded bundle, cloned inside the sandbox.
    GitBundle(FileParam),
    GithubRepository(RepositoryParam),
    #[schemars(skip)]
    MemoryStore(IgnoredAny),
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileParam {
    file_id: String,
    #[serde(default)]
    mount_path: Option<String>,
}

/// A resource, and what comes with it.
pub struct Upload {
    pub resource: Resource,
    lent: Option<Lent>,
    /// For egress alone.
    pub token: Option<Secret>,
}

/// The bytes of an uploaded file.
struct Lent {
    digest: Digest,
    /// The file that was named.
    from: String,
    copy: Option<FileRow>,
}

impl Upload {
    /// Adds the session's own file, if it is one; only while the one that it comes from still has its bytes.
    pub fn keep(&self, batch: Batch) -> Batch {
        let Some(Lent { digest, from, copy }) = &self.lent else { return batch };
        let batch = references::require(batch, *digest, from);
        match copy {
            Some(copy) => files::insert(batch, copy),
            None => batch,
        }
    }

    /// The blob that the session itself has to keep, where no file does.
    pub fn blob(&self) -> Option<Digest> {
        self.lent.as_ref().filter(|lent| lent.copy.is_none()).map(|lent| lent.digest)
    }
}

/// Checks new resources of a session beside those that it has. Writes nothing.
pub async fn resolve(
    app: &App,
    session_id: &str,
    params: Vec<ResourceParam>,
    existing: &[Resource],
    now: Timestamp,
) -> Result<Vec<Upload>> {
    let count = params.len() + existing.len();
    if count > RESOURCES_MAX {
        return Err(ApiError::field("resources", format!("{count} resources, at most {RESOURCES_MAX} are allowed")));
    }
    let mut paths: BTreeSet<String> = existing.iter().map(|resource| resource.mount_path.clone()).collect();
    let mut uploads = Vec::with_capacity(params.len());
    for (n, param) in params.into_iter().enumerate() {
        let at = format!("resources[{n}]");
        let upload = one(app, session_id, param, &at, now).await?;
        let url = |resource: &Resource| match &resource.kind {
            ResourceKind::GithubRepository { url, .. } => {
                Some(url.trim_end_matches('/').trim_end_matches(".git").to_owned())
            }
            _ => None,
        };
        let own = url(&upload.resource);
        if own.is_some() && uploads.iter().any(|other: &Upload| url(&other.resource) == own) {
            return Err(ApiError::field(format!("{at}.url"), "another resource is the same repository"));
        }
        let path = &upload.resource.mount_path;
        let is_clone = !matches!(upload.resource.kind, ResourceKind::File { .. });
        // A clone needs a folder that nothing else is in.
        if !paths.insert(path.clone()) || is_clone && paths.iter().any(|other| is_below(other, path)) {
            return Err(ApiError::field(format!("{at}.mount_path"), "another resource is mounted there"));
        }
        uploads.push(upload);
    }
    Ok(uploads)
}

/// Whether one of them lies in the other.
fn is_below(one: &str, other: &str) -> bool {
    let below = |path: &str, above: &str| path.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'));
    below(one, other) || below(other, one)
}

async fn one(app: &App, session_id: &str, param: ResourceParam, at: &str, now: Timestamp) -> Result<Upload> {
    let (file_id, mount_path, is_bundle) = match param {
        ResourceParam::File(FileParam { file_id, mount_path }) => {
            let path = mount_path.map_or_else(|| Ok(format!("{UPLOADS}/{file_id}")), |path| upload_path(&path, at))?;
            (file_id, path, false)
        }
        ResourceParam::GitBundle(FileParam { file_id, mount_path }) => {
            let path = mount_path.map_or_else(|| Ok(WORKSPACE.to_owned()), |path| workspace_path(&path, at))?;
            (file_id, path, true)
        }
        ResourceParam::GithubRepository(param) => {
            let Described { kind, mount_path, token } = repositories::describe(app, param, at)?;
            let resource = Resource { id: ids::new(ids::RESOURCE), kind, mount_path, created_at: moment(now) };
            return Ok(Upload { resource, lent: None, token });
        }
        ResourceParam::MemoryStore(_) => return Err(ApiError::not_built(format!("{at}: memory_store"))),
    };
    let file = files::load(app, &file_id).await?;
    let blob = BlobRef { blob: file.digest.to_string(), bytes: file.size_bytes };
    let copy = (!is_bundle).then(|| file.copy_for(session_id, now));
    let kind = match &copy {
        Some(copy) => ResourceKind::File { file_id: copy.id.clone(), blob },
        None => ResourceKind::GitBundle { blob },
    };
    let resource = Resource { id: ids::new(ids::RESOURCE), kind, mount_path, created_at: moment(now) };
    Ok(Upload { resource, lent: Some(Lent { digest: file.digest, from: file_id, copy }), token: None })
}

/// Any absolute path, rooted under the folder of uploads unless it lies there already.
fn upload_path(path: &str, at: &str) -> Result<String> {
    check_path(path, at)?;
    let inside = path.strip_prefix(UPLOADS).is_some_and(|rest| rest.starts_with('/'));
    Ok(if inside { path.to_owned() } else { format!("{UPLOADS}{path}") })
}

pub fn workspace_path(path: &str, at: &str) -> Result<String> {
    check_path(path, at)?;
    let inside = path.strip_prefix(WORKSPACE).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    match inside {
        true => Ok(path.to_owned()),
        false => Err(ApiError::field(format!("{at}.mount_path"), format!("must be {WORKSPACE} or a path under it"))),
    }
}

fn check_path(path: &str, at: &str) -> Result<()> {
    let wrong = |problem: &str| Err(ApiError::field(format!("{at}.mount_path"), problem));
    let Some(rest) = path.strip_prefix('/') else { return wrong("must be an absolute path") };
    if path.len() > PATH_BYTES_MAX {
        return wrong("is too long");
    }
    if path.chars().any(char::is_control) || rest.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return wrong("must have no empty parts, no . or .. and no control characters");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_stay_under_their_folder() {
        for (path, expected) in [
            ("/mnt/session/uploads/a.csv", Some("/mnt/session/uploads/a.csv")),
            ("/data/a.csv", Some("/mnt/session/uploads/data/a.csv")),
            ("/mnt/session/uploadsx", Some("/mnt/session/uploads/mnt/session/uploadsx")),
            ("/mnt/session/uploads", Some("/mnt/session/uploads/mnt/session/uploads")),
            ("a.csv", None),
            ("/", None),
            ("/a//b", None),
            ("/a/", None),
            ("/mnt/session/uploads/../outputs", None),
            ("/a\n", None),
        ] {
            assert_eq!(upload_path(path, "resources[0]").ok().as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn repositories_stay_in_the_workspace() {
        for (path, sound) in
            [("/workspace", true), ("/workspace/repo", true), ("/workspacex", false), ("/etc", false), ("repo", false)]
        {
            assert_eq!(workspace_path(path, "resources[0]").is_ok(), sound, "{path}");
        }
    }
}
