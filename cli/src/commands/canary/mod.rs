//! `steadyhand canary`: plants a secret of every class in a service of its own on this machine, has a session use them, and looks for
//! them wherever none may be.
//!
//! The service is this program with the options that it is given, in a folder that goes away; the model is a script. No service that
//! runs here is touched, and no secret of anybody's is read.

mod peers;
mod planted;

use crate::{
    client::{Client, Query},
    data_dir, env_vars,
    error::{Code, Hint as _, failed},
    output,
    table::table,
};
use activities::model::scripted::{self, Script};
use anyhow::Context as _;
use clap::Args;
use egress::canary::{self, Needles};
use peers::Peers;
use planted::{Own, Planted};
use reqwest::Url;
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs::{File, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpListener,
    process::{Child, Command},
};

/// For the service to come up, for the session to come to rest, and for the service to end.
const PATIENCE: Duration = Duration::from_secs(180);

/// Plant a secret of every class, use them in a session, and look for them where none may be
///
/// Runs a service of its own in a temporary folder, with the options after `--`. Looks into a sandbox (environment, command lines,
/// memory, files), the log, the model's requests, traces, the service's log, the memory of hand worker, launcher and shim (as root),
/// a backup, and all files of the service. Exit code 1 when something is found, or could not be looked at.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  steadyhand canary -- --hands-mode dev")]
pub struct Canary {
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    /// Give one of the secrets to the sandbox, as a naive build would, to see that it is found
    #[arg(long)]
    naive: bool,
    /// Options of `steadyhand serve` that are to be tried
    #[arg(last = true, value_name = "SERVE_OPTIONS")]
    serve: Vec<String>,
}

/// What came of looking at one place.
#[derive(Debug, Serialize)]
struct Looked {
    place: &'static str,
    state: State,
    /// What was looked at, or why it was not.
    what: String,
    /// Names of secrets, never their values.
    found: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Clean,
    Found,
    /// The control is not where it must be, so that nothing follows from finding nothing.
    Blind,
    /// Whoever runs this may not look there.
    Skipped,
}

impl Canary {
    pub async fn run(self) -> anyhow::Result<()> {
        let folder = tempfile::Builder::new().prefix("steadyhand-canary-").tempdir()?;
        // Users of sandboxes have to pass; what is inside is closed to them by whoever makes it.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o711))?;
        let looked = Trial::begin(folder.path(), &self.serve, self.naive).await?.run().await?;
        for looked in &looked {
            if self.json {
                output::json(&serde_json::to_value(looked)?);
            }
        }
        if !self.json {
            let rows: Vec<_> = looked.iter().map(Looked::row).collect();
            output::line(&table(["PLACE", "STATE", "FOUND", "LOOKED AT"], &rows));
        }
        verdict(&looked)
    }
}

fn verdict(looked: &[Looked]) -> anyhow::Result<()> {
    let places = |state: State| {
        let places: Vec<_> = looked.iter().filter(|looked| looked.state == state).map(|looked| looked.place).collect();
        (!places.is_empty()).then(|| places.join(", "))
    };
    if let Some(places) = places(State::Found) {
        let hint = "report it privately, with the command and the version";
        return Err(failed(Code::Failed, format!("secrets are where none may be: {places}"), hint));
    }
    if let Some(places) = places(State::Blind) {
        let hint = "what was planted to be found was not: see the last column";
        return Err(failed(Code::Failed, format!("nothing can be said of: {places}"), hint));
    }
    Ok(())
}

impl Looked {
    /// What was found there, the control among it.
    fn of(place: &'static str, what: impl Into<String>, mut found: BTreeSet<String>) -> Self {
        let sees = found.remove(CONTROL);
        let state = match (found.is_empty(), sees) {
            (false, _) => State::Found,
            (true, true) => State::Clean,
            (true, false) => State::Blind,
        };
        Looked { place, state, what: what.into(), found: found.into_iter().collect() }
    }

    fn row(&self) -> [String; 4] {
        let state = match self.state {
            State::Clean => "clean",
            State::Found => "FOUND",
            State::Blind => "BLIND",
            State::Skipped => "skipped",
        };
        [self.place.to_owned(), state.to_owned(), self.found.join(", "), self.what.clone()]
    }
}

struct Trial {
    planted: Planted,
    control: String,
    peers: Peers,
    model: scripted::Server,
    service: Child,
    client: Client,
    folder: PathBuf,
    data: PathBuf,
    hands: PathBuf,
    log: PathBuf,
}

/// What is looked for: everything that is planted, and what the service has made for itself with the one file in which it belongs.
struct Sought {
    needles: Needles,
    own: Vec<Own>,
}

/// The name of what has to be there, so that finding nothing else means something.
const CONTROL: &str = "control";

impl Sought {
    /// With what has to be found there.
    fn with(&self, control: &str) -> Needles {
        self.needles.and(CONTROL, control)
    }

    fn in_bytes(&self, place: &'static str, bytes: &[u8], control: &str) -> Looked {
        Looked::of(place, format!("{} bytes", bytes.len()), self.with(control).found(bytes))
    }

    /// Below each of these folders the control has to be.
    fn in_files(&self, place: &'static str, folders: &[&Path], control: &str) -> anyhow::Result<Looked> {
        let (needles, mut files, mut found) = (self.with(control), 0, BTreeSet::new());
        let mut blind = Vec::new();
        for folder in folders {
            let (looked, mut there) = needles.found_below(folder)?;
            files += looked;
            let before = there.len();
            there.retain(|(name, _)| name != CONTROL);
            if there.len() == before {
                blind.push(folder.display().to_string());
            }
            let is_home = |own: &Own, path: &Path| path.strip_prefix(folder).is_ok_and(|path| path == own.home);
            there.retain(|(name, path)| !self.own.iter().any(|own| own.name == name && is_home(own, path)));
            let told = |(name, path): (String, PathBuf)| {
                format!("{name} ({})", path.strip_prefix(folder).unwrap_or(&path).display())
            };
            found.extend(there.into_iter().map(told));
        }
        if blind.is_empty() {
            found.insert(CONTROL.to_owned());
        }
        Ok(Looked::of(place, format!("{files} files"), found))
    }

    /// Of a process that holds no secret, where whoever runs this may look.
    fn in_memory(&self, place: &'static str, words: &[&str], control: &str) -> anyhow::Result<Looked> {
        let skipped = |why: &str| Looked { place, state: State::Skipped, what: why.to_owned(), found: Vec::new() };
        let Some(pid) = canary::processes(words)?.first().copied() else {
            return Ok(skipped("there is none: its work is the service's user's"));
        };
        match self.with(control).found_in_memory(pid) {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                Ok(skipped("only root may look into it"))
            }
            looked => {
                looked.map(|(bytes, found)| Looked::of(place, format!("{bytes} bytes"), found)).map_err(Into::into)
            }
        }
    }
}

impl Trial {
    async fn begin(folder: &Path, options: &[String], is_naive: bool) -> anyhow::Result<Self> {
        let run = format!("{:08x}", rand::random::<u32>());
        let (planted, control) = (Planted::new(&run), planted::control(&run));
        let peers = Peers::start(planted.clone(), folder).await.context("start what the secrets are for")?;
        let script = Script::from_json(&script(&planted, &control, is_naive), Path::new("canary"))?;
        let model = scripted::serve(TcpListener::bind("127.0.0.1:0").await?, script)?;
        let (data, hands, log) = (folder.join("data"), folder.join("hands"), folder.join("serve.log"));
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(&data).arg("--hands-dir").arg(&hands);
        command.args(["--model-url", &model.url(), "--private-addresses", &peers.addr.to_string()]);
        command.args(["--otlp-endpoint", &format!("http://{}", peers.addr)]).args(options);
        command.env_clear().env(env_vars::MODEL_KEY, &planted.model_key);
        for name in ["PATH", "HOME"] {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log)?).kill_on_drop(true);
        let mut service = command.spawn().hint(Code::Environment, "start the service", "try `steadyhand serve`")?;
        let stdout = service.stdout.take().context("its output is piped")?;
        let mut lines = BufReader::new(stdout).lines();
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.ok().and_then(Result::ok).flatten();
        let Some(base) = line.as_deref().and_then(|line| line.strip_prefix("listening on ")) else {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            let why =
                said.lines().rfind(|line| line.starts_with("error: ")).unwrap_or("it does not say why").to_owned();
            return Err(failed(
                Code::Environment,
                format!("the service did not start: {why}"),
                "`steadyhand doctor` says more",
            ));
        };
        let key = std::fs::read_to_string(data_dir::admin_key(&data))?.trim().to_owned();
        let client = Client::new(Url::parse(base)?, key, Some(data_dir::api_socket(&data)))?;
        let folder = folder.to_owned();
        Ok(Trial { planted, control, peers, model, service, client, folder, data, hands, log })
    }

    async fn run(mut self) -> anyhow::Result<Vec<Looked>> {
        let session = self.session().await?;
        let sought = self.sought()?;
        let (events, log) = (self.all(&session, "events").await?, self.all(&session, "log").await?);
        let unused: Vec<_> = USED.into_iter().filter(|name| !self.peers.used().contains(name)).collect();
        if !unused.is_empty() {
            let errors = events.iter().filter(|event| event["type"] == "session.error");
            let why: String = errors.map(|event| event["error"].to_string()).collect();
            let message = format!("the session did not use what was planted ({}): {why}", unused.join(", "));
            return Err(failed(Code::Failed, message, "it needs bubblewrap, git and python3 on this machine"));
        }
        let mut looked = vec![inside(&events)];
        let log = json!([events, log]).to_string();
        looked.push(sought.in_bytes("session log", log.as_bytes(), &self.control));
        let requests: String = self.model.received().iter().map(|request| request.body.to_string()).collect();
        looked.push(sought.in_bytes("model requests", requests.as_bytes(), &self.control));
        let hands = self.hands.to_string_lossy();
        looked.push(sought.in_memory("memory of the hand worker", &["worker hand", &hands], &session)?);
        looked.push(sought.in_memory("memory of the launcher", &["launcher", &hands], &hands)?);
        looked.push(sought.in_memory("memory of the shim", &["shim", &hands], &session)?);
        // As long as the hand is there.
        let (data, hands, backup) = (self.data.as_path(), self.hands.as_path(), self.folder.join("backup"));
        looked.push(sought.in_files("files of the running service", &[data, hands], &session)?);
        self.back_up(&backup).await?;
        looked.push(sought.in_files("a backup", &[&backup], &session)?);
        self.client.delete(&["v1", "sessions", &session]).await?;
        // With every span sent.
        self.stop().await?;
        looked.push(sought.in_bytes("traces", &self.peers.traces(), &session));
        looked.push(sought.in_bytes("service log", &std::fs::read(&self.log)?, "closing"));
        looked.push(sought.in_files("files of the stopped service", &[&self.data, &self.hands], &session)?);
        Ok(looked)
    }

    async fn back_up(&self, to: &Path) -> anyhow::Result<()> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["backup", "--data"]).arg(&self.data).arg(to).env_clear();
        let output = command.stdin(Stdio::null()).output().await?;
        let said = || String::from_utf8_lossy(&output.stderr).trim().to_owned();
        anyhow::ensure!(output.status.success(), "back up the service: {}", said());
        Ok(())
    }

    /// One turn in which everything is used. Gives its id when it is at rest.
    async fn session(&self) -> anyhow::Result<String> {
        let make = async |path: &[&str], body: Value| -> anyhow::Result<String> {
            let made = self.client.post(path, &body).await?;
            Ok(made["id"].as_str().context("what is made has an id")?.to_owned())
        };
        let vault = make(&["v1", "vaults"], json!({"display_name": "canary"})).await?;
        let (docs, oauth, token) =
            (self.peers.url("docs/mcp"), self.peers.url("oauth/mcp"), self.peers.url("oauth/token"));
        let planted = &self.planted;
        for auth in [
            json!({"type": "static_bearer", "mcp_server_url": docs, "token": planted.bearer}),
            json!({"type": "mcp_oauth", "mcp_server_url": oauth, "access_token": planted.access, "refresh": {
                "client_id": "canary", "token_endpoint": token, "refresh_token": planted.refresh,
                "token_endpoint_auth": {"type": "client_secret_post", "client_secret": planted.client}}}),
            json!({"type": "environment_variable", "secret_name": "TOKEN", "secret_value": planted.variable,
                "networking": {"type": "limited", "allowed_hosts": ["example.com"]}}),
        ] {
            make(&["v1", "vaults", &vault, "credentials"], json!({"auth": auth})).await?;
        }
        let server = |name: &str, url: &str| json!({"type": "url", "name": name, "url": url});
        let toolset = |name: &str| {
            json!({"type": "mcp_toolset", "mcp_server_name": name,
                "default_config": {"permission_policy": {"type": "always_allow"}}})
        };
        let agent = json!({"name": "canary", "model": "scripted",
            "mcp_servers": [server("docs", &docs), server("oauth", &oauth)],
            "tools": [{"type": "agent_toolset_20260401"}, toolset("docs"), toolset("oauth")]});
        let agent = make(&["v1", "agents"], agent).await?;
        let environment = make(&["v1", "environments"], json!({"name": "canary"})).await?;
        let session = make(
            &["v1", "sessions"],
            json!({"agent": agent, "environment_id": environment, "vault_ids": [vault], "resources": [
                {"type": "github_repository", "url": self.peers.url("app"), "authorization_token": planted.repository}]}),
        )
        .await?;
        // Listening begins before anything can happen.
        let mut stream = self.client.open(&["v1", "sessions", &session, "events", "stream"], &Query::new()).await?;
        let text = json!([{"type": "text", "text": self.control}]);
        self.client.send_events(&session, &[json!({"type": "user.message", "content": text})]).await?;
        let at_rest = async {
            let mut heard = String::new();
            while let Some(chunk) = self.client.chunk(&mut stream).await? {
                heard.push_str(&String::from_utf8_lossy(&chunk));
                if heard.contains("session.status_idle") {
                    return Ok(());
                }
            }
            anyhow::bail!("the service ended the stream")
        };
        tokio::time::timeout(PATIENCE, at_rest).await.context("the session does not come to rest")??;
        Ok(session)
    }

    async fn all(&self, session: &str, what: &str) -> anyhow::Result<Vec<Value>> {
        self.client.list(&["v1", "sessions", session, what], &Query::new(), usize::MAX).await
    }

    fn sought(&self) -> anyhow::Result<Sought> {
        let homes = [
            ("admin_key", data_dir::admin_key(&self.data)),
            ("hand_token", data_dir::role_token(&self.data, "hand")),
            ("brain_token", data_dir::role_token(&self.data, "brain")),
        ];
        let read = |(name, home): (&'static str, PathBuf)| {
            let secret = std::fs::read_to_string(&home)?.trim().to_owned();
            anyhow::Ok(Own { name, secret, home: home.strip_prefix(&self.data)?.to_owned() })
        };
        let own = homes.into_iter().map(read).collect::<anyhow::Result<Vec<Own>>>()?;
        let secrets = own.iter().map(|own| (own.name, own.secret.as_str()));
        Ok(Sought { needles: Needles::new(self.planted.named().into_iter().chain(secrets)), own })
    }

    async fn stop(&mut self) -> anyhow::Result<()> {
        let pid = self.service.id().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()));
        let pid = pid.context("the service runs")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        tokio::time::timeout(PATIENCE, self.service.wait()).await.context("the service does not end")??;
        Ok(())
    }
}

/// The variable is for a host that is not here, and the first access token is refused.
const USED: [&str; 5] = ["mcp_bearer", "mcp_minted", "mcp_refresh", "mcp_client", "repository"];

/// What the search in the sandbox said.
fn inside(events: &[Value]) -> Looked {
    let results = events.iter().filter(|event| event["type"] == "agent.tool_result");
    let texts = results.flat_map(|event| event["content"].as_array().into_iter().flatten());
    let said = texts.filter_map(|block| block["text"].as_str()).find(|text| text.contains("looked "));
    let said = said.unwrap_or("it did not run").trim();
    let hit = |name: &str, place: &str| said.contains(&format!("'{name} {place}'"));
    let found = PLACES.iter().filter(|place| hit("secret", place)).map(|place| format!("something in {place}"));
    let sees = hit("control", "environ") && hit("control", "files");
    Looked::of("sandbox", said, found.chain(sees.then(|| CONTROL.to_owned())).collect())
}

const PLACES: [&str; 5] = ["environ", "cmdline", "proc", "memory", "files"];

/// One turn: both MCP servers, the repository, and the search. The control is put together inside, so that it is only where the
/// script puts it: into a file, and into the environment of a process.
fn script(planted: &Planted, control: &str, is_naive: bool) -> String {
    let ((first, rest), (begin, end)) = (planted.prefix.split_at(4), control.split_at(4));
    let naive = if is_naive { format!("export TOKEN={}; ", planted.bearer) } else { String::new() };
    let command = format!(
        "{naive}echo {begin}''{end} >/workspace/planted; (export PLANTED={begin}''{end}; exec sleep 600) >/dev/null 2>&1 &\n\
         cd /workspace/app && git ls-remote -q origin >/dev/null; cd /tmp\n\
         cat >/tmp/search.py <<'END'\n{}\nEND\npython3 /tmp/search.py {first} {rest} {begin} {end}",
        canary::INSIDE
    );
    let call = |tool: &str, input: Value| json!({"tool": tool, "input": input});
    let answer = [
        call("mcp__docs__ping", json!({})),
        call("mcp__oauth__ping", json!({})),
        call("bash", json!({"command": command})),
    ];
    json!({"version": 1, "rules": [{"when": {"results": 0}, "answer": answer}, {"answer": [{"text": "Done."}]}]})
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_or_not_seen_is_a_failure_and_what_is_skipped_is_none() {
        let looked = |state| Looked { place: "traces", state, what: String::new(), found: Vec::new() };
        assert!(verdict(&[looked(State::Clean), looked(State::Skipped)]).is_ok());
        assert!(verdict(&[looked(State::Clean), looked(State::Found)]).is_err());
        assert!(verdict(&[looked(State::Blind)]).is_err());
    }

    #[test]
    fn a_search_that_did_not_see_its_own_control_says_nothing() {
        let result = |text: &str| [json!({"type": "agent.tool_result", "content": [{"type": "text", "text": text}]})];
        let state = |text: &str| inside(&result(text)).state;
        let control = "'control environ', 'control files'";
        assert_eq!(state(&format!("looked 90 hits [{control}]\n")), State::Clean);
        assert_eq!(state(&format!("looked 90 hits [{control}, 'secret cmdline']\n")), State::Found);
        assert_eq!(state("looked 90 hits []\n"), State::Blind);
        assert_eq!(state("python3: command not found"), State::Blind);
    }

    #[test]
    fn the_script_holds_no_canary_and_no_control() {
        let (planted, control) = (Planted::new("0badcafe"), planted::control("0badcafe"));
        let naive = script(&planted, &control, true);
        assert_eq!(Needles::new(planted.named()).found(naive.as_bytes()), BTreeSet::from(["mcp_bearer".to_owned()]));
        let script = script(&planted, &control, false);
        assert!(Script::from_json(&script, Path::new("canary")).is_ok());
        assert!(Needles::new(planted.named()).found(script.as_bytes()).is_empty());
        assert!(!script.contains(&control));
    }
}
