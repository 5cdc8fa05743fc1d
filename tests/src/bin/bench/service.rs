//! Sessions of the real `steadyhand serve`, through its HTTP API.

use crate::stream::EventStream;
use anyhow::ensure;
use reqwest::Method;
use serde_json::json;
use steadyhand_tests::{
    client::Client,
    service::{Options, Service},
};

/// A service of one process and its hand worker, on an empty folder, with the model at `model_url`.
pub async fn start(model_url: &str) -> anyhow::Result<Service> {
    let model_url = model_url.to_owned();
    Service::start(Options::new(model_url)).await
}

/// Where sessions are made: an agent with all tools, and an environment.
pub struct Workplace {
    client: Client,
    agent: String,
    environment: String,
}

impl Workplace {
    pub async fn new(client: Client) -> anyhow::Result<Self> {
        let agent = json!({"name": "bench", "model": "bench", "tools": [{"type": "agent_toolset_20260401"}]});
        let agent = client.make("/v1/agents", &agent).await?;
        let environment = client.make("/v1/environments", &json!({"name": "bench"})).await?;
        Ok(Workplace { client, agent, environment })
    }

    pub async fn session(&self) -> anyhow::Result<Session> {
        let body = json!({"agent": self.agent, "environment_id": self.environment});
        let path = format!("/v1/sessions/{}", self.client.make("/v1/sessions", &body).await?);
        let stream = format!("{path}/events/stream?event_deltas%5B%5D=agent.message");
        let stream = self.client.request(Method::GET, &stream).send().await?.error_for_status()?;
        Ok(Session { client: self.client.clone(), path, events: EventStream::of(stream) })
    }
}

/// A session and its stream.
pub struct Session {
    client: Client,
    path: String,
    pub events: EventStream,
}

impl Session {
    /// Returns when the message is accepted.
    pub async fn message(&self, text: &str) -> anyhow::Result<()> {
        let event = json!({"type": "user.message", "content": [{"type": "text", "text": text}]});
        let request = self.client.request(Method::POST, &format!("{}/events", self.path));
        let answer = request.json(&json!({"events": [event]})).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "the message was refused: {status}: {text}");
        Ok(())
    }

    /// Until it has nothing left to do.
    pub async fn idle(&mut self) -> anyhow::Result<()> {
        self.events.next("session.status_idle").await.map(drop)
    }

    pub async fn delete(self) -> anyhow::Result<()> {
        self.client.request(Method::DELETE, &self.path).send().await?.error_for_status()?;
        Ok(())
    }
}
