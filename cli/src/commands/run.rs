//! `steadyhand run`: one task from its words to its end. Starts the service if there is none.

use super::{
    file,
    session::{confirm_answer, user_message},
};
use crate::{
    ask::{self, Answers, Verdict},
    bundle,
    client::Client,
    env_vars,
    error::{Code, failed},
    feed::{self, Item},
    launch,
    live::{Display, Mode},
    output, presets,
    render::{self, one_line},
    service::Service,
};
use clap::Args;
use serde_json::{Value, json};
use std::{path::Path, time::Duration};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

/// How often the time on the last line moves on.
const TICK: Duration = Duration::from_secs(1);
const TITLE_CHARS: usize = 80;

/// Run a task and show what the agent does
///
/// Starts the service if none answers. The agent's last words go to standard output, everything else to standard
/// error. The first ctrl-c interrupts the agent, the second leaves it to itself.
#[derive(Debug, Args)]
pub struct Run {
    /// What to do
    task: String,
    /// A git repository to work in: a folder, of which what is committed is cloned into the sandbox, or an https URL
    #[arg(long, value_name = "DIR|URL")]
    repo: Option<String>,
    /// The branch of that URL to begin on [default: the repository's own]
    #[arg(long, value_name = "NAME", requires = "repo")]
    branch: Option<String>,
    /// A token for that URL; it goes to egress and is nowhere in the sandbox
    #[arg(long, value_name = "TOKEN", env = env_vars::REPO_TOKEN, hide_env_values = true, hide = true)]
    repo_token: Option<String>,
    /// An agent, by its id or as a JSON or TOML file [default: one made for this]
    #[arg(long, value_name = "ID|FILE")]
    agent: Option<String>,
    /// Id of the model [default: the agent's]
    #[arg(long, value_name = "ID")]
    model: Option<String>,
    /// What decides the session's steps, as in loop@2 [default: the service's]
    #[arg(long, value_name = "HARNESS")]
    harness: Option<String>,
    /// What the session is called in lists [default: the beginning of the task]
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// Print every event as one line of JSON instead
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    service: Service,
}

/// How a session came to rest, or why it is watched no more.
enum Ended {
    /// `stop_reason` of the last `session.status_idle`.
    Idle(Value),
    Terminated,
    Deleted,
    /// The second ctrl-c.
    Left,
}

impl Run {
    pub async fn run(self) -> anyhow::Result<()> {
        if self.task.trim().is_empty() {
            return Err(failed(Code::Usage, "the task is empty", "say what is to be done"));
        }
        let client = launch::find_or_start(&self.service).await?;
        let session_id = presets::id_of(&self.create(&client).await?)?;
        let mode = match (self.json, output::is_live()) {
            (true, _) => Mode::Json,
            (false, true) => Mode::Live,
            (false, false) => Mode::Lines,
        };
        output::note(&format!("session {session_id}"));
        let mut following = Following::start(self.service, session_id, mode)?;
        let ended = following.until_ended().await;
        following.display.finish(&following.session_id);
        let outcome = following.outcome(ended?);
        if outcome.is_ok() && self.repo.is_some() {
            output::note(&format!("hint: steadyhand session diff {}", following.session_id));
        }
        outcome
    }

    async fn create(&self, client: &Client) -> anyhow::Result<Value> {
        let mut resources = Vec::new();
        if let Some(url) = self.repo.as_deref().filter(|repo| is_url(repo)) {
            let checkout = self.branch.as_ref().map(|name| json!({"type": "branch", "name": name}));
            resources.push(json!({
                "type": "github_repository",
                "url": url,
                "authorization_token": self.repo_token,
                "checkout": checkout,
            }));
        } else if let Some(repo) = &self.repo {
            if self.branch.is_some() {
                let hint = "check it out in the folder: what is committed there is what the agent gets";
                return Err(failed(Code::Usage, "--branch is for a repository that is given as a URL", hint));
            }
            let repo = Path::new(repo);
            let bundle = bundle::make(repo).await?;
            if bundle.uncommitted > 0 {
                let count = bundle.uncommitted;
                output::note(&format!(
                    "changes that are not committed stay here, and the agent does not see them: {count}"
                ));
            }
            let file = file::upload(client, bundle.file.path()).await?;
            resources.push(json!({"type": "git_bundle", "file_id": presets::id_of(&file)?}));
        }
        let body = json!({
            "agent": presets::agent(client, self.agent.as_deref(), self.model.as_deref()).await?,
            "environment_id": presets::environment(client).await?,
            "title": self.title.clone().unwrap_or_else(|| one_line(&self.task, TITLE_CHARS)),
            "resources": resources,
            "initial_events": [user_message(&self.task)],
            "harness": self.harness,
        });
        client.post(&["v1", "sessions"], &body).await
    }
}

fn is_url(repo: &str) -> bool {
    repo.contains("://")
}

struct Following {
    service: Service,
    session_id: String,
    display: Display,
    items: mpsc::Receiver<anyhow::Result<Item>>,
    ctrl_c: Signal,
    was_interrupted: bool,
    answers: Option<Answers>,
    /// What `session.error` said last.
    error: Option<String>,
}

impl Following {
    fn start(service: Service, session_id: String, mode: Mode) -> anyhow::Result<Self> {
        let options = feed::Options { from: 0, previews: mode == Mode::Live };
        Ok(Following {
            items: feed::open(service.clone(), session_id.clone(), options),
            display: Display::new(mode),
            ctrl_c: signal(SignalKind::interrupt())?,
            was_interrupted: false,
            answers: None,
            error: None,
            service,
            session_id,
        })
    }

    async fn until_ended(&mut self) -> anyhow::Result<Ended> {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                item = self.items.recv() => match item {
                    None => return Ok(Ended::Deleted),
                    Some(item) => if let Some(ended) = self.item(item?).await? {
                        return Ok(ended);
                    },
                },
                _ = self.ctrl_c.recv() => if !self.interrupt().await {
                    return Ok(Ended::Left);
                },
                _ = tick.tick() => self.display.redraw(),
            }
        }
    }

    async fn item(&mut self, item: Item) -> anyhow::Result<Option<Ended>> {
        let event = match item {
            Item::Event { event, .. } => event,
            Item::Preview(preview) => {
                self.display.preview(&preview);
                return Ok(None);
            }
            Item::Lost => {
                self.display.note("* the connection to the service broke off, trying again");
                return Ok(None);
            }
            Item::Back => {
                self.display.note("* the service is back");
                return Ok(None);
            }
        };
        self.display.event(&event);
        match event["type"].as_str().unwrap_or_default() {
            "session.error" => self.error = Some(render::summary(&event)),
            "session.status_terminated" => return Ok(Some(Ended::Terminated)),
            "session.deleted" => return Ok(Some(Ended::Deleted)),
            "session.status_idle" => {
                let reason = event["stop_reason"].clone();
                if reason["type"] != "requires_action" || !self.answer(&reason).await? {
                    return Ok(Some(Ended::Idle(reason)));
                }
            }
            _ => {}
        }
        Ok(None)
    }

    /// False the second time: then the session is left to itself.
    async fn interrupt(&mut self) -> bool {
        if std::mem::replace(&mut self.was_interrupted, true) {
            return false;
        }
        self.display.note("* interrupting; ctrl-c again leaves the session to itself");
        if let Err(error) = self.send(&[json!({"type": "user.interrupt"})]).await {
            self.display.note(&format!("! the interrupt was not sent: {error:#}"));
        }
        true
    }

    async fn send(&self, events: &[Value]) -> anyhow::Result<()> {
        self.service.client()?.send_events(&self.session_id, events).await.map(drop)
    }

    /// Asks about every call that the session waits for. False when nobody here can answer.
    async fn answer(&mut self, reason: &Value) -> anyhow::Result<bool> {
        let ids = reason["event_ids"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let calls: Option<Vec<Value>> = ids
            .map(|id| self.display.progress.call(id).filter(|call| call["evaluated_permission"] == "ask").cloned())
            .collect();
        let Some(calls) = calls.filter(|calls| !calls.is_empty() && ask::is_possible()) else { return Ok(false) };
        let answers = self.answers.get_or_insert_with(Answers::listen);
        let mut events = Vec::new();
        for call in &calls {
            self.display.clear();
            let verdict = tokio::select! {
                verdict = answers.ask(call) => verdict,
                _ = self.ctrl_c.recv() => {
                    output::note("");
                    // The service closes the calls, and the session comes to rest again.
                    return Ok(self.interrupt().await);
                }
            };
            let Some(verdict) = verdict else { return Ok(false) };
            let id = call["id"].as_str().unwrap_or_default();
            events.push(match &verdict {
                Verdict::Allow => confirm_answer(id, true, None),
                Verdict::Deny { reason } => confirm_answer(id, false, reason.as_deref()),
            });
        }
        self.send(&events).await?;
        Ok(true)
    }

    fn outcome(&self, ended: Ended) -> anyhow::Result<()> {
        let id = &self.session_id;
        let unfinished = |message: String, hint: String| Err(failed(Code::Unfinished, message, hint));
        let reason = match ended {
            Ended::Terminated => return unfinished("the session was terminated".to_owned(), show(id)),
            Ended::Deleted => return unfinished("the session was deleted".to_owned(), "start another".to_owned()),
            Ended::Left => {
                let hint = format!("it goes on: steadyhand session watch {id}");
                return unfinished("left the session to itself".to_owned(), hint);
            }
            Ended::Idle(reason) => reason,
        };
        match reason["type"].as_str().unwrap_or_default() {
            "end_turn" if self.was_interrupted => unfinished(
                "the task was interrupted".to_owned(),
                format!("go on with: steadyhand session send {id} TEXT"),
            ),
            "end_turn" => Ok(()),
            "requires_action" => unfinished(
                format!("the session waits for an answer to {}", events(&reason)),
                format!("steadyhand session confirm {id} --allow (or --deny), then steadyhand session watch {id}"),
            ),
            other => {
                let why = self.error.as_ref().map_or_else(String::new, |error| format!(": {error}"));
                unfinished(format!("the turn ended with {other}{why}"), show(id))
            }
        }
    }
}

fn show(id: &str) -> String {
    format!("steadyhand session events {id} shows what happened")
}

fn events(reason: &Value) -> String {
    let ids = reason["event_ids"].as_array().into_iter().flatten().filter_map(Value::as_str);
    ids.collect::<Vec<_>>().join(", ")
}
