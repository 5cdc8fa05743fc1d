//! `steadyhand serve`: the service. Assembles api, engine and brain in this process, and the hand worker as a child.

use super::worker::{ModelArgs, TraceArgs, hand_program_beside};
use crate::{
    backup::Sources,
    config::{self, Role},
    connect::{self, Rpc},
    data_dir::{self, DataDir},
    env_vars,
    error::{Code, Hint as _, failed},
    forward::Forwarder,
    hand_worker::{HandWorker, Users},
    hands_here::HandsHere,
    node::{self, Node},
    offer::{Offer, OfferArgs},
    output,
    provider::{Containers, ProviderArgs},
    registries::{Registry, registries},
    remote,
    supervisor::{self, Child},
    telemetry::{self, Collector},
    vault_keys::{VaultArgs, VaultKeys},
    way_out::WayOut,
};
use activities::{BrainActivities, Deltas, hands::web};
use api::{App, Patience, auth::limits::Rates, resources::sessions::BuiltinTool};
use clap::Args;
use domain::{delta::Delta, limits, packages::Registries, session::Tuning};
use egress::address::Listed;
use engine::Engine;
use hand::{
    hands::By,
    spec::{Mode, Walls},
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};
use store::{FjallCatalog, FolderBlobs};
use temporalio_client::Connection;
use tokio::{
    net::{TcpListener, UnixListener},
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};
use tracing::{info, warn};

/// What a service has use for: an idle connection takes some KiB of memory.
const DESCRIPTORS_MAX: u64 = 1 << 16;

/// Run the service
///
/// Prints `listening on http://ADDR` once everything that it runs is up. Without other options this is a complete
/// service on one machine: HTTP API, embedded engine, brain and hands, with all data in one folder.
#[derive(Debug, Args)]
pub struct Serve {
    /// Address of the HTTP API; port 0 picks one [default: 127.0.0.1:8280]
    #[arg(long, env = env_vars::LISTEN, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// Folder for everything that has to last [default: ~/.local/share/steadyhand]
    #[arg(long, env = env_vars::DATA, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Configuration file [default: DATA/steadyhand.toml, if it is there]
    #[arg(long, env = env_vars::CONFIG, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    offer: OfferArgs,
    /// Print a configuration file with every key explained, and end
    #[arg(long)]
    print_config: bool,
    /// What to run in this process [default: all]
    #[arg(long, env = env_vars::ROLE, value_enum)]
    role: Option<Role>,
    /// Use a Temporal cluster instead of the embedded engine
    #[arg(long, env = env_vars::TEMPORAL, value_name = "HOST:PORT")]
    temporal: Option<String>,
    /// Temporal namespace [default: default]
    #[arg(long, env = env_vars::NAMESPACE, value_name = "NAME")]
    namespace: Option<String>,
    #[command(flatten)]
    model: ModelArgs,
    /// Folder of the sandboxes [default: DATA/hands; as root /var/lib/steadyhand/hands]
    #[arg(long, env = env_vars::HANDS_DIR, value_name = "DIR")]
    hands_dir: Option<PathBuf>,
    /// Addresses that are not public and that sandboxes may reach all the same, if their environment names them: ADDRESS,
    /// ADDRESS:PORT or a network like 10.0.0.0/8
    #[arg(long, env = env_vars::PRIVATE_ADDRESSES, value_name = "LIST", value_delimiter = ',')]
    private_addresses: Option<Vec<String>>,
    /// Where package managers of sandboxes find what they install: pip=URL, npm=URL, go=URL, apt=URL
    #[arg(long, env = env_vars::PACKAGE_REGISTRIES, value_name = "LIST", value_delimiter = ',')]
    package_registries: Option<Vec<Registry>>,
    /// Whether to run a hand worker [default: true]
    #[arg(long, env = env_vars::HANDS, value_name = "BOOL")]
    hands: Option<bool>,
    /// What to do where a layer of the sandbox is missing: strict makes no sandbox, dev goes on without the layers that
    /// need privileges [default: strict]
    #[arg(long, env = env_vars::HANDS_MODE, value_name = "MODE")]
    hands_mode: Option<Mode>,
    #[command(flatten)]
    provider: ProviderArgs,
    /// User of the hand worker where the service is root [default: 60998]
    #[arg(long, env = env_vars::WORKER_UID, value_name = "UID", hide_short_help = true)]
    worker_uid: Option<u32>,
    /// User of egress where the service is root [default: 60999]
    #[arg(long, env = env_vars::EGRESS_UID, value_name = "UID", hide_short_help = true)]
    egress_uid: Option<u32>,
    /// Seconds that a session rests before its sandbox is put away and its workspace kept; 0: never [default: 600]
    #[arg(long, env = env_vars::PARK_AFTER, value_name = "SECONDS", hide_short_help = true)]
    park_after: Option<u64>,
    #[command(flatten)]
    vault: VaultArgs,
    /// Calls a minute that create something, for an organization [default: no limit]
    #[arg(long, env = env_vars::CREATES_PER_MINUTE, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    creates_per_minute: Option<u32>,
    /// Calls a minute that read, for an organization [default: no limit]
    #[arg(long, env = env_vars::READS_PER_MINUTE, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    reads_per_minute: Option<u32>,
    /// MiB of journal that the engine keeps, which a start reads, however much is stored [default: 128]
    #[arg(long, env = env_vars::JOURNAL_MIB, value_name = "MIB", hide_short_help = true,
        value_parser = clap::value_parser!(u32).range(64..=4_096))]
    journal_mib: Option<u32>,
    /// Decisions after which a run of a session continues as new; 0: when the engine suggests it [default: 0]
    #[arg(long, env = env_vars::DECISIONS_PER_RUN, value_name = "N", hide_short_help = true)]
    decisions_per_run: Option<u64>,
    #[command(flatten)]
    traces: TraceArgs,
}

/// What holds after flags, environment, file and defaults.
struct Settings {
    listen: SocketAddr,
    data: PathBuf,
    offer: Option<Offer>,
    role: Role,
    temporal: Option<String>,
    namespace: String,
    journal_mib: Option<u32>,
    model: ModelArgs,
    hands_dir: PathBuf,
    hands: bool,
    hands_mode: Mode,
    containers: Option<Containers>,
    users: Users,
    vault: VaultKeys,
    private_addresses: Vec<String>,
    registries: Registries,
    rates: Rates,
    tuning: Tuning,
    collector: Option<Collector>,
}

impl Serve {
    pub fn run(self) -> anyhow::Result<()> {
        if self.print_config {
            output::bytes(config::EXAMPLE.as_bytes());
            return Ok(());
        }
        let settings = self.settings()?;
        let _telemetry = telemetry::install("steadyhand", settings.collector.as_ref())?;
        remote::install_tls();
        tokio::runtime::Runtime::new()?.block_on(serve(settings))
    }

    fn settings(self) -> anyhow::Result<Settings> {
        let data = self.data.clone().unwrap_or_else(config::default_data_dir);
        let file = config::load(self.config.as_deref(), &data)?.serve;
        let data = self.data.or(file.data).unwrap_or(data);
        let default_hands = || {
            // A plain user must be able to pass through the folders above a sandbox.
            let is_root = rustix::process::geteuid().is_root();
            if is_root { PathBuf::from("/var/lib/steadyhand/hands") } else { data.join("hands") }
        };
        Ok(Settings {
            listen: self.listen.or(file.listen).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8280))),
            offer: self
                .offer
                .or(OfferArgs {
                    engine_listen: file.engine_listen,
                    engine_tls_cert: file.engine_tls_cert,
                    engine_tls_key: file.engine_tls_key,
                    engine_tls_client_ca: file.engine_tls_client_ca,
                    engine_keys: file.engine_keys,
                    engine_plaintext: file.engine_plaintext,
                })
                .offer()?,
            role: self.role.or(file.role).unwrap_or(Role::All),
            temporal: self.temporal.or(file.temporal),
            namespace: self.namespace.or(file.namespace).unwrap_or_else(|| "default".to_owned()),
            journal_mib: self.journal_mib.or(file.journal_mib).map(|mib| mib.clamp(64, 4_096)),
            model: ModelArgs {
                model_url: self.model.model_url.or(file.model_url),
                model_api: self.model.model_api.or(file.model_api),
                model_script: self.model.model_script.or(file.model_script),
                judge_model: self.model.judge_model.or(file.judge_model).filter(|name| !name.is_empty()),
            },
            hands_dir: self.hands_dir.or(file.hands_dir).unwrap_or_else(default_hands),
            hands: self.hands.or(file.hands).unwrap_or(true),
            hands_mode: self.hands_mode.or(file.hands_mode).unwrap_or_default(),
            containers: ProviderArgs {
                hand_provider: self.provider.hand_provider.or(file.hand_provider),
                container_image: self.provider.container_image.or(file.container_image),
                container_socket: self.provider.container_socket.or(file.container_socket),
            }
            .containers()?,
            users: Users::new(self.worker_uid.or(file.worker_uid), self.egress_uid.or(file.egress_uid))?,
            vault: VaultArgs {
                vault_key_file: self.vault.vault_key_file.or(file.vault_key_file),
                vault_key_command: self.vault.vault_key_command.or(file.vault_key_command),
                vault_old_key_file: self.vault.vault_old_key_file.or(file.vault_old_key_file),
            }
            .keys()?,
            private_addresses: private_addresses(self.private_addresses.or(file.private_addresses))?,
            registries: registries(self.package_registries.or(file.package_registries).unwrap_or_default())?,
            rates: Rates {
                creates: self.creates_per_minute.or(file.creates_per_minute).filter(|calls| *calls > 0),
                reads: self.reads_per_minute.or(file.reads_per_minute).filter(|calls| *calls > 0),
            },
            tuning: Tuning {
                decisions_per_run: self.decisions_per_run.or(file.decisions_per_run).unwrap_or(0),
                park_after_ms: match self.park_after.or(file.park_after) {
                    Some(seconds) => seconds.saturating_mul(1_000),
                    None => limits::PARK_AFTER_MS,
                },
                ..Tuning::default()
            },
            collector: self.traces.collector()?.or(file.otlp_endpoint),
            data,
        })
    }
}

fn private_addresses(listed: Option<Vec<String>>) -> anyhow::Result<Vec<String>> {
    let listed = listed.unwrap_or_default();
    for address in &listed {
        address.parse::<Listed>().hint(
            Code::Usage,
            "use --private-addresses",
            "give addresses, ADDRESS:PORT or networks, separated by commas",
        )?;
    }
    Ok(listed)
}

async fn serve(settings: Settings) -> anyhow::Result<()> {
    if settings.role == Role::Api {
        refuse_model_key()?;
    }
    let data = DataDir::open(&settings.data)?;
    let admin_key = match std::env::var(env_vars::API_KEY) {
        Ok(key) if !key.is_empty() => key,
        _ => data.admin_key()?,
    };
    let model = match settings.role {
        Role::All => Some(settings.model.make()?),
        Role::Api => None,
    };
    let stores = Stores::open(data.root())?;
    let listener = TcpListener::bind(settings.listen).await.hint(
        Code::Failed,
        format!("listen on {}", settings.listen),
        "another program has that port: choose another with --listen; port 0 picks a free one",
    )?;
    let addr = listener.local_addr()?;

    let runs_hands = settings.role == Role::All && settings.hands;
    let way_out = if runs_hands {
        WayOut::prepare(
            &settings.hands_dir,
            &host(data.root())?,
            settings.users.egress,
            settings.private_addresses.clone(),
            settings.registries.clone(),
        )?
    } else {
        None
    };
    let hands = match runs_hands {
        true => Some(hands_here(&settings, data.root())?),
        false => None,
    };
    let (engine, rpc, connection) = engine(&settings, data.root()).await?;
    let app = App::open(
        stores.catalog.clone(),
        stores.blobs.clone(),
        api::Engine { connection: connection.clone(), namespace: settings.namespace.clone() },
        api::Options {
            admin_key: Some(admin_key),
            builtin_tools: builtin_tools(way_out.is_some()),
            tuning: settings.tuning,
            rates: settings.rates,
            judges: settings.model.judge_model.is_some(),
            patience: Patience { connections_max: descriptors()? / 2, ..Patience::default() },
            delete_sealed_runs: engine.is_some(),
            hands: hands.clone().map(|hands| Arc::new(hands) as Arc<dyn api::hands::Hands>),
            egress: way_out.as_ref().map(WayOut::link),
            ..api::Options::default()
        },
    )
    .await?;

    let (close, closing) = watch::channel(false);
    let node = node(&settings, &data, rpc.clone(), &stores, &app)?;
    let offered = node.clone();
    let listening = tokio::spawn(node.clone().listen(bind(&data_dir::node_socket(data.root()))?));
    let local = bind(&data_dir::api_socket(data.root()))?;
    let sources = Sources {
        root: data.root().to_owned(),
        engine: engine.clone(),
        catalog: stores.catalog.clone(),
        blobs: stores.blobs.clone(),
    };
    let backups = tokio::spawn(sources.listen(bind(&data_dir::backup_socket(data.root()))?, closing.clone()));
    let brain = match model {
        Some(model) => Some(brain(&settings, model, &connection, &stores, &app).await?),
        None => None,
    };
    let mut children = Vec::new();
    if runs_hands {
        let ways_out = way_out.as_ref().map(WayOut::sockets);
        if let Some(way_out) = way_out {
            children
                .push(supervised(way_out.child(settings.users.worker, settings.vault.clone()), closing.clone()).await?);
        }
        let workers = HandWorker {
            dir: settings.hands_dir.clone(),
            mode: settings.hands_mode,
            containers: settings.containers.clone(),
            host: host(data.root())?,
            namespace: settings.namespace.clone(),
            ways_out,
            collector: settings.collector.clone(),
            uid: settings.users.worker,
        };
        for child in workers.children(node)? {
            children.push(supervised(child, closing.clone()).await?);
        }
        if let Some(hands) = hands {
            children.push(tokio::spawn(hands.reap(rpc, settings.namespace.clone(), app.clone(), closing.clone())));
        }
    }
    let outside = match (&engine, settings.offer) {
        (Some(engine), Some(offer)) => {
            let key = data.role_token("engine")?;
            Some(offer.open(engine.clone(), offered, key, closing.clone()).await?.1)
        }
        _ => None,
    };

    // From here on: whoever reads the address may ask this process to end.
    let signals = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    data.announce(addr)?;
    output::line(&format!("listening on http://{addr}"));
    let mut stopping = closing.clone();
    let shutdown = async move {
        let _ = stopping.wait_for(|closing| *closing).await;
    };
    let mut serving = tokio::spawn(api::serve(listener, local, app, shutdown));
    let ended = wait(&mut serving, brain.as_ref(), signals).await;

    info!("closing");
    close.send_replace(true);
    data.withdraw();
    if !serving.is_finished() {
        let _ = serving.await;
    }
    let thought = match brain {
        Some(brain) => {
            brain.shutdown();
            brain.ended().await;
            brain.join()
        }
        None => Ok(()),
    };
    for child in children {
        let _ = child.await;
    }
    listening.abort();
    // A backup that is being made is finished first.
    let _ = backups.await;
    if let Some(engine) = engine {
        engine.shutdown().await;
    }
    if let Some(outside) = outside {
        let _ = outside.await;
    }
    for socket in [data_dir::node_socket, data_dir::api_socket, data_dir::backup_socket].map(|of| of(data.root())) {
        let _ = std::fs::remove_file(socket);
    }
    thought.hint(
        Code::Failed,
        "run the brain worker",
        "without it no session goes on, so the service ends: start it again; with --temporal, does the namespace exist?",
    )?;
    ended
}

struct Stores {
    catalog: Arc<FjallCatalog>,
    blobs: Arc<FolderBlobs>,
}

impl Stores {
    fn open(root: &Path) -> anyhow::Result<Self> {
        let hint = "the folder may be damaged: `steadyhand verify` says what is; a full disk is the usual cause";
        let catalog = FjallCatalog::open(&data_dir::catalog(root)).hint(Code::Data, "open the catalog", hint)?;
        let blobs = FolderBlobs::open(&data_dir::blobs(root)).hint(Code::Data, "open the blobs", hint)?;
        Ok(Stores { catalog: Arc::new(catalog), blobs: Arc::new(blobs) })
    }
}

async fn engine(settings: &Settings, root: &Path) -> anyhow::Result<(Option<Engine>, Rpc, Connection)> {
    let identity = format!("steadyhand@{}", std::process::id());
    if let Some(address) = &settings.temporal {
        let connection = connect::cluster(address, &identity).await?;
        return Ok((None, Rpc::Cluster(Arc::new(Forwarder::new(address).await?)), connection));
    }
    let mut options = engine::Options::new(engine::Store::Fjall(data_dir::engine(root)));
    options.namespaces = vec![settings.namespace.clone()];
    if let Some(mib) = settings.journal_mib {
        options.journal_bytes = u64::from(mib) << 20;
    }
    let engine = Engine::open(options).hint(
        Code::Data,
        "open the engine",
        "the folder may be damaged: `steadyhand verify` says what is; a full disk is the usual cause",
    )?;
    let connection = connect::embedded(engine.clone(), &identity).await?;
    Ok((Some(engine.clone()), Rpc::Embedded(engine), connection))
}

fn node(settings: &Settings, data: &DataDir, rpc: Rpc, stores: &Stores, app: &App) -> anyhow::Result<Node> {
    let mut tokens = BTreeMap::new();
    for role in node::Role::ALL {
        tokens.insert(data.role_token(role.name())?, role);
    }
    let hub = app.deltas.clone();
    let publish = Arc::new(move |delta: Delta| hub.publish(delta));
    Ok(Node::new(rpc, &settings.namespace, stores.blobs.clone(), publish, tokens))
}

/// A socket in the data folder that only its owner can connect to.
fn bind(path: &Path) -> anyhow::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt as _;
    // This process holds the folder, so a socket that is there is nobody's.
    let _ = std::fs::remove_file(path);
    let hint = "a unix socket's path may have about 100 characters: choose a shorter --data";
    let listener = UnixListener::bind(path).hint(Code::Data, format!("listen on {}", path.display()), hint)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn brain(
    settings: &Settings,
    model: Arc<dyn activities::model::Model>,
    connection: &Connection,
    stores: &Stores,
    app: &App,
) -> anyhow::Result<worker::WorkerThread> {
    let reader = Arc::new(log::TemporalReader::new(connection.clone(), &settings.namespace, stores.blobs.clone()));
    let deltas = Arc::new(HubDeltas(app.deltas.clone()));
    let activities = BrainActivities::new(model, reader, stores.blobs.clone(), deltas)
        .judged_by(settings.model.judge_model.as_deref());
    let client = connect::client(connection.clone(), &settings.namespace, stores.blobs.clone())?;
    Ok(worker::brain::start(client, activities, worker::brain::Options::default()).await?)
}

/// Previews of a brain in this process go straight to the api's hub.
struct HubDeltas(api::deltas::Hub);

impl Deltas for HubDeltas {
    fn publish(&self, delta: Delta) {
        self.0.publish(delta);
    }
}

/// The service has the rights to list and end hands itself.
fn hands_here(settings: &Settings, root: &Path) -> anyhow::Result<HandsHere> {
    // It makes none.
    let walls = Walls::Bubblewrap;
    let by = By::Itself { program: hand_program_beside()?, mode: settings.hands_mode, walls };
    Ok(HandsHere::new(&settings.hands_dir, &host(root)?, by))
}

/// Starts a child and keeps it running; returns once it was first started.
async fn supervised(child: Child, closing: watch::Receiver<bool>) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let (up, mut is_up) = watch::channel(false);
    let supervised = tokio::spawn(supervisor::supervise(child, closing, up));
    let _ = is_up.wait_for(|up| *up).await;
    Ok(supervised)
}

/// The name of this machine in task queues: made once, kept in the data folder.
fn host(root: &Path) -> anyhow::Result<String> {
    let path = root.join("host");
    match std::fs::read_to_string(&path) {
        Ok(host) if !host.trim().is_empty() => Ok(host.trim().to_owned()),
        _ => {
            let host = hex::encode(rand::random::<[u8; 6]>());
            std::fs::write(&path, format!("{host}\n")).hint(
                Code::Data,
                format!("write {}", path.display()),
                "is the disk full?",
            )?;
            Ok(host)
        }
    }
}

/// The tools of a hand, as the model is told of them, and those that are made through egress.
fn builtin_tools(has_egress: bool) -> Arc<[BuiltinTool]> {
    let page = has_egress.then(|| (web::NAME, web::DESCRIPTION, web::schema()));
    activities::hands::tools()
        .chain(page)
        .map(|(name, description, input_schema)| BuiltinTool {
            name: name.to_owned(),
            description: description.to_owned(),
            input_schema,
        })
        .collect()
}

/// `--role api` never sees a model key: it could not keep it from whoever takes over the api.
fn refuse_model_key() -> anyhow::Result<()> {
    for name in [env_vars::MODEL_KEY, env_vars::ANTHROPIC_API_KEY] {
        if std::env::var_os(name).is_some_and(|key| !key.is_empty()) {
            return Err(failed(
                Code::Usage,
                format!("--role api was started with a model key in {name}"),
                "unset it here and give it to `steadyhand worker brain`",
            ));
        }
    }
    Ok(())
}

/// As many file descriptors as this process may have: a connection takes one, and so does much behind it.
fn descriptors() -> std::io::Result<usize> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum.map_or(DESCRIPTORS_MAX, |most| most.min(DESCRIPTORS_MAX));
    setrlimit(Resource::Nofile, Rlimit { current: Some(maximum), ..getrlimit(Resource::Nofile) })?;
    Ok(usize::try_from(maximum).expect("a small number"))
}

/// Until somebody wants the service to end, or it cannot go on.
async fn wait(
    serving: &mut tokio::task::JoinHandle<()>,
    brain: Option<&worker::WorkerThread>,
    (mut interrupt, mut terminate): (Signal, Signal),
) -> anyhow::Result<()> {
    let thinking = async {
        match brain {
            Some(brain) => brain.ended().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = thinking => {
            warn!("the brain worker ended by itself");
            Err(failed(Code::Failed, "the brain worker ended by itself", "the log says what it did last: start the service again"))
        }
        served = serving => {
            warn!("the API ended by itself");
            Ok(served?)
        }
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    }
}
