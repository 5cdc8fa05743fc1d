//! The sessions that have a socket: their policies, kept on disk, and who may connect.
//!
//! A policy is written down before it counts. One that cannot be understood or kept leaves the session with nothing.

use crate::audit::Entry;
use crate::knock;
use crate::proxy::{self, Proxy, Session, git_route};
use domain::egress::{CLIENT, Client, Domains, McpServer, Policy, SOCKET, installer};
use serde::Serialize;
use std::collections::HashMap;
use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tokio::net::UnixListener;
use tokio::sync::watch;

/// Connections of one session at a time.
const CONNECTIONS: usize = 128;

#[derive(thiserror::Error, Debug)]
pub enum Error {
    #[error("use {0:?} as a session's id")]
    Id(String),
    #[error("find session {0}")]
    Unknown(String),
    #[error("understand the policy: {0}")]
    Policy(String),
    #[error("read or write {0}")]
    Io(PathBuf, #[source] io::Error),
}

/// What a sandbox of that policy has to know.
fn client_of(policy: &Policy) -> Client {
    let variables = policy.variables.iter().map(|variable| (variable.name.clone(), variable.placeholder.clone()));
    let repositories = policy.repositories.iter().enumerate();
    let url = |url: &str| url.trim_end_matches('/').trim_end_matches(".git").to_owned();
    Client {
        variables: variables.collect(),
        repositories: repositories.map(|(n, repo)| (url(&repo.url), git_route(n))).collect(),
        packages: policy.packages.clone(),
        registries: policy.registries.clone(),
    }
}

/// What may be reached while the session's packages are installed; none where it has none.
fn installing(policy: &Policy) -> Option<Policy> {
    let Policy { networking, registries, packages, .. } = policy.clone();
    (!packages.is_empty()).then(|| Policy { networking, registries, ..Policy::default() })
}

/// Where things lie, and who may come.
pub struct Places {
    /// Policies, for this process alone.
    pub policies: PathBuf,
    /// One folder a session, bound into its sandbox.
    pub sockets: PathBuf,
    /// Host uids that sandboxes run as, beside this process's own.
    pub uids: std::ops::RangeInclusive<u32>,
}

pub struct Sessions {
    proxy: Arc<Proxy>,
    places: Places,
    open: Mutex<HashMap<String, Open>>,
}

struct Open {
    session: watch::Sender<Arc<Session>>,
    listening: tokio::task::JoinHandle<()>,
}

impl Sessions {
    /// Take up all sessions that have a policy. Needs a tokio runtime.
    pub fn open(proxy: Arc<Proxy>, places: Places) -> Result<Self, Error> {
        make_dir(&places.policies, 0o700)?;
        make_dir(&places.sockets, 0o711)?;
        let sessions = Self { proxy, places, open: Mutex::default() };
        let folder = &sessions.places.policies;
        for entry in folder.read_dir().map_err(|e| Error::Io(folder.clone(), e))?.flatten() {
            let path = entry.path();
            let Some(id) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".json")) else { continue };
            let policy = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Policy>(&bytes).ok());
            if policy.is_none() {
                tracing::error!(session_id = id, "policy not understood: the session reaches nothing");
            }
            sessions.enforce(id, policy.unwrap_or_default())?;
        }
        Ok(sessions)
    }

    /// From now on this policy; whatever runs under the one before is cut.
    pub fn set(&self, id: &str, policy: Policy) -> Result<(), Error> {
        check_id(id)?;
        let kept = check(&policy).and_then(|()| write(&self.policy_path(id), &policy));
        match kept {
            Ok(()) => self.enforce(id, policy)?,
            Err(error) => {
                self.enforce(id, Policy::default())?;
                // Whatever was there must not come back with the next start.
                std::fs::remove_file(self.policy_path(id)).ok();
                return Err(error);
            }
        }
        self.proxy.audit.note(Entry::PolicySet { session_id: id.to_owned() });
        Ok(())
    }

    /// The session's agent has other MCP servers, or other pages. Connections of its sandboxes are cut all the same.
    pub fn set_agent(
        &self,
        id: &str,
        mcp_servers: Vec<McpServer>,
        mcp_hosts: Vec<String>,
        web: Option<Domains>,
    ) -> Result<(), Error> {
        check_id(id)?;
        let known = self.session(id).ok_or_else(|| Error::Unknown(id.to_owned()))?;
        let Policy { mcp_servers: servers, mcp_hosts: hosts, web: pages, .. } = &known.policy;
        if (servers, hosts, pages) == (&mcp_servers, &mcp_hosts, &web) {
            // Nothing is cut that may go on.
            return Ok(());
        }
        self.set(id, Policy { mcp_servers, mcp_hosts, web, ..known.policy.clone() })
    }

    /// The session as it is now.
    pub fn session(&self, id: &str) -> Option<Arc<Session>> {
        let open = self.open.lock().expect("no holder panics");
        open.get(id).map(|open| Arc::clone(&open.session.borrow()))
    }

    /// The session has ended: nothing is left of it.
    pub fn drop_session(&self, id: &str) -> Result<(), Error> {
        check_id(id)?;
        let path = self.policy_path(id);
        gone(&path, std::fs::remove_file(&path))?;
        self.close(&installer(id))?;
        self.close(id)?;
        self.proxy.audit.note(Entry::SessionDropped { session_id: id.to_owned() });
        Ok(())
    }

    /// The folder that is bound into the session's sandboxes.
    pub fn folder(&self, id: &str) -> PathBuf {
        self.places.sockets.join(id)
    }

    fn policy_path(&self, id: &str) -> PathBuf {
        self.places.policies.join(format!("{id}.json"))
    }

    fn enforce(&self, id: &str, policy: Policy) -> Result<(), Error> {
        match installing(&policy) {
            Some(policy) => self.lead_out(&installer(id), policy)?,
            None => self.close(&installer(id))?,
        }
        self.lead_out(id, policy)
    }

    fn lead_out(&self, id: &str, policy: Policy) -> Result<(), Error> {
        let client = client_of(&policy);
        let session = Arc::new(Session::new(id, policy));
        let mut open = self.open.lock().expect("no holder panics");
        if let Some(known) = open.get(id) {
            known.session.send_replace(session).end(&self.proxy.audit);
        } else {
            let listener = self.listen(id)?;
            let (sender, receiver) = watch::channel(session);
            let uids = self.places.uids.clone();
            let proxy = Arc::clone(&self.proxy);
            let listening = tokio::spawn(knock::accept(
                listener,
                CONNECTIONS,
                move |uid| uids.contains(&uid),
                move |stream| Some(proxy::serve(Arc::clone(&proxy), Arc::clone(&receiver.borrow()), stream)),
            ));
            open.insert(id.to_owned(), Open { session: sender, listening });
        }
        drop(open);
        write_open(&self.folder(id).join(CLIENT), &client)
    }

    fn close(&self, id: &str) -> Result<(), Error> {
        if let Some(open) = self.open.lock().expect("no holder panics").remove(id) {
            open.session.borrow().end(&self.proxy.audit);
            open.listening.abort();
        }
        for name in [SOCKET, &coming(SOCKET), CLIENT] {
            let path = self.folder(id).join(name);
            gone(&path, std::fs::remove_file(&path))?;
        }
        gone(&self.folder(id), std::fs::remove_dir(self.folder(id)))
    }

    fn listen(&self, id: &str) -> Result<UnixListener, Error> {
        let folder = self.folder(id);
        make_dir(&folder, 0o711)?;
        listen(&folder, SOCKET)
    }
}

impl Drop for Sessions {
    fn drop(&mut self) {
        for open in self.open.lock().expect("no holder panics").values() {
            open.session.borrow().end(&self.proxy.audit);
            open.listening.abort();
        }
    }
}

/// Listen under a name in a folder, by way of the folder's descriptor: a socket's address holds 107 bytes, and folders lie
/// deeper. The socket takes the name once everyone may knock there, from the one that was left behind: there is always one,
/// and who knocks while nobody listens knows that somebody will. Who may come in is decided by the kernel's word on who it is.
pub fn listen(folder: &Path, name: &str) -> Result<UnixListener, Error> {
    let (path, coming) = (folder.join(name), coming(name));
    let at = folder.join(&coming);
    let io = |e| Error::Io(path.clone(), e);
    gone(&at, std::fs::remove_file(&at))?;
    let dir = File::open(folder).map_err(io)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}/{coming}", dir.as_raw_fd()));
    let listener = UnixListener::bind(short).map_err(io)?;
    std::fs::set_permissions(&at, Permissions::from_mode(0o666)).map_err(io)?;
    std::fs::rename(&at, &path).map_err(io)?;
    Ok(listener)
}

/// What a socket is called before it may be knocked at.
fn coming(name: &str) -> String {
    format!("{name}.new")
}

/// What a policy must be to be enforced as it was meant.
fn check(policy: &Policy) -> Result<(), Error> {
    let bad = |what: String| Err(Error::Policy(what));
    for repository in &policy.repositories {
        let uri: Result<http::Uri, _> = repository.url.parse();
        let fine = uri.is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("https" | "http"))
                && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
                && uri.query().is_none()
                // Else what follows it could belong to the host's name.
                && uri.path().len() > 1
        });
        if !fine || repository.url.bytes().any(|b| b.is_ascii_control() || matches!(b, b'"' | b'\\' | b'#')) {
            return bad("a repository's URL is https://HOST/PATH".to_owned());
        }
    }
    for url in policy.registries.values() {
        let uri: Result<http::Uri, _> = url.parse();
        let fine = uri.is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("https" | "http"))
                && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
        });
        if !fine || !url.bytes().all(|b| b.is_ascii_graphic()) {
            return bad("a registry's URL is https://HOST/PATH, without a user".to_owned());
        }
    }
    for variable in &policy.variables {
        let name = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !name(&variable.name) || !name(&variable.placeholder) || variable.placeholder.len() < 8 {
            return bad("a variable and its placeholder are of letters, digits and _".to_owned());
        }
        if variable.headers.iter().any(|header| http::HeaderName::try_from(header.as_str()).is_err()) {
            return bad("the headers of a variable are names of headers".to_owned());
        }
        let same = policy.variables.iter().filter(|other| {
            other.placeholder.contains(&variable.placeholder) || variable.placeholder.contains(&other.placeholder)
        });
        if same.count() > 1 {
            return bad("each variable has a placeholder of its own".to_owned());
        }
    }
    Ok(())
}

fn check_id(id: &str) -> Result<(), Error> {
    let fine = (1..=128).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if fine { Ok(()) } else { Err(Error::Id(id.chars().take(128).collect())) }
}

fn make_dir(path: &Path, mode: u32) -> Result<(), Error> {
    let io = |e| Error::Io(path.to_owned(), e);
    match DirBuilder::new().recursive(true).mode(mode).create(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(io(e)),
        // The umask must not close what sandboxes' users pass through.
        _ => std::fs::set_permissions(path, Permissions::from_mode(mode)).map_err(io),
    }
}

fn gone(path: &Path, removed: io::Result<()>) -> Result<(), Error> {
    match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::Io(path.to_owned(), e)),
        _ => Ok(()),
    }
}

fn write(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    replace(path, value, 0o600)
}

/// For the sandbox's own user to read.
fn write_open(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    replace(path, value, 0o644)
}

fn replace(path: &Path, value: &impl Serialize, mode: u32) -> Result<(), Error> {
    let io = |e| Error::Io(path.to_owned(), e);
    let part = path.with_extension("part");
    let text = serde_json::to_vec(value).expect("it has only string keys");
    let mut file = File::options().write(true).create(true).truncate(true).mode(mode).open(&part).map_err(io)?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(io)?;
    file.set_permissions(Permissions::from_mode(mode)).map_err(io)?;
    std::fs::rename(&part, path).map_err(io)
}
