//! What the service asks of egress: JSON lines on the one socket that it was started with.
//!
//! Whoever holds that socket may put and delete secrets and set policies; nobody can read a secret by it.

use crate::address::Listed;
use crate::audit::{self, Audit, Entry};
use crate::calls;
use crate::proxy::{Proxy, Refreshes};
use crate::resolve::{Guard, Resolver};
use crate::sessions::{self, Places, Sessions};
use crate::vault::key::MasterKey;
use crate::vault::{self, Vault};
use domain::egress::{Reply, Request};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// One request: a secret, or a policy with many hosts.
const REQUEST_BYTES: u64 = 1024 * 1024;

#[derive(thiserror::Error, Debug)]
pub enum Error {
    #[error("open the vault")]
    Vault(#[from] vault::Error),
    #[error("open the audit log")]
    Audit(#[from] audit::Error),
    #[error("take up the sessions")]
    Sessions(#[from] sessions::Error),
    #[error("prepare TLS")]
    Tls(#[from] rustls::Error),
    #[error("write the audit log")]
    Record(#[source] std::io::Error),
    #[error("hear the service")]
    Control(#[source] std::io::Error),
}

pub struct Options {
    /// Vault, policies and audit log. 0700.
    pub dir: PathBuf,
    /// Sockets of sessions; sandboxes' users pass through it.
    pub sockets: PathBuf,
    pub key: MasterKey,
    pub old_keys: Vec<MasterKey>,
    pub resolver: Box<dyn Resolver>,
    pub listed: Vec<Listed>,
    pub uids: std::ops::RangeInclusive<u32>,
    /// The user of the hand worker, which calls MCP servers for sessions, where it is another than this process's.
    pub caller: Option<u32>,
}

pub struct Egress {
    sessions: Arc<Sessions>,
    vault: Arc<Vault>,
    audit: Arc<Audit>,
}

impl Egress {
    pub fn open(options: Options) -> Result<Self, Error> {
        let Options { dir, sockets, key, old_keys, resolver, listed, uids, caller } = options;
        // Whoever names a key of before wants it out of use.
        let rotates = !old_keys.is_empty();
        let vault = Arc::new(Vault::open(&dir.join("vault"), key, old_keys)?);
        let audit = Arc::new(Audit::open(&dir.join("audit.jsonl"))?);
        if rotates {
            rotate(&vault, &audit)?;
        }
        let guard = Guard::new(resolver, listed);
        let refreshes = Refreshes::default();
        let proxy = Proxy { guard, vault: Arc::clone(&vault), audit: Arc::clone(&audit), tls: tls()?, refreshes };
        let proxy = Arc::new(proxy);
        let places = Places { policies: dir.join("policies"), sockets: sockets.clone(), uids };
        let sessions = Arc::new(Sessions::open(Arc::clone(&proxy), places)?);
        calls::serve(proxy, Arc::downgrade(&sessions), &sockets, caller)?;
        Ok(Self { sessions, vault, audit })
    }

    /// Answer until the service is gone.
    pub async fn serve(&self, stream: UnixStream) -> Result<(), Error> {
        let (read, mut write) = stream.into_split();
        let mut reader = BufReader::new(read);
        loop {
            let mut line = zeroize::Zeroizing::new(Vec::new());
            let got = (&mut reader).take(REQUEST_BYTES).read_until(b'\n', &mut line).await.map_err(Error::Control)?;
            if got == 0 {
                return Ok(());
            }
            let reply = match serde_json::from_slice::<Request>(&line) {
                Ok(request) => self.answer(request),
                // The error may quote what was sent.
                Err(_) => Reply::Refused { message: "the request is not understood".to_owned() },
            };
            let mut text = serde_json::to_vec(&reply).expect("a reply has only string keys");
            text.push(b'\n');
            write.write_all(&text).await.map_err(Error::Control)?;
        }
    }

    pub fn answer(&self, request: Request) -> Reply {
        match self.try_answer(request) {
            Ok(reply) => reply,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "request refused");
                let mut message = error.to_string();
                let mut cause = std::error::Error::source(&error);
                while let Some(error) = cause {
                    message.push_str(&format!(": {error}"));
                    cause = error.source();
                }
                Reply::Refused { message }
            }
        }
    }

    fn try_answer(&self, request: Request) -> Result<Reply, Error> {
        match request {
            Request::SetPolicy { session_id, policy } => self.sessions.set(&session_id, policy)?,
            Request::SetMcpServers { session_id, mcp_servers, mcp_hosts, web } => {
                self.sessions.set_agent(&session_id, mcp_servers, mcp_hosts, web)?;
            }
            Request::DropSession { session_id } => {
                self.sessions.drop_session(&session_id)?;
                if self.vault.remove(&session_id)? {
                    self.audit.record(Entry::VaultRemoved { vault: session_id }).map_err(Error::Record)?;
                }
            }
            Request::PutCredential { id, secret } => {
                let secret = zeroize::Zeroizing::new(secret.0);
                let version = self.vault.put(&id, &secret)?;
                let entry = Entry::CredentialPut { vault: id.vault, credential: id.credential, version };
                self.audit.record(entry).map_err(Error::Record)?;
            }
            Request::DeleteCredential { id } => {
                self.vault.delete(&id)?;
                let entry = Entry::CredentialDeleted { vault: id.vault, credential: id.credential };
                self.audit.record(entry).map_err(Error::Record)?;
            }
            Request::CopyCredential { from, to } => {
                let version = self.vault.copy(&from, &to)?;
                let entry = Entry::CredentialPut { vault: to.vault, credential: to.credential, version };
                self.audit.record(entry).map_err(Error::Record)?;
            }
            Request::ValidateCredential { id } => return Ok(Reply::Valid { valid: self.vault.holds(&id) }),
            Request::RotateKey => rotate(&self.vault, &self.audit)?,
        }
        Ok(Reply::Done)
    }

    /// The folder that is bound into the session's sandboxes.
    pub fn folder(&self, session_id: &str) -> PathBuf {
        self.sessions.folder(session_id)
    }
}

fn rotate(vault: &Vault, audit: &Audit) -> Result<(), Error> {
    let vaults = vault.rotate()?;
    audit.record(Entry::KeyRotated { vaults }).map_err(Error::Record)
}

fn tls() -> Result<Arc<rustls::ClientConfig>, rustls::Error> {
    let mut roots = rustls::RootCertStore::empty();
    // What this machine trusts; a certificate of its that cannot be read trusts nobody.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}
