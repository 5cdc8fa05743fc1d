//! An agent and an environment on a service, and what tests of harnesses do there.

use crate::{
    client::{Client, LoggedEvent},
    long,
    service::Service,
};
use anyhow::{Context as _, ensure};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::watch;

/// How often something is looked at that nobody tells of: a rollout's resource has no stream, and a service on its way down or up
/// says nothing that could be waited for.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Clone)]
pub struct Ground {
    pub client: Client,
    agent: String,
    environment: String,
}

impl Ground {
    pub async fn new(service: &Service) -> anyhow::Result<Self> {
        let client = service.client();
        let agent = client.make("/v1/agents", &json!({"name": "tester", "model": "scripted"})).await?;
        let environment = client.make("/v1/environments", &json!({"name": "here"})).await?;
        Ok(Ground { client, agent, environment })
    }

    pub async fn session(&self) -> anyhow::Result<String> {
        self.client.make("/v1/sessions", &json!({"agent": self.agent, "environment_id": self.environment})).await
    }

    /// A session after its first turn, with the harness that it was given.
    pub async fn turn(&self) -> anyhow::Result<(String, Vec<LoggedEvent>, String)> {
        let event = json!({"type": "user.message", "content": [{"type": "text", "text": "go"}]});
        let body = json!({"agent": self.agent, "environment_id": self.environment, "initial_events": [event]});
        let id = self.client.make("/v1/sessions", &body).await?;
        let events = self.client.until(&id, |events| events.last().is_some_and(LoggedEvent::is_idle)).await?;
        let harness = self.harness(&id).await?;
        Ok((id, events, harness))
    }

    /// Adds a module.
    pub async fn add(&self, module: Vec<u8>) -> anyhow::Result<()> {
        let answer = self.client.request(Method::POST, "/v1/harnesses").body(module).send().await?;
        ensure!(answer.status() == StatusCode::OK, "{}", answer.text().await?);
        Ok(())
    }

    /// Asks for another harness until the service took it: it may be on its way back. Asked twice it is swapped once more, to the
    /// same.
    pub async fn swap(&self, session: &str, harness: &str) -> anyhow::Result<()> {
        let path = format!("/v1/sessions/{session}/harness");
        let taken = looked(|| async {
            match self.client.call(Method::POST, &path, Some(&json!({"harness": harness}))).await {
                Ok((StatusCode::OK, _)) => Ok(Some(())),
                Ok((status, refused)) if status.is_client_error() => anyhow::bail!("{status}: {refused}"),
                _ => Ok(None),
            }
        });
        taken.await.context("the swap is not taken")
    }

    /// What a session began with, and what it was swapped to on the way.
    pub async fn harnesses(&self, session: &str) -> anyhow::Result<Vec<String>> {
        let recording = self.client.ok(Method::GET, &format!("/v1/sessions/{session}/recording"), None).await?;
        let commits = recording["commits"].as_array().context("it has commits")?;
        let takes = commits.iter().filter_map(|commit| commit["commit"]["takes"].as_array()).flatten();
        let swapped = takes.map(|take| &take["entry"]).filter(|entry| entry["entry"] == "swapped");
        let named =
            |harness: &Value| format!("{}@{}", harness["name"].as_str().unwrap_or_default(), harness["version"]);
        let first = named(&recording["genesis"]["harness"]);
        Ok(std::iter::once(first).chain(swapped.map(|entry| named(&entry["to"]))).collect())
    }

    pub async fn harness(&self, session: &str) -> anyhow::Result<String> {
        self.harnesses(session).await?.pop().context("it has a harness")
    }

    /// Until a session holds a harness.
    pub async fn holds(&self, session: &str, harness: &str) -> anyhow::Result<()> {
        let held = looked(|| async { Ok((self.harness(session).await? == harness).then_some(())) });
        held.await.with_context(|| format!("{session} does not come to hold {harness}"))
    }

    pub async fn rollout(&self, body: &Value) -> anyhow::Result<String> {
        self.client.make("/v1/harness_rollouts", body).await
    }

    pub async fn look(&self, rollout: &str) -> anyhow::Result<Value> {
        self.client.ok(Method::GET, &format!("/v1/harness_rollouts/{rollout}"), None).await
    }

    /// A rollout once it is like that. The service may be on its way back.
    pub async fn until(&self, rollout: &str, is_it: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let last = watch::Sender::new(Value::Null);
        let found = looked(|| async {
            let Ok(shown) = self.look(rollout).await else { return Ok(None) };
            if is_it(&shown) {
                return Ok(Some(shown));
            }
            last.send_replace(shown);
            Ok(None)
        });
        found.await.with_context(|| format!("the rollout does not get there: {:#}", *last.borrow()))
    }
}

/// Looks until there is something.
async fn looked<T, L: Future<Output = anyhow::Result<Option<T>>>>(look: impl Fn() -> L) -> anyhow::Result<T> {
    let looking = async {
        let mut ticks = tokio::time::interval(LOOK);
        loop {
            ticks.tick().await;
            if let Some(found) = look().await? {
                return Ok(found);
            }
        }
    };
    tokio::time::timeout(long::patience(), looking).await?
}
