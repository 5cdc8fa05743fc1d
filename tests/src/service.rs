//! `steadyhand` as processes of its own: started, killed at any moment, started again on the same data.

use crate::{
    client::Client,
    process::{Process, State},
};
use anyhow::{Context as _, bail};
use domain::fault::Fault;
use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{ChildStdout, Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use tokio::sync::watch;

/// How long a service may take until it listens.
const START_MAX: Duration = Duration::from_secs(60);
const FAULT: &str = "STEADYHAND_FAULT";
const HOST: &str = "here";
/// Whoever runs these tests may be a plain user.
pub const HANDS_MODE: &str = "dev";

/// Which processes a service is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `serve`, and the hand worker that it starts and supervises.
    One,
    /// `serve` without hands, and a hand worker started by hand.
    Hand,
    /// `serve --role api`, a brain worker and a hand worker.
    Split,
}

/// Processes of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Serve,
    Brain,
    Hand,
}

#[derive(Clone, Debug)]
pub struct Options {
    pub layout: Layout,
    /// Address and namespace of a Temporal server; without one, the embedded engine.
    pub temporal: Option<(SocketAddr, String)>,
    pub model_url: String,
    /// Whether sandboxes may lack layers (`dev`), or are not made then (`strict`).
    pub hands_mode: &'static str,
    /// After how many decisions a run continues as a new one; 0: as the service has it.
    pub decisions_per_run: u64,
    /// Addresses that sandboxes may reach although they are not public.
    pub private_addresses: Vec<SocketAddr>,
    /// Where package managers find what they install: `MANAGER=URL`.
    pub registries: Vec<String>,
    /// Seconds at rest after which a hand is parked; none: as the service has it.
    pub park_after_s: Option<u64>,
    /// The user that everything runs as; none: whoever runs the test.
    pub uid: Option<u32>,
    /// In the environment of its processes.
    pub environment: Vec<(&'static str, String)>,
    /// Where a process stops itself at its first start.
    pub fault: Option<(Role, Fault)>,
}

impl Options {
    /// Everything in one process on the embedded engine, undisturbed.
    pub fn new(model_url: String) -> Self {
        Options {
            layout: Layout::One,
            temporal: None,
            model_url,
            hands_mode: HANDS_MODE,
            decisions_per_run: 0,
            private_addresses: Vec::new(),
            registries: Vec::new(),
            park_after_s: None,
            uid: None,
            environment: Vec::new(),
            fault: None,
        }
    }
}

pub struct Service {
    options: Options,
    /// Base URL of the trace collector.
    collector: Option<String>,
    /// Where the programs are that it runs, if not this build's where they lie: those of another build until it is upgraded, or
    /// this build's where another user can reach them.
    programs: Option<PathBuf>,
    dir: TempDir,
    key: String,
    base: watch::Sender<String>,
    serve: Option<Process>,
    brain: Option<Process>,
    hand: Option<Process>,
}

impl Service {
    /// On an empty data folder. Returns when it listens.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        Service::start_traced(options, None).await
    }

    /// With traces sent to a collector.
    pub async fn start_traced(options: Options, collector: Option<String>) -> anyhow::Result<Self> {
        Service::begin(options, collector, None).await
    }

    /// With the programs of another build, if a folder with such is named.
    pub async fn start_old(options: Options, old: Option<PathBuf>) -> anyhow::Result<Self> {
        Service::begin(options, None, old).await
    }

    async fn begin(options: Options, collector: Option<String>, old: Option<PathBuf>) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("steadyhand-").tempdir()?;
        std::fs::create_dir(dir.path().join("hands"))?;
        // Everyone inside a sandbox passes through these.
        for passage in [dir.path().to_owned(), dir.path().join("hands")] {
            std::fs::set_permissions(&passage, std::fs::Permissions::from_mode(0o755))?;
            if options.uid.is_some() {
                chown(&passage, options.uid, options.uid)?;
            }
        }
        let mut programs = old;
        if options.uid.is_some() && programs.is_none() {
            programs = Some(lend_programs(dir.path())?);
        }
        let base = watch::Sender::new(String::new());
        let mut service = Service {
            options,
            collector,
            programs,
            dir,
            key: String::new(),
            base,
            serve: None,
            brain: None,
            hand: None,
        };
        service.start_missing().await?;
        service.options.fault = None;
        Ok(service)
    }

    /// Puts this build in the place of the one that runs, one process after the other, on the same data: the workers first, so that
    /// for a while a new worker works for an old service.
    pub async fn upgrade(&mut self) -> anyhow::Result<()> {
        self.programs = None;
        if let Some(process) = self.brain.take() {
            process.terminate().await?;
            self.start_missing().await?;
        }
        if let Some(process) = self.hand.take() {
            process.terminate().await?;
            self.start_missing().await?;
        }
        if let Some(process) = self.serve.take() {
            process.terminate().await?;
        }
        self.start_with_workers().await
    }

    /// `kill -9` of the service, and everything started again.
    pub async fn lose(&mut self) -> anyhow::Result<()> {
        self.process(Role::Serve)?.kill().await?;
        self.start_with_workers().await
    }

    /// Workers end with their service: they are started again behind it.
    async fn start_with_workers(&mut self) -> anyhow::Result<()> {
        for process in [&self.brain, &self.hand].into_iter().flatten() {
            process.ended().await?;
        }
        self.start_missing().await
    }

    /// Starts whatever does not run. After the first start nothing stops itself any more.
    pub async fn start_missing(&mut self) -> anyhow::Result<()> {
        if is_missing(&self.serve) {
            self.start_serve().await?;
        }
        if self.options.layout == Layout::Split && is_missing(&self.brain) {
            let mut command = self.worker(Role::Brain, "brain");
            command.args(["--model-url", &self.options.model_url]);
            self.brain = Some(Process::start("brain worker", &mut command)?.0);
        }
        if self.options.layout != Layout::One && is_missing(&self.hand) {
            let mut command = self.worker(Role::Hand, "hand");
            command
                .args(["--hands-mode", self.options.hands_mode, "--host", HOST])
                .arg("--hands-dir")
                .arg(self.hands_dir());
            self.hand = Some(Process::start("hand worker", &mut command)?.0);
        }
        Ok(())
    }

    async fn start_serve(&mut self) -> anyhow::Result<()> {
        let mut command = self.command(Role::Serve);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(self.data_dir())
            .arg("--hands-dir")
            .arg(self.hands_dir())
            .args(["--hands-mode", self.options.hands_mode])
            .args(["--decisions-per-run", &self.options.decisions_per_run.to_string()]);
        match self.options.layout {
            Layout::One => command.args(["--model-url", &self.options.model_url]),
            Layout::Hand => command.args(["--hands", "false", "--model-url", &self.options.model_url]),
            Layout::Split => command.args(["--role", "api"]),
        };
        self.traced(&mut command);
        if let Some(seconds) = self.options.park_after_s {
            command.args(["--park-after", &seconds.to_string()]);
        }
        for address in &self.options.private_addresses {
            command.args(["--private-addresses", &address.to_string()]);
        }
        if !self.options.registries.is_empty() {
            command.args(["--package-registries", &self.options.registries.join(",")]);
        }
        if let Some((addr, namespace)) = &self.options.temporal {
            command.args(["--temporal", &addr.to_string(), "--namespace", namespace]);
        }
        let (process, stdout) = Process::start("serve", command.stdout(Stdio::piped()))?;
        self.serve = Some(process);
        let listening = tokio::task::spawn_blocking(move || first_line(stdout));
        let line = tokio::time::timeout(START_MAX, listening).await.context("serve does not listen")???;
        let Some(base) = line.strip_prefix("listening on ") else { bail!("serve said {line:?}") };
        if self.key.is_empty() {
            self.key = std::fs::read_to_string(self.data_dir().join("admin.key"))?.trim().to_owned();
        }
        self.base.send_replace(base.to_owned());
        Ok(())
    }

    fn worker(&self, role: Role, name: &str) -> Command {
        let mut command = self.command(role);
        command.args(["worker", name, "--node"]).arg(self.data_dir().join("node.sock"));
        command.arg("--token-file").arg(self.data_dir().join(format!("roles/{name}.token")));
        if let Some((_, namespace)) = &self.options.temporal {
            command.args(["--namespace", namespace]);
        }
        self.traced(&mut command);
        command
    }

    fn traced(&self, command: &mut Command) {
        if let Some(collector) = &self.collector {
            command.args(["--otlp-endpoint", collector]);
        }
    }

    /// The program with nothing in its environment but what a test means.
    fn command(&self, role: Role) -> Command {
        let program = self.programs.as_ref().map_or_else(|| program("steadyhand"), |folder| folder.join("steadyhand"));
        let mut command = Command::new(program);
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null());
        for name in ["PATH", "HOME", "STEADYHAND_LOG"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.envs(self.options.environment.iter().map(|(name, value)| (name, value)));
        if let Some(uid) = self.options.uid {
            command.uid(uid).gid(uid).current_dir(self.dir.path());
        }
        match self.options.fault {
            Some((at, fault)) if at == role => command.env(FAULT, fault.to_string()),
            _ => &mut command,
        };
        let log = File::options().create(true).append(true).open(self.dir.path().join(format!("{role:?}.log")));
        if let Ok(log) = log {
            command.stderr(log);
        }
        command
    }

    /// Where it listens: host and port.
    pub fn authority(&self) -> String {
        self.base.borrow().trim_start_matches("http://").to_owned()
    }

    pub fn client(&self) -> Client {
        Client::new(self.base.subscribe(), &self.key)
    }

    pub fn process(&self, role: Role) -> anyhow::Result<&Process> {
        let process = match role {
            Role::Serve => &self.serve,
            Role::Brain => &self.brain,
            Role::Hand => &self.hand,
        };
        process.as_ref().with_context(|| format!("there is no {role:?} in layout {:?}", self.options.layout))
    }

    /// `kill -9` of all its processes at once.
    pub async fn kill_all(&self) -> anyhow::Result<()> {
        let processes: Vec<&Process> = [&self.serve, &self.brain, &self.hand].into_iter().flatten().collect();
        futures::future::try_join_all(processes.iter().map(|process| process.kill())).await.map(drop)
    }

    /// Lets every process that is stopped go on.
    pub fn go_on(&self) {
        for process in [&self.serve, &self.brain, &self.hand].into_iter().flatten() {
            if process.state() == State::Stopped {
                process.go_on();
            }
        }
    }

    /// Ends its processes as an operator would. What is on disk stays, and so do its hands.
    pub async fn rest(&mut self) -> anyhow::Result<()> {
        for process in [self.brain.take(), self.hand.take(), self.serve.take()].into_iter().flatten() {
            process.terminate().await?;
        }
        Ok(())
    }

    /// Whether `steadyhand verify` finds its data folder whole, while it rests.
    pub async fn verify(&self) -> anyhow::Result<()> {
        let mut command = Command::new(program("steadyhand"));
        command.args(["verify", "--data"]).arg(self.data_dir()).env_clear().stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output()).await??;
        if !output.status.success() {
            bail!("not whole: {}", String::from_utf8_lossy(&output.stdout));
        }
        Ok(())
    }

    /// The end of a scenario: if it failed, with what the processes logged. Else they end as an operator would end them, and what an
    /// embedded engine leaves is whole.
    pub async fn finish<T>(mut self, ended: anyhow::Result<T>) -> anyhow::Result<T> {
        let value = self.with_logs(ended)?;
        self.rest().await?;
        if self.options.temporal.is_none() {
            self.verify().await?;
        }
        Ok(value)
    }

    /// Ends it as an operator would, and its hands with it. Gives the folder with its data.
    pub async fn stop(mut self) -> anyhow::Result<TempDir> {
        self.rest().await?;
        release_hands(&self.hands_dir());
        let empty = tempfile::tempdir()?;
        Ok(std::mem::replace(&mut self.dir, empty))
    }

    pub fn layout(&self) -> Layout {
        self.options.layout
    }

    pub fn data_dir(&self) -> PathBuf {
        data_dir(self.dir.path())
    }

    pub fn hands_dir(&self) -> PathBuf {
        self.dir.path().join("hands")
    }

    /// Side effects of tools in all its hands: the lines of the file `counter` in their workspaces.
    pub fn effects(&self) -> usize {
        let hands = std::fs::read_dir(self.hands_dir()).into_iter().flatten().flatten();
        let counters = hands.map(|hand| std::fs::read_to_string(hand.path().join("workspace/counter")));
        counters.map(|text| text.map_or(0, |text| text.lines().count())).sum()
    }

    /// A result whose error tells what its processes logged.
    pub fn with_logs<T>(&self, result: anyhow::Result<T>) -> anyhow::Result<T> {
        result.map_err(|error| error.context(self.logs()))
    }

    /// The last lines that its processes logged: what to read when a test failed.
    pub fn logs(&self) -> String {
        let mut logs = String::new();
        for role in [Role::Serve, Role::Brain, Role::Hand] {
            let Ok(log) = std::fs::read_to_string(self.dir.path().join(format!("{role:?}.log"))) else { continue };
            let lines: Vec<&str> = log.lines().collect();
            logs.push_str(&format!("--- {role:?}\n{}\n", lines[lines.len().saturating_sub(30)..].join("\n")));
        }
        logs
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // The workers first, so that nobody makes a hand while they are released.
        drop((self.hand.take(), self.brain.take(), self.serve.take()));
        release_hands(&self.hands_dir());
    }
}

pub fn data_dir(root: &Path) -> PathBuf {
    root.join("data")
}

/// The programs in a folder of their own: the one they were built in may be closed to other users, as a home is.
fn lend_programs(root: &Path) -> anyhow::Result<PathBuf> {
    let folder = root.join("programs");
    std::fs::create_dir(&folder)?;
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755))?;
    for name in ["steadyhand", "steadyhand-hand"] {
        let (from, to) = (program(name), folder.join(name));
        // A link costs nothing, where both are on one file system.
        if std::fs::hard_link(&from, &to).is_err() {
            std::fs::copy(&from, &to).with_context(|| format!("copy {}", from.display()))?;
        }
    }
    Ok(folder)
}

fn is_missing(process: &Option<Process>) -> bool {
    process.as_ref().is_none_or(Process::has_ended)
}

fn first_line(stdout: Option<ChildStdout>) -> anyhow::Result<String> {
    let mut line = String::new();
    BufReader::new(stdout.context("its output is piped")?).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

/// Hands outlive every worker: whoever is done with them has to say so.
fn release_hands(hands_dir: &Path) {
    for hand in std::fs::read_dir(hands_dir).into_iter().flatten().flatten() {
        if let Ok(hand) = hand::local::attach(&hand.path()) {
            // One that will not go ends with its lease.
            let _ = hand::local::release(&hand);
        }
    }
}

/// Whether sandboxes can have every layer here, a disk of their own among them.
pub fn is_strict_possible() -> anyhow::Result<bool> {
    let layers = hand::local::probe(&program("steadyhand-hand"))?;
    Ok(layers.iter().all(|layer| layer.on || layer.need == hand::protocol::Need::Advice))
}

/// A program of this workspace, built before whoever asks: it lies beside them or, for a test, in the folder above.
pub fn program(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a program knows its own path");
    let beside = own.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|program| program.is_file());
    beside.unwrap_or_else(|| panic!("{name} is not beside {}: build the workspace first", own.display()))
}
