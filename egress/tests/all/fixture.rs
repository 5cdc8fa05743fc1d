//! One egress with one session, and a hand whose only way out it is.

use async_trait::async_trait;
use domain::egress::{CLIENT, Client, CredentialId, Networking, Policy, Reply, Request, Secret};
use egress::control::{Egress, Options};
use egress::resolve::{Place, Resolver, System};
use egress::vault::key::MasterKey;
use hand::local;
use hand::protocol::ToolResult;
use hand::spec::{HandRef, Mode, Resources, Spec};
use serde_json::json;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::runtime::Runtime;

pub const SESSION: &str = "sesn_1";
/// What no sandbox may ever show.
pub const CANARY: &str = "CANARY-7f3a9c51d2";

/// Names of the tests: everything below `.test` is this machine, as are the names that attacks use for it.
struct Names;

#[async_trait]
impl Resolver for Names {
    async fn resolve(&self, host: &str, port: u16, place: Place) -> io::Result<Vec<SocketAddr>> {
        if host.ends_with(".test") || host == "example.com" || host == "127.0.0.1.nip.io" {
            return Ok(vec![SocketAddr::from(([127, 0, 0, 1], port))]);
        }
        // Odd spellings of addresses are read as any program would.
        System.resolve(host, port, place).await
    }
}

pub struct World {
    pub runtime: Runtime,
    egress: Option<Egress>,
    dir: tempfile::TempDir,
    listed: Vec<String>,
}

impl World {
    /// `listed` are the servers of the test, which are on addresses that are not public.
    pub fn new(runtime: Runtime, listed: &[SocketAddr]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        let listed = listed.iter().map(ToString::to_string).collect();
        let mut world = Self { runtime, egress: None, dir, listed };
        world.start();
        world
    }

    pub fn start(&mut self) {
        let _runtime = self.runtime.enter();
        let options = Options {
            dir: self.path("egress"),
            sockets: self.path("sockets"),
            key: MasterKey::from_file(&self.path("key")).unwrap(),
            old_keys: vec![],
            resolver: Box::new(Names),
            listed: self.listed.iter().map(|listed| listed.parse().unwrap()).collect(),
            uids: hand::limits::UIDS,
            caller: None,
        };
        self.egress = Some(Egress::open(options).unwrap());
    }

    pub fn stop(&mut self) {
        self.egress = None;
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn egress(&self) -> &Egress {
        self.egress.as_ref().unwrap()
    }

    pub fn ask(&self, request: Request) -> Reply {
        let _runtime = self.runtime.enter();
        self.egress().answer(request)
    }

    pub fn policy(&self, policy: Policy) {
        let reply = self.ask(Request::SetPolicy { session_id: SESSION.into(), policy });
        assert_eq!(reply, Reply::Done);
    }

    pub fn put(&self, credential: &str, secret: &str) -> CredentialId {
        let id = CredentialId { vault: "vlt_1".into(), credential: credential.into() };
        assert_eq!(self.ask(Request::PutCredential { id: id.clone(), secret: Secret(secret.into()) }), Reply::Done);
        id
    }

    pub fn audit(&self) -> String {
        let path = self.path("egress/audit.jsonl");
        egress::audit::verify(&path).unwrap();
        std::fs::read_to_string(path).unwrap()
    }

    /// A hand of the session as its policy is now.
    pub fn hand(&self) -> Hand {
        Hand::at(self.hand_with(Resources::default()).unwrap())
    }

    pub fn hand_with(&self, resources: Resources) -> Result<HandRef, local::Error> {
        self.hand_of(SESSION, resources)
    }

    /// A hand whose way out is that session's.
    pub fn hand_of(&self, session: &str, resources: Resources) -> Result<HandRef, local::Error> {
        let dir = self.egress().folder(session);
        let client: Client = serde_json::from_slice(&std::fs::read(dir.join(CLIENT)).unwrap()).unwrap();
        let Client { variables, repositories, .. } = client;
        let mut spec = Spec { mode: Mode::Dev, ..Spec::new("h", self.path("hands"), hand_program()) };
        spec.egress = Some(hand::spec::Egress { dir, variables, repositories, ..Default::default() });
        spec.resources = resources;
        local::provision(&spec)
    }
}

/// Built beside these tests' own binary, for which it is a dependency of the workspace and not of this crate.
fn hand_program() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let program = own.ancestors().nth(2).unwrap().join("steadyhand-hand");
    assert!(program.is_file(), "build it first: cargo build -p steadyhand-hand");
    program
}

pub fn limited(hosts: &[String]) -> Policy {
    let networking =
        Networking::Limited { allowed_hosts: hosts.to_vec(), allow_mcp_servers: false, allow_package_managers: false };
    Policy { networking, ..Policy::default() }
}

pub struct Hand {
    pub at: HandRef,
    next: AtomicU64,
}

impl Hand {
    pub fn at(at: HandRef) -> Self {
        Self { at, next: AtomicU64::new(0) }
    }

    pub fn bash(&self, command: &str) -> ToolResult {
        let id = format!("c{}", self.next.fetch_add(1, Ordering::Relaxed));
        let mut client = hand::client::Client::connect(&self.at.socket).unwrap();
        let settled = client.execute(id, "bash", json!({"command": command}), None, self.at.epoch).unwrap();
        serde_json::from_str(&settled.result).unwrap()
    }

    pub fn client(&self) -> hand::client::Client {
        hand::client::Client::connect(&self.at.socket).unwrap()
    }

    pub fn sh(&self, command: &str) -> String {
        let result = self.bash(command);
        assert!(!result.is_error, "{command}: {}", result.text());
        result.text()
    }

    /// The status that `curl` gets for a URL, 000 for none.
    pub fn get(&self, url: &str) -> String {
        self.bash(&format!("curl -s -m 20 -o /dev/null -w '%{{http_code}}' '{url}'; true")).text()
    }

    pub fn file(&self, path: impl AsRef<Path>) -> PathBuf {
        self.at.dir.join(path)
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        local::release(&self.at).unwrap();
    }
}
