//! The hands of this machine as the service has them: listed and ended for the api, and taken away when the session that
//! they were made for is over or has let go of them, and nobody has ended them.

use crate::connect::Rpc;
use async_trait::async_trait;
use domain::limits;
use hand::{
    hands::{By, Hands},
    local::Found,
    spec::Owner,
};
use http::HeaderMap;
use prost::Message as _;
use std::{io, path::Path, time::Duration};
use temporalio_common::protos::temporal::api::{
    common::v1::WorkflowExecution,
    enums::v1::WorkflowExecutionStatus,
    workflowservice::v1::{DescribeWorkflowExecutionRequest, DescribeWorkflowExecutionResponse},
};
use tokio::{sync::watch, task::spawn_blocking};
use tonic::Code;
use tracing::{info, warn};

const WORKFLOW_SERVICE: &str = "temporal.api.workflowservice.v1.WorkflowService";
/// Between two looks for hands that nobody needs.
const REAP_EVERY: Duration = Duration::from_secs(5 * 60);
/// A session that has just ended still collects from its hands, and releases them itself.
const ORPHAN_IDLE_SECONDS: u64 = 2 * 60;
/// One that is being made is nobody's yet, and may take as long as a provision.
const UNHELD_IDLE_SECONDS: u64 = limits::PROVISION_TIMEOUT_MS / 1_000 + 5 * 60;

/// Says whether a session that is not over has a hand.
#[async_trait]
pub trait Holders: Send + Sync {
    async fn hold(&self, session_id: &str, hand_id: &str) -> io::Result<bool>;
}

#[async_trait]
impl Holders for api::App {
    async fn hold(&self, session_id: &str, hand_id: &str) -> io::Result<bool> {
        api::hands::is_held(self, session_id, hand_id).await
    }
}

/// After how many idle seconds a hand is taken away.
#[derive(Clone, Copy)]
struct Idle {
    /// Its session is over.
    over: u64,
    /// Its session goes on without it.
    unheld: u64,
}

#[derive(Clone)]
pub struct HandsHere {
    hands: Hands,
    /// Other services on this machine may have hands in the same folder.
    host: String,
}

impl HandsHere {
    pub fn new(dir: &Path, host: &str, by: By) -> Self {
        HandsHere { hands: Hands { dir: dir.to_owned(), by }, host: host.to_owned() }
    }

    /// Those of this service, with the session of each.
    async fn own(&self) -> io::Result<Vec<(Found, Owner)>> {
        let hands = self.hands.clone();
        let found = spawn_blocking(move || match hands.dir.try_exists() {
            Ok(true) => hands.list().map_err(io::Error::other),
            // Nobody has made one yet.
            _ => Ok(Vec::new()),
        });
        let found = found.await.map_err(io::Error::other)??;
        let own = found.into_iter().filter_map(|found| found.owner.clone().map(|owner| (found, owner)));
        Ok(own.filter(|(_, owner)| owner.host == self.host).collect())
    }

    async fn release(&self, id: &str, epoch: u64) -> io::Result<()> {
        let (hands, id) = (self.hands.clone(), id.to_owned());
        spawn_blocking(move || hands.release(&id, epoch)).await.map_err(io::Error::other)?.map_err(io::Error::other)
    }

    /// At once and then again and again, until `closing` turns true.
    pub async fn reap(self, engine: Rpc, namespace: String, holders: impl Holders, mut closing: watch::Receiver<bool>) {
        let idle = Idle { over: ORPHAN_IDLE_SECONDS, unheld: UNHELD_IDLE_SECONDS };
        loop {
            if let Err(error) = self.reap_once(&engine, &namespace, &holders, idle).await {
                warn!(error = &error as &dyn std::error::Error, "hands not looked through");
            }
            if let Err(error) = self.trim().await {
                warn!(error = &error as &dyn std::error::Error, "packages not looked through");
            }
            tokio::select! {
                () = tokio::time::sleep(REAP_EVERY) => {}
                _ = closing.wait_for(|closing| *closing) => return,
            }
        }
    }

    /// Packages that no hand has had for long, or that are too many.
    async fn trim(&self) -> io::Result<()> {
        let hands = self.hands.clone();
        let trimmed = spawn_blocking(move || hands.trim_shelves()).await.map_err(io::Error::other)?;
        for shelf in trimmed.map_err(io::Error::other)? {
            info!(shelf, "packages removed that no hand has");
        }
        Ok(())
    }

    async fn reap_once(&self, engine: &Rpc, namespace: &str, holders: &impl Holders, idle: Idle) -> io::Result<()> {
        for (found, owner) in self.own().await? {
            let (hand_id, session_id) = (&found.hand_id, &owner.session_id);
            let is_busy = found.status.as_ref().is_some_and(|status| !status.running.is_empty());
            if is_busy || found.idle_seconds < idle.over.min(idle.unheld) {
                continue;
            }
            let is_needless = match is_over(engine, namespace, &owner).await? {
                true => found.idle_seconds >= idle.over,
                false => found.idle_seconds >= idle.unheld && !holders.hold(session_id, hand_id).await?,
            };
            if !is_needless {
                continue;
            }
            match self.release(hand_id, epoch(&found)).await {
                Ok(()) => info!(hand_id, session_id, "hand that no session has taken away"),
                Err(error) => {
                    warn!(hand_id, session_id, error = &error as &dyn std::error::Error, "hand not taken away");
                }
            }
        }
        Ok(())
    }
}

/// Whether the session is over for certain: an engine that cannot be asked says nothing.
async fn is_over(engine: &Rpc, namespace: &str, owner: &Owner) -> io::Result<bool> {
    let request = DescribeWorkflowExecutionRequest {
        namespace: namespace.to_owned(),
        execution: Some(WorkflowExecution { workflow_id: owner.session_id.clone(), run_id: String::new() }),
    };
    let body = request.encode_to_vec().into();
    match engine.call(WORKFLOW_SERVICE, "DescribeWorkflowExecution", &HeaderMap::new(), body).await {
        Ok(reply) => {
            let described = DescribeWorkflowExecutionResponse::decode(&*reply).map_err(io::Error::other)?;
            let status = described.workflow_execution_info.map(|info| info.status());
            Ok(status.is_some_and(|status| status != WorkflowExecutionStatus::Running))
        }
        Err(status) if status.code() == Code::NotFound => Ok(true),
        Err(status) => Err(io::Error::other(status)),
    }
}

/// Under which it is ended; one that does not run asks for none.
fn epoch(found: &Found) -> u64 {
    found.status.as_ref().map_or(0, |status| status.epoch)
}

#[async_trait]
impl api::hands::Hands for HandsHere {
    async fn list(&self) -> io::Result<Vec<api::hands::Hand>> {
        let shown = |(found, owner): (Found, Owner)| {
            let off = |layer: &hand::protocol::Layer| (!layer.on).then(|| (layer.name.clone(), layer.why.clone()));
            api::hands::Hand {
                id: found.hand_id,
                session_id: owner.session_id,
                name: owner.name,
                is_running: found.status.is_some(),
                mode: found.mode.name().to_owned(),
                epoch: found.status.as_ref().map(|status| status.epoch),
                calls: found.status.as_ref().map(|status| status.running.clone()).unwrap_or_default(),
                idle_seconds: found.idle_seconds,
                lease_seconds: found.status.as_ref().map(|status| status.lease_left_ms / 1000),
                layers_off: found.layers.iter().filter_map(off).collect(),
            }
        };
        Ok(self.own().await?.into_iter().map(shown).collect())
    }

    async fn end(&self, id: &str) -> io::Result<()> {
        match self.own().await?.iter().find(|(found, _)| found.hand_id == id) {
            Some((found, _)) => self.release(id, epoch(found)).await,
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::{Engine, Options, Store};
    use hand::{
        launcher,
        spec::{Mode, Shelf, Spec, Walls},
    };
    use std::{
        fs::File,
        process::{Child, Command, Stdio},
        time::SystemTime,
    };
    use temporalio_common::protos::temporal::api::{
        common::v1::WorkflowType,
        taskqueue::v1::TaskQueue,
        workflowservice::v1::{StartWorkflowExecutionRequest, TerminateWorkflowExecutionRequest},
    };

    /// Built beside these tests' own binary.
    fn hand_program() -> std::path::PathBuf {
        let own = std::env::current_exe().unwrap();
        let program = own.ancestors().nth(2).unwrap().join("steadyhand-hand");
        assert!(program.is_file(), "build it first: cargo build -p steadyhand-hand");
        program
    }

    /// Sandboxes pass through it.
    fn folder() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
        dir
    }

    /// Makes hands for these tests' own user; ends with its input.
    struct Launcher(Child);

    impl Launcher {
        fn start(dir: &Path) -> (Self, By) {
            let socket = dir.join("launcher.sock");
            let options = launcher::Options {
                socket: socket.clone(),
                hands_dir: dir.join("hands"),
                client: rustix::process::getuid().as_raw(),
                mode: Mode::Dev,
                walls: Walls::Bubblewrap,
                ways_out: None,
            };
            let mut command = Command::new(hand_program());
            command.args(["launcher", &serde_json::to_string(&options).unwrap()]).env_clear().stdin(Stdio::piped());
            (Launcher(command.spawn().unwrap()), By::Launcher { socket })
        }
    }

    impl Drop for Launcher {
        fn drop(&mut self) {
            drop(self.0.stdin.take());
            self.0.wait().unwrap();
        }
    }

    #[tokio::test]
    async fn hands_of_sessions_that_are_over_are_taken_away_and_no_others() {
        let dir = folder();
        only_needless_hands_are_taken_away(
            dir.path(),
            By::Itself { program: hand_program(), mode: Mode::Dev, walls: Walls::Bubblewrap },
        )
        .await;
    }

    #[tokio::test]
    async fn a_launcher_takes_them_away_as_well() {
        let dir = folder();
        let (_launcher, by) = Launcher::start(dir.path());
        only_needless_hands_are_taken_away(dir.path(), by).await;
    }

    #[tokio::test]
    async fn reaping_removes_packages_that_no_hand_has_had_for_long() {
        let dir = folder();
        let (_launcher, by) = Launcher::start(dir.path());
        let here = HandsHere::new(&dir.path().join("hands"), "here", by);
        for name in ["old", "new"] {
            here.hands.provision(Spec { shelf: Some(Shelf::Fill(name.into())), ..here.hands.spec(name) }).unwrap();
            here.hands.keep_shelf(name, 1).unwrap();
        }
        let used = File::options().write(true).open(here.hands.dir.join(".shelves/old/used")).unwrap();
        used.set_modified(SystemTime::now() - Duration::from_secs(60) - hand::limits::SHELF_IDLE_MAX).unwrap();
        let engine = Rpc::Embedded(Engine::open(Options::new(Store::Memory)).unwrap());
        // It closes when it has looked once.
        let (_closing, closed) = watch::channel(true);
        here.clone().reap(engine, "default".to_owned(), Holds("none"), closed).await;
        assert_eq!(["old", "new"].map(|name| here.hands.has_shelf(name)), [false, true]);
    }

    async fn only_needless_hands_are_taken_away(dir: &Path, by: By) {
        let engine = Rpc::Embedded(Engine::open(Options::new(Store::Memory)).unwrap());
        start(&engine, "sesn_runs").await;
        let here = HandsHere::new(&dir.join("hands"), "here", by);
        assert!(here.own().await.unwrap().is_empty(), "nobody has made the folder yet");
        let made = |id: &str, host: &str, session_id: &str| {
            let owner = Owner::new(host, session_id);
            here.hands.provision(Spec { owner: Some(owner), ..here.hands.spec(id) }).unwrap()
        };
        let hands = [
            made("runs", "here", "sesn_runs"),
            made("over", "here", "sesn_over"),
            made("foreign", "there", "sesn_over"),
        ];
        let left = made("left", "here", "sesn_runs");
        let reap = async |over, unheld| {
            here.reap_once(&engine, "default", &Holds("runs"), Idle { over, unheld }).await.unwrap();
        };
        reap(60, 60).await;
        assert!(hands.iter().all(|hand| hand.dir.exists()), "it may have ended just now");
        reap(0, 60).await;
        assert_eq!(hands.each_ref().map(|hand| hand.dir.exists()), [true, false, true]);
        assert!(left.dir.exists(), "it may just be made");
        reap(60, 0).await;
        assert!(!left.dir.exists() && hands[0].dir.exists() && hands[2].dir.exists(), "its session has another one");

        let listed = api::hands::Hands::list(&here).await.unwrap();
        assert_eq!(
            listed.iter().map(|hand| (&*hand.id, &*hand.session_id)).collect::<Vec<_>>(),
            [("runs", "sesn_runs")]
        );
        assert!(listed[0].is_running && listed[0].mode == "dev" && listed[0].epoch == Some(1));
        api::hands::Hands::end(&here, "foreign").await.unwrap();
        assert!(hands[2].dir.exists(), "it is another service's");
        for hand in ["runs", "foreign"] {
            here.release(hand, 1).await.unwrap();
        }
    }

    /// Every session has the hand of this id.
    struct Holds(&'static str);

    #[async_trait]
    impl Holders for Holds {
        async fn hold(&self, _session_id: &str, hand_id: &str) -> io::Result<bool> {
            Ok(hand_id == self.0)
        }
    }

    async fn call(engine: &Rpc, name: &str, body: Vec<u8>) {
        engine.call(WORKFLOW_SERVICE, name, &HeaderMap::new(), body.into()).await.unwrap();
    }

    async fn start(engine: &Rpc, session_id: &str) {
        let start = StartWorkflowExecutionRequest {
            namespace: "default".to_owned(),
            workflow_id: session_id.to_owned(),
            workflow_type: Some(WorkflowType { name: "W".to_owned() }),
            task_queue: Some(TaskQueue { name: "brain".to_owned(), ..Default::default() }),
            request_id: "r".to_owned(),
            ..Default::default()
        };
        call(engine, "StartWorkflowExecution", start.encode_to_vec()).await;
    }

    #[tokio::test]
    async fn a_session_is_over_when_the_engine_says_so_and_not_before() {
        let rpc = Rpc::Embedded(Engine::open(Options::new(Store::Memory)).unwrap());
        let over = async |session_id: &str| {
            let owner = Owner::new("h", session_id);
            is_over(&rpc, "default", &owner).await.unwrap()
        };
        start(&rpc, "sesn_1").await;
        assert!(!over("sesn_1").await && over("sesn_2").await);
        let end = TerminateWorkflowExecutionRequest {
            namespace: "default".to_owned(),
            workflow_execution: Some(WorkflowExecution { workflow_id: "sesn_1".to_owned(), run_id: String::new() }),
            ..Default::default()
        };
        call(&rpc, "TerminateWorkflowExecution", end.encode_to_vec()).await;
        assert!(over("sesn_1").await);
    }
}
