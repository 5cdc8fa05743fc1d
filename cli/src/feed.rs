//! A session's events from a position on, for ever: history first, then the stream, and the stream again whenever it
//! breaks. Each event comes once, in order, with its position.

use crate::{
    client::{Client, Query, is_not_found, is_unreachable},
    service::Service,
    sse::Parser,
};
use futures::StreamExt as _;
use reqwest::Response;
use serde_json::Value;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Pause before a stream that broke is opened again: grows while it stays broken.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long a service may be gone before the feed gives up: it may be being restarted.
const GONE_MAX: Duration = Duration::from_secs(60);
/// The service pings every 15 s; a stream silent for longer is dead.
const SILENT_MAX: Duration = Duration::from_secs(45);
/// Items that may wait to be taken.
const WAITING_MAX: usize = 64;

#[derive(Debug)]
pub enum Item {
    Event {
        position: u64,
        event: Value,
    },
    /// `event_start` or `event_delta`: a preview of an event that comes later, or never.
    Preview(Value),
    /// The stream broke; it is being opened again.
    Lost,
    /// It is open again.
    Back,
}

pub struct Options {
    /// The first position wanted.
    pub from: u64,
    /// Whether previews of messages are wanted.
    pub previews: bool,
}

/// Starts reading. The channel ends after the session's last event, or with the failure that nothing can be done
/// about. Must be called within a runtime; dropping the receiver ends the reading.
pub fn open(service: Service, session_id: String, options: Options) -> mpsc::Receiver<anyhow::Result<Item>> {
    let (items, receiver) = mpsc::channel(WAITING_MAX);
    let Options { from, previews } = options;
    let feed = Feed { service, session_id, next: from, previews, reached: false, items };
    tokio::spawn(feed.run());
    receiver
}

struct Feed {
    service: Service,
    session_id: String,
    /// The position of the next event to give.
    next: u64,
    previews: bool,
    /// The service answered at least once: when it does not now, it may be back soon.
    reached: bool,
    items: mpsc::Sender<anyhow::Result<Item>>,
}

/// Why reading stopped.
enum End {
    /// The last event was given, or nobody listens any more.
    Done,
    /// The stream ended and can be opened again; `heard` when something came before.
    Broken {
        heard: bool,
    },
    Failed(anyhow::Error),
}

impl Feed {
    async fn run(mut self) {
        let mut seen = Instant::now();
        let mut pause = PAUSE_FIRST;
        let mut lost = false;
        loop {
            match self.read(&mut lost).await {
                End::Done => return,
                End::Broken { heard } => {
                    if heard {
                        (seen, pause) = (Instant::now(), PAUSE_FIRST);
                    }
                }
                End::Failed(error) if self.reached && is_unreachable(&error) && seen.elapsed() < GONE_MAX => {}
                End::Failed(error) => {
                    // A receiver that is gone wants no failure either.
                    let _ = self.items.send(Err(error)).await;
                    return;
                }
            }
            if !lost {
                lost = true;
                if self.items.send(Ok(Item::Lost)).await.is_err() {
                    return;
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn read(&mut self, lost: &mut bool) -> End {
        // Asked anew each time: a service that was started again has another address.
        let client = match self.service.client() {
            Ok(client) => client,
            Err(error) => return End::Failed(error),
        };
        match self.open(&client).await {
            Ok(Some(stream)) => {
                self.reached = true;
                if std::mem::take(lost) && self.items.send(Ok(Item::Back)).await.is_err() {
                    return End::Done;
                }
                self.listen(stream).await
            }
            Ok(None) => End::Done,
            Err(error) => End::Failed(error),
        }
    }

    /// Opens the stream behind what was given. The first time there is nothing to resume behind: what the log has is
    /// listed once the stream is open, so that nothing falls between.
    async fn open(&mut self, client: &Client) -> anyhow::Result<Option<Response>> {
        if let Some(last) = self.next.checked_sub(1) {
            return match client.stream(&self.session_id, Some(last), self.previews).await {
                Err(error) if self.reached && is_not_found(&error) => Ok(None),
                stream => stream.map(Some),
            };
        }
        let stream = client.stream(&self.session_id, None, self.previews).await?;
        let path = ["v1", "sessions", &self.session_id, "events"];
        for event in client.list(&path, &Query::new(), usize::MAX).await? {
            // Positions are dense; what has no time yet has no position and comes again.
            if !event["processed_at"].is_null() && self.give(self.next, event).await.is_err() {
                return Ok(None);
            }
        }
        Ok(Some(stream))
    }

    async fn listen(&mut self, stream: Response) -> End {
        let mut bytes = stream.bytes_stream();
        let mut parser = Parser::default();
        let mut heard = false;
        while let Ok(Some(Ok(chunk))) = tokio::time::timeout(SILENT_MAX, bytes.next()).await {
            heard = true;
            let messages = match parser.push(&chunk) {
                Ok(messages) => messages,
                Err(error) => return End::Failed(error.into()),
            };
            for message in messages {
                let Ok(event) = serde_json::from_str::<Value>(&message.data) else { continue };
                let position = message.id.and_then(|id| id.parse().ok());
                let given = match (position, event["type"].as_str().unwrap_or_default()) {
                    (Some(position), _) if position < self.next => Ok(()),
                    (Some(position), _) => self.give(position, event).await,
                    (None, "event_start" | "event_delta") => {
                        self.items.send(Ok(Item::Preview(event))).await.map_err(drop)
                    }
                    // The last message: it is not in the log, which is gone.
                    (None, "session.deleted") => {
                        let _ = self.items.send(Ok(Item::Event { position: self.next, event })).await;
                        Err(())
                    }
                    // A ping, or an event that waits: it comes again with its position.
                    (None, _) => Ok(()),
                };
                if given.is_err() {
                    return End::Done;
                }
            }
        }
        End::Broken { heard }
    }

    /// `Err` when nothing more is to be given.
    async fn give(&mut self, position: u64, event: Value) -> Result<(), ()> {
        let is_last = event["type"] == "session.status_terminated";
        self.next = position + 1;
        self.items.send(Ok(Item::Event { position, event })).await.map_err(drop)?;
        if is_last { Err(()) } else { Ok(()) }
    }
}
