//! `steadyhand doctor`: what this machine has of what a service needs, and what to do about the rest.

use super::worker::hand_program_beside;
use crate::{
    env_vars,
    error::{Code, failed},
    output,
    provider::{Containers, ProviderArgs},
    service::Service,
};
use clap::Args;
use containers::Runtime;
use hand::{
    protocol::{Layer, Need},
    spec::Mode,
};
use rustix::fs::statvfs;
use serde::Serialize;
use std::{
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::Stdio,
};
use tokio::process::Command;

/// Less than this free in the data folder is worth a word, in bytes.
const FREE_BYTES_MIN: u64 = 1 << 30;

/// Check what this machine has of what a service needs
///
/// Tries things out, and changes nothing. Exit code 7 when something is missing without which no tool can run.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    /// The mode that sandboxes are to have: in dev they do without the layers that need privileges
    #[arg(long, env = env_vars::HANDS_MODE, value_name = "MODE", default_value = "strict")]
    hands_mode: Mode,
    #[command(flatten)]
    provider: ProviderArgs,
    #[command(flatten)]
    service: Service,
}

#[derive(Debug, Serialize)]
struct Finding {
    name: String,
    state: State,
    /// What was found.
    why: String,
    /// What to do; empty where nothing is.
    fix: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    /// Works without it, with less.
    Off,
    /// Does not work without it.
    Missing,
}

impl Doctor {
    pub async fn run(self) -> anyhow::Result<()> {
        let containers = self.provider.containers()?;
        let mut findings = sandbox(self.hands_mode, containers).await;
        findings.push(mode(self.hands_mode, &findings));
        findings.push(own_user("hand worker", hand::limits::WORKER_UID));
        findings.push(own_user("egress", hand::limits::EGRESS_UID));
        findings.push(git().await);
        findings.push(model_key());
        findings.push(data_folder(&self.service.data()));
        findings.push(service(&self.service).await);
        for finding in &findings {
            if self.json {
                output::json(&serde_json::to_value(finding)?);
            } else {
                output::line(&finding.text());
            }
        }
        let missing: Vec<_> =
            findings.iter().filter(|finding| finding.state == State::Missing).map(|finding| &*finding.name).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let message = format!("this machine cannot run tools in sandboxes: {}", missing.join(", "));
        Err(failed(Code::Environment, message, "do what is said above under `fix`"))
    }
}

impl Finding {
    fn new(name: &str, state: State, why: impl Into<String>, fix: impl Into<String>) -> Self {
        Finding { name: name.to_owned(), state, why: why.into(), fix: fix.into() }
    }

    fn text(&self) -> String {
        let state = match self.state {
            State::Ok => "ok",
            State::Off => "off",
            State::Missing => "MISSING",
        };
        let line = format!("{state:<7}  {:<13}  {}", self.name, self.why);
        if self.fix.is_empty() { line } else { format!("{line}\n{:<7}  {:<13}  fix: {}", "", "", self.fix) }
    }
}

/// What is the machine's to say, whatever sandboxes are made by.
const OF_MACHINE: [&str; 3] = ["own_uid", "disk_quota", "static_program"];

/// Every layer of the sandbox, tried out by the program that puts them up.
async fn sandbox(mode: Mode, containers: Option<Containers>) -> Vec<Finding> {
    let missing = |why: String| {
        vec![Finding::new("hand", State::Missing, why, "build steadyhand-hand and keep it beside steadyhand")]
    };
    let program = match hand_program_beside() {
        Ok(program) => program,
        Err(error) => return missing(error.to_string()),
    };
    let output = Command::new(&program).arg("probe").env_clear().stdin(Stdio::null()).output().await;
    let layers = output
        .map_err(anyhow::Error::from)
        .and_then(|output| serde_json::from_slice::<Vec<Layer>>(&output.stdout).map_err(anyhow::Error::from));
    match layers {
        Err(error) => missing(format!("{} probe: {error}", program.display())),
        Ok(mut layers) => {
            if let Some(Containers { image, socket }) = containers {
                layers.retain(|layer| OF_MACHINE.contains(&&*layer.name));
                layers.splice(..0, Runtime::new(socket, image, &program).probe().await);
            }
            let found = Finding::new("hand", State::Ok, program.display().to_string(), "");
            [found].into_iter().chain(layers.into_iter().map(|layer| finding(layer, mode))).collect()
        }
    }
}

fn finding(layer: Layer, mode: Mode) -> Finding {
    let state = match (layer.on, layer.need, mode) {
        (true, ..) => State::Ok,
        (false, Need::Always, _) | (false, Need::Strict, Mode::Strict) => State::Missing,
        (false, Need::Strict, Mode::Dev) | (false, Need::Advice, _) => State::Off,
    };
    Finding { name: layer.name, state, why: layer.why, fix: layer.fix }
}

/// What the mode comes to on this machine.
fn mode(mode: Mode, layers: &[Finding]) -> Finding {
    const NAME: &str = "hands mode";
    let is_missing = |layer: &&Finding| layer.state == State::Missing;
    match (mode, layers.iter().any(|layer| is_missing(&layer))) {
        (Mode::Strict, false) => Finding::new(NAME, State::Ok, "strict: sandboxes have every layer", ""),
        (Mode::Strict, true) => {
            let fix =
                "do what is said above, or take weaker sandboxes with --hands-mode dev (STEADYHAND_HANDS_MODE=dev)";
            Finding::new(NAME, State::Missing, "strict: no sandbox is made while a layer is missing", fix)
        }
        (Mode::Dev, _) => {
            let why = "dev: WEAKER, sandboxes do without the layers that are off above";
            Finding::new(NAME, State::Off, why, "leave out --hands-mode where every layer can be had")
        }
    }
}

/// What stands between the service and whoever takes over one of its children.
fn own_user(name: &str, uid: u32) -> Finding {
    if rustix::process::geteuid().is_root() {
        return Finding::new(name, State::Ok, format!("a process of its own, as user {uid}"), "");
    }
    let why = "shares the user of the service, which is not root: who takes it over reads the data folder";
    Finding::new(name, State::Off, why, "run the service as root, which then gives it a user of its own")
}

async fn git() -> Finding {
    let output = Command::new("git").arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output().await;
    match output {
        Ok(output) if output.status.success() => {
            Finding::new("git", State::Ok, String::from_utf8_lossy(&output.stdout).trim(), "")
        }
        _ => Finding::new("git", State::Off, "not found: `run --repo` does not work", "install git"),
    }
}

fn model_key() -> Finding {
    let names = [env_vars::MODEL_KEY, env_vars::ANTHROPIC_API_KEY];
    match names.into_iter().find(|name| std::env::var_os(name).is_some_and(|key| !key.is_empty())) {
        Some(name) => Finding::new("model key", State::Ok, format!("in {name}"), ""),
        None => Finding::new(
            "model key",
            State::Off,
            "not in this environment",
            format!("set {} or {} where the service is started, or use --model-script", names[0], names[1]),
        ),
    }
}

fn data_folder(root: &Path) -> Finding {
    const NAME: &str = "data folder";
    let shown = root.display();
    let metadata = match root.metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Finding::new(NAME, State::Ok, format!("{shown} is not there yet"), "");
        }
        Err(error) => return Finding::new(NAME, State::Off, format!("{shown}: {error}"), "choose another with --data"),
    };
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        let why = format!("{shown} belongs to user {}", metadata.uid());
        return Finding::new(NAME, State::Off, why, "run the service as that user, or choose another with --data");
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let why = format!("{shown} is open to other users (mode {mode:03o})");
        return Finding::new(NAME, State::Off, why, format!("chmod 700 {shown}"));
    }
    match statvfs(root).map(|fs| fs.f_bavail.saturating_mul(fs.f_frsize)) {
        Ok(free) if free < FREE_BYTES_MIN => {
            Finding::new(NAME, State::Off, format!("{shown} has {} MiB free", free >> 20), "make room")
        }
        Ok(free) => Finding::new(NAME, State::Ok, format!("{shown}, {} GiB free", free >> 30), ""),
        Err(error) => Finding::new(NAME, State::Off, format!("{shown}: {error}"), "choose another with --data"),
    }
}

async fn service(service: &Service) -> Finding {
    const NAME: &str = "service";
    let client = match service.client() {
        Ok(client) => client,
        Err(error) => return Finding::new(NAME, State::Off, error.to_string(), "start it with `steadyhand serve`"),
    };
    let base = client.base().as_str().trim_end_matches('/').to_owned();
    if client.is_up().await {
        return Finding::new(NAME, State::Ok, format!("answers at {base}"), "");
    }
    Finding::new(NAME, State::Off, format!("none answers at {base}"), "start it with `steadyhand serve`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_required_layer_is_missing() {
        for (on, need, mode, state) in [
            (true, Need::Always, Mode::Strict, State::Ok),
            (true, Need::Strict, Mode::Strict, State::Ok),
            (false, Need::Always, Mode::Dev, State::Missing),
            (false, Need::Strict, Mode::Strict, State::Missing),
            (false, Need::Strict, Mode::Dev, State::Off),
            (false, Need::Advice, Mode::Strict, State::Off),
        ] {
            let layer = Layer { name: "l".into(), on, need, why: "w".into(), fix: "f".into() };
            assert_eq!(finding(layer, mode).state, state);
        }
    }

    #[test]
    fn a_weaker_mode_is_called_weaker() {
        let off = |state| [Finding::new("l", state, "w", "f")];
        assert_eq!(mode(Mode::Strict, &off(State::Ok)).state, State::Ok);
        let refused = mode(Mode::Strict, &off(State::Missing));
        assert!(refused.state == State::Missing && refused.fix.contains("--hands-mode dev"));
        assert!(mode(Mode::Dev, &off(State::Off)).why.contains("WEAKER"));
    }

    /// What the program prints is what is read here: they are built apart.
    #[test]
    fn a_probe_is_understood() {
        let layers = hand::probe::probe();
        let text = serde_json::to_vec(&layers).unwrap();
        assert_eq!(serde_json::from_slice::<Vec<Layer>>(&text).unwrap(), layers);
    }

    #[test]
    fn a_finding_says_what_to_do_on_a_line_of_its_own() {
        let finding = Finding::new("git", State::Off, "not found", "install git");
        assert_eq!(finding.text(), "off      git            not found\n                        fix: install git");
    }

    #[test]
    fn a_data_folder_open_to_others_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |mode| std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o700);
        assert!(!data_folder(dir.path()).why.contains("open to other users"));
        mode(0o755);
        assert!(data_folder(dir.path()).why.contains("open to other users (mode 755)"));
        assert_eq!(data_folder(&dir.path().join("none")).state, State::Ok);
    }
}
