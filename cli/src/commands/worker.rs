//! `steadyhand worker`: one role in a process of its own.

use crate::{
    env_vars,
    error::{Code, Hint as _, failed},
    harden::harden,
    remote::{self, Remote},
    telemetry::{self, Collector},
};
use activities::{
    BrainActivities,
    hands::{Local, McpServers},
    model::{self, ApiKey, Settings},
};
use clap::{Args, Subcommand};
use hand::{
    hands::{By, Hands},
    spec::{Mode, Walls},
};
use std::{path::PathBuf, sync::Arc};
use tokio::signal::unix::{SignalKind, signal};

/// Run one role in a process of its own, connected to a service on this machine
#[derive(Debug, Args)]
pub struct Worker {
    #[command(subcommand)]
    role: Role,
    #[command(flatten)]
    traces: TraceArgs,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Run sessions: decisions and model requests
    Brain {
        #[command(flatten)]
        node: Node,
        #[command(flatten)]
        model: ModelArgs,
    },
    /// Run tools in sandboxes
    Hand {
        #[command(flatten)]
        node: Node,
        /// Name of this machine in task queues
        #[arg(long)]
        host: String,
        /// Folder of the sandboxes
        #[arg(long, env = env_vars::HANDS_DIR)]
        hands_dir: PathBuf,
        /// The program that runs around and inside sandboxes [default: beside this one]
        #[arg(long)]
        hand_program: Option<PathBuf>,
        /// What to do where a layer of the sandbox is missing: strict makes no sandbox, dev goes on without the layers
        /// that need privileges
        #[arg(long, env = env_vars::HANDS_MODE, value_name = "MODE", default_value = "strict")]
        hands_mode: Mode,
        /// Socket of a keeper of containers (`worker containers`), which sandboxes then are [default: none]
        #[arg(long, value_name = "SOCKET")]
        keeper: Option<PathBuf>,
        /// The image of its containers, which packages are installed for
        #[arg(long, value_name = "IMAGE")]
        container_image: Option<String>,
        /// Socket of a launcher that makes the sandboxes
        #[arg(long, hide = true)]
        launcher: Option<PathBuf>,
        /// Folder with the sockets that egress has for sessions; without it sandboxes have no network
        #[arg(long, value_name = "DIR")]
        ways_out: Option<PathBuf>,
    },
    /// Start the containers that sandboxes are: the one process that uses the socket of a container runtime
    Containers(super::containers::Containers),
    /// Keep secrets, and lead sandboxes to what their environment allows; started by `serve`
    #[command(hide = true)]
    Egress(super::egress::Egress),
}

#[derive(Debug, Args)]
struct Node {
    /// The service's socket, DATA/node.sock; `-` when the parent gave it as standard input
    #[arg(long, value_name = "SOCKET")]
    node: PathBuf,
    /// A file from DATA/roles/ that says what this process may do
    #[arg(long, required_unless_present_any = ["inherited"], required_if_eq("node", ""))]
    token_file: Option<PathBuf>,
    #[arg(long, hide = true)]
    inherited: bool,
    /// Temporal namespace
    #[arg(long, env = env_vars::NAMESPACE, default_value = "default")]
    namespace: String,
}

/// Which model is called, and how.
#[derive(Clone, Debug, Default, Args)]
pub struct ModelArgs {
    /// Base URL of the model's API [default: the provider's own]
    #[arg(long, env = env_vars::MODEL_URL, value_name = "URL")]
    pub model_url: Option<String>,
    /// Which API the model speaks: anthropic or openai [default: anthropic]
    #[arg(long, env = env_vars::MODEL_API, value_name = "API")]
    pub model_api: Option<String>,
    /// Answer from a script instead of a model: for trying without a key
    #[arg(long, env = env_vars::MODEL_SCRIPT, value_name = "FILE")]
    pub model_script: Option<PathBuf>,
    /// The same provider's model that judges tool calls under the policy `auto`; without one no agent may have it [default: none]
    #[arg(long, env = env_vars::JUDGE_MODEL, value_name = "MODEL")]
    pub judge_model: Option<String>,
}

impl ModelArgs {
    pub fn make(&self) -> anyhow::Result<Arc<dyn model::Model>> {
        let key = [env_vars::MODEL_KEY, env_vars::ANTHROPIC_API_KEY]
            .into_iter()
            .find_map(|name| std::env::var(name).ok().filter(|key| !key.is_empty()))
            .map(|key| ApiKey::new(&key))
            .transpose()
            .hint(Code::Usage, "use the model key", "it must be one line of visible characters")?;
        let backend = match (&self.model_script, self.model_api.as_deref()) {
            (Some(_), _) => "scripted",
            (None, api) => api.unwrap_or("anthropic"),
        };
        let settings =
            Settings { url: self.model_url.clone(), key, script: self.model_script.clone(), ..Settings::default() };
        let hint = format!(
            "set {} or {}; to try without a key, give --model-script FILE",
            env_vars::MODEL_KEY,
            env_vars::ANTHROPIC_API_KEY
        );
        model::make(backend, &settings).hint(Code::Usage, "set up the model", hint)
    }
}

/// Where spans are sent.
#[derive(Clone, Debug, Default, Args)]
pub struct TraceArgs {
    /// Send spans to the OTLP collector with this base URL, as in http://127.0.0.1:4318 [default: none]
    #[arg(long, global = true, env = env_vars::OTLP_ENDPOINT, value_name = "URL")]
    otlp_endpoint: Option<String>,
}

impl TraceArgs {
    /// A variable that is set to nothing names none.
    pub fn collector(&self) -> anyhow::Result<Option<Collector>> {
        let named = self.otlp_endpoint.as_deref().filter(|named| !named.is_empty());
        let hint = format!("--otlp-endpoint or {}: where traces go", env_vars::OTLP_ENDPOINT);
        named.map(str::parse).transpose().hint(Code::Usage, "use the trace collector", hint)
    }
}

impl Worker {
    pub fn run(self) -> anyhow::Result<()> {
        let service = match self.role {
            Role::Brain { .. } => "steadyhand-brain",
            Role::Hand { .. } => "steadyhand-hand",
            Role::Containers(_) => "steadyhand-containers",
            Role::Egress(_) => "steadyhand-egress",
        };
        let _telemetry = telemetry::install(service, self.traces.collector()?.as_ref())?;
        let runtime = tokio::runtime::Runtime::new()?;
        let worked = runtime.block_on(self.work());
        // Whoever still talks to a hand is not waited for: it goes on by itself.
        runtime.shutdown_background();
        worked
    }

    async fn work(self) -> anyhow::Result<()> {
        match self.role {
            Role::Brain { node, model } => {
                let judge = model.judge_model.clone();
                let model = model.make()?;
                let remote = node.connect("steadyhand-brain").await?;
                let (connection, blobs) = (remote.connection.clone(), remote.blobs.clone());
                let reader = Arc::new(log::TemporalReader::new(connection, &node.namespace, blobs));
                let activities = BrainActivities::new(model, reader, remote.blobs.clone(), remote.deltas.clone())
                    .judged_by(judge.as_deref());
                let client = crate::connect::client(remote.connection.clone(), &node.namespace, remote.blobs.clone())?;
                let worker = worker::brain::start(client, activities, worker::brain::Options::default()).await?;
                until_ended(worker, remote).await
            }
            Role::Egress(egress) => egress.run().await,
            Role::Containers(containers) => containers.run().await,
            Role::Hand {
                node,
                host,
                hands_dir,
                hand_program,
                hands_mode,
                keeper,
                container_image,
                launcher,
                ways_out,
            } => {
                let by = match launcher {
                    Some(socket) => {
                        harden()?;
                        By::Launcher { socket }
                    }
                    None => {
                        let program = hand_program.map_or_else(hand_program_beside, Ok)?;
                        let walls = keeper.map_or(Walls::Bubblewrap, |keeper| Walls::Container { keeper });
                        By::Itself { program, mode: hands_mode, walls }
                    }
                };
                let hands = Hands { dir: hands_dir, by };
                let remote = node.connect("steadyhand-hand").await?;
                let mcp = McpServers::new(ways_out.clone());
                let provider = Local::new(&host, hands, remote.blobs.clone()).with_ways_out(ways_out);
                let provider = Arc::new(provider.with_packages_for(container_image));
                let client = crate::connect::client(remote.connection.clone(), &node.namespace, remote.blobs.clone())?;
                let options = worker::hands::Options::default();
                let worker = worker::hands::start(client, &host, provider, remote.blobs.clone(), mcp, options).await?;
                until_ended(worker, remote).await
            }
        }
    }
}

impl Node {
    async fn connect(&self, what: &str) -> anyhow::Result<Remote> {
        let identity = format!("{what}@{}", std::process::id());
        match &self.token_file {
            _ if self.inherited => remote::inherited(&identity).await,
            Some(token_file) => remote::by_path(&self.node, token_file, &identity).await,
            None => Err(failed(Code::Usage, "a worker needs --token-file", "DATA/roles/brain.token or hand.token")),
        }
    }
}

/// `steadyhand-hand` lies beside `steadyhand`.
pub fn hand_program_beside() -> anyhow::Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name("steadyhand-hand");
    if beside.is_file() {
        return Ok(beside);
    }
    Err(failed(
        Code::Environment,
        format!("{} is missing", beside.display()),
        "build it (cargo build -p steadyhand-hand) and keep it beside steadyhand",
    ))
}

/// Runs until told to stop, until the service is gone, or until the worker fails.
async fn until_ended(worker: worker::WorkerThread, remote: Remote) -> anyhow::Result<()> {
    let mut gone = remote.gone.clone();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        () = worker.ended() => return Ok(worker.join()?),
        // Nothing can be reported any more: what was under way is found again in the journals.
        _ = gone.wait_for(|gone| *gone) => return Ok(()),
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    worker.shutdown();
    worker.ended().await;
    Ok(worker.join()?)
}
