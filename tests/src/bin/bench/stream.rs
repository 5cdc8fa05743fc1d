//! A session's event stream, each event with the time at which it came.

use crate::clock;
use anyhow::{Context as _, bail};
use futures::StreamExt as _;
use std::time::Duration;
use tokio::sync::mpsc;

/// How long an event may be awaited.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct EventStream(mpsc::UnboundedReceiver<(String, Duration)>);

impl EventStream {
    /// Reads in the background, so that whoever waits for something else meanwhile delays no time.
    pub fn of(response: reqwest::Response) -> Self {
        let (tell, events) = mpsc::unbounded_channel();
        tokio::spawn(read(response, tell));
        EventStream(events)
    }

    /// When the next event of this name came; what came before is dropped.
    pub async fn next(&mut self, name: &str) -> anyhow::Result<Duration> {
        let finding = async {
            while let Some((got, at)) = self.0.recv().await {
                if got == name {
                    return Ok(at);
                }
                if got == "session.error" {
                    bail!("the session has an error instead of {name}");
                }
            }
            bail!("the stream ended before {name}")
        };
        tokio::time::timeout(PATIENCE, finding).await.with_context(|| format!("{name} does not come"))?
    }
}

async fn read(response: reqwest::Response, tell: mpsc::UnboundedSender<(String, Duration)>) {
    let mut chunks = response.bytes_stream();
    let mut rest = Vec::new();
    while let Some(Ok(chunk)) = chunks.next().await {
        let at = clock::now();
        rest.extend_from_slice(&chunk);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let Some(name) = line.strip_prefix(b"event: ") else { continue };
            let name = String::from_utf8_lossy(name).trim_end().to_owned();
            if tell.send((name, at)).is_err() {
                return;
            }
        }
    }
}
