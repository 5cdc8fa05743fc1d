//! Packages of an environment: installed once, by a hand that does nothing else, and then read by every hand of the
//! environment's sessions.
//!
//! That hand has the environment's network and nothing of a session: no variable, no repository, no file, so that what
//! packages run while they are installed finds nothing that other sessions should not see. Whoever comes while it is at work
//! waits for it, and a worker that follows on one that was lost finds its calls; what failed is tried again by the next hand.

use super::{Executed, Local, Provider as _, ToolCall};
use domain::{
    Failure,
    content::Block,
    egress::installer,
    event::{ErrorBody, ErrorKind, RetryStatus},
    failure::FailureKind,
    ids,
    packages::{Manager, Packages},
    session::ProvisionInput,
};
use hand::spec::{Egress, Owner, Shelf};
use serde_json::json;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};
use tokio::{sync::OwnedMutexGuard, task::spawn_blocking};

/// What one manager may take for all of its packages. The shim bounds it too; whoever asked for the hand may have gone.
const INSTALL_WITHIN_MS: u64 = 540_000;
const NAME_CHARS: usize = 40;
/// What is shown of a manager's own words.
const SAID_CHARS: usize = 300;

/// Who fills a shelf at this time: one hand worker a machine does, and for each shelf one of its activities.
#[derive(Default)]
pub struct Filling(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Filling {
    async fn turn(&self, name: &str) -> OwnedMutexGuard<()> {
        let turn = Arc::clone(self.0.lock().expect("no holder panics").entry(name.to_owned()).or_default());
        turn.lock_owned().await
    }
}

/// What the session's hand reads; none without packages. What could not be installed is an error of the session, and its
/// hands go without.
pub async fn shelf(
    local: &Local,
    input: &ProvisionInput,
    egress: &Egress,
    packages: &Packages,
) -> Result<Result<Option<Shelf>, ErrorBody>, Failure> {
    if packages.is_empty() {
        return Ok(Ok(None));
    }
    let name = name(&input.environment_id, packages, egress, local.image.as_deref());
    let _turn = local.filling.turn(&name).await;
    if !local.hands.has_shelf(&name)
        && let Err((manager, said)) = fill(local, input, egress, packages, &name).await?
    {
        let what = format!("the environment's {} packages could not be installed: {said}", manager.name());
        let (kind, retry_status) = (ErrorKind::Unknown, RetryStatus::Retrying);
        return Ok(Err(ErrorBody { kind, message: what, retry_status }));
    }
    Ok(Ok(Some(Shelf::Read(name))))
}

/// An environment's lists, where they are installed from, and the image that they are installed for. Of one environment, as
/// another's code may have run there.
fn name(environment_id: &str, packages: &Packages, egress: &Egress, image: Option<&str>) -> String {
    let of = match image {
        None => json!([environment_id, packages, egress.registries]),
        Some(image) => json!([environment_id, packages, egress.registries, image]),
    };
    let mut name = ids::content_hash(of.to_string().as_bytes());
    name.truncate(NAME_CHARS);
    name
}

async fn fill(
    local: &Local,
    input: &ProvisionInput,
    egress: &Egress,
    packages: &Packages,
    name: &str,
) -> Result<Result<(), (Manager, String)>, Failure> {
    let mut spec = local.hands.spec(&format!("shelf-{name}"));
    spec.owner = Some(Owner::new(local.host.clone(), input.session_id.clone()));
    spec.shelf = Some(Shelf::Fill(name.to_owned()));
    let dir = egress.dir.with_file_name(installer(&input.session_id));
    spec.egress = Some(Egress { dir, registries: egress.registries.clone(), ..Egress::default() });
    let hand = local.make(spec).await?;
    for (manager, packages) in packages {
        let command = command(*manager, packages);
        let call = ToolCall {
            id: format!("install-{}", manager.name()),
            name: "bash".to_owned(),
            input: json!({"command": command, "timeout_ms": INSTALL_WITHIN_MS}),
        };
        let executed = local.execute(&hand, call).await;
        if executed.is_error {
            local.release(&hand).await?;
            return Ok(Err((*manager, last_words(&executed))));
        }
    }
    let hands = local.hands.clone();
    let kept = spawn_blocking(move || hands.keep_shelf(&hand.hand, hand.epoch)).await;
    let failed = |error: &dyn std::error::Error| Failure::transient(FailureKind::Internal, hand::error_chain(error));
    kept.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    Ok(Ok(()))
}

/// Unpacks packages of the system beside it.
const APT: &str = include_str!("packages/apt.sh");

/// Each manager has a folder of its own, with its programs in `bin`. What it needs for its work goes away with the hand.
fn command(manager: Manager, packages: &[String]) -> String {
    let names = packages.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(" ");
    let install = match manager {
        Manager::Pip => {
            format!(
                "python3 -m pip install -q --no-input --no-cache-dir --disable-pip-version-check \
                 --target /opt/packages/pip -- {names}"
            )
        }
        Manager::Npm => format!(
            "npm install --global --prefix /opt/packages/npm --no-audit --no-fund --no-update-notifier \
             --loglevel=error -- {names}"
        ),
        // What follows `--` would be for the compiler.
        Manager::Gem => format!(
            "gem install -q --no-document --install-dir /opt/packages/gem --bindir /opt/packages/gem/bin {names}"
        ),
        Manager::Cargo => format!("cargo install -q --root /opt/packages/cargo -- {names}"),
        Manager::Go => {
            let newest =
                |name: &String| if name.contains('@') { quoted(name) } else { quoted(&format!("{name}@latest")) };
            let names = packages.iter().map(newest).collect::<Vec<_>>().join(" ");
            format!("for name in {names}; do GOBIN=/opt/packages/go/bin GOFLAGS=-modcacherw go install \"$name\"; done")
        }
        Manager::Apt => format!("set -- {names}\n{APT}"),
    };
    // /tmp is memory, and small. Hands of other users read what is installed.
    format!(
        "(set -e; cd /; umask 022; export TMPDIR=\"$HOME/tmp\"; mkdir -p \"$TMPDIR\"\n{install}\nchmod -R a+rX /opt/packages)"
    )
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// The last line that says something.
fn last_words(executed: &Executed) -> String {
    let text = executed.content.iter().filter_map(|block| match block {
        Block::Text { text } => Some(text.as_str()),
        _ => None,
    });
    let said = text.collect::<Vec<_>>().join("\n");
    let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
    let tells = |line: &&str| {
        ["ERROR: ", "E: ", "npm error"].iter().any(|begin| line.starts_with(begin)) || line.contains("not found")
    };
    let line = lines().find(tells).or_else(|| lines().next_back()).unwrap_or("it did not say why");
    line.chars().take(SAID_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_package_is_one_word_whatever_it_is_called() {
        for name in ["requests==2.0", "a'b", "$(touch x)", "`id`;", "a\"b\\", "rails:7.0", "@scope/name"] {
            let output = Command::new("/bin/sh").args(["-c", &format!("printf %s {}", quoted(name))]).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), name);
        }
    }

    #[test]
    fn every_manager_installs_into_a_folder_of_its_own() {
        for manager in Manager::ALL {
            let command = command(manager, &["a".to_owned(), "b@1".to_owned()]);
            assert!(command.contains(&format!("/opt/packages/{}", manager.name())), "{command}");
        }
        assert!(command(Manager::Apt, &["a=1".to_owned()]).contains("\nset -- 'a=1'\n"));
        assert!(command(Manager::Go, &["a".to_owned(), "b@1".to_owned()]).contains("'a@latest' 'b@1'"));
    }

    #[test]
    fn lists_environments_and_registries_have_shelves_of_their_own() {
        let list = |name: &str| Packages::from([(Manager::Pip, vec![name.to_owned()])]);
        let mirror = Egress {
            registries: [("PIP_INDEX_URL".to_owned(), "https://m.test".to_owned())].into(),
            ..Egress::default()
        };
        let names = [
            name("env_1", &list("a"), &Egress::default(), None),
            name("env_1", &list("b"), &Egress::default(), None),
            name("env_2", &list("a"), &Egress::default(), None),
            name("env_1", &list("a"), &mirror, None),
            name("env_1", &list("a"), &Egress::default(), Some("image")),
        ];
        for (n, name) in names.iter().enumerate() {
            assert!(!names[..n].contains(name) && hand::spec::is_hand_id(&format!("shelf-{name}")), "{name}");
        }
        assert_eq!(names[0], name("env_1", &list("a"), &Egress::default(), None));
    }

    #[test]
    fn what_went_wrong_is_said_in_a_line() {
        let said = "Looking...\nERROR: No matching distribution found for nope\n\n[exit code 1]";
        assert_eq!(last_words(&Executed::error(said)), "ERROR: No matching distribution found for nope");
        assert_eq!(last_words(&Executed::error("one\ntwo\n")), "two");
        let said = "W: x\nE: Unable to locate package nope\n\n[exit code 100]";
        assert_eq!(last_words(&Executed::error(said)), "E: Unable to locate package nope");
        assert!(last_words(&Executed::error("bash: line 2: gem: command not found\nexit 127")).contains("gem"));
    }
}
