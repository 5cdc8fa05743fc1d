//! The stream of a session: events as they are committed, and previews of what is being written.

pub mod only;
mod previews;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, State};
use domain::{Event, ids as derived};
use http::HeaderMap;
use log::follow::{Followed, Update};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Interval;

use self::only::StreamOnly;
use self::previews::{Previews, Wanted};
use super::events::list;
use super::events::public::{PublicEvent, public_event};
use super::sessions::{moment, row};
use crate::app::App;
use crate::auth::{Principal, access};
use crate::deltas::{Listening, Live};
use crate::error::{ApiError, Result};
use crate::media::{Events, Sent};
use crate::operation::get;
use crate::query::{Param, Query};
use crate::router::{Resource, Route};
use crate::sse::{self, Message};

pub const RESOURCE: Resource = Resource {
    name: "session streams",
    routes: &[Route { path: "/v1/sessions/{session_id}/events/stream", methods: || get(stream).query(params()) }],
};

const LAST_EVENT_ID: &str = "last-event-id";
/// The SDKs give up on a stream that is silent for 600 s.
const PING_EVERY: Duration = Duration::from_secs(15);
/// Positions that are read at a time where a stream is behind.
const WINDOW: u64 = 256;

/// What a stream takes.
pub fn params() -> [Param; 1] {
    [previews::param()]
}

async fn stream(
    State(app): State<App>,
    Path(session_id): Path<String>,
    query: Query,
    Extension(principal): Extension<Principal>,
    headers: HeaderMap,
) -> Result<Sent<Events>> {
    open(app, session_id, &query, &headers, principal).await
}

/// Opens a stream. Whatever is committed once this returns is on it.
pub async fn open(
    app: App,
    session_id: String,
    query: &Query,
    headers: &HeaderMap,
    principal: Principal,
) -> Result<Sent<Events>> {
    row::find(&app, &session_id).await?;
    let wanted = Wanted::of(query)?;
    let resume = headers.get(LAST_EVENT_ID).map(last_position).transpose()?;
    let live = app.deltas.listen(&session_id);
    let followed = app.session(&session_id);
    let (updates, next, previews) = {
        // Nobody publishes while the log is held: what is read here is told no more, what comes later is.
        let mut log = followed.fresh().await?;
        let updates = followed.subscribe();
        let end = list::end(&log);
        let open_span = Previews::is_span_open(&mut log, &*app.blobs).await?;
        let next = resume.map_or(end, |last| last.saturating_add(1).min(end));
        (updates, next, Previews::new(wanted, open_span))
    };
    followed.follow();
    let mut pings = tokio::time::interval(PING_EVERY);
    pings.reset();
    let stream = SessionStream {
        closing: Box::pin(app.closing()),
        app,
        principal,
        session_id,
        followed,
        updates,
        live,
        previews,
        pings,
        next,
        ready: VecDeque::new(),
        course: if resume.is_some() { Course::Behind } else { Course::Live },
    };
    let messages = futures::stream::unfold(stream, |mut stream| async {
        let message = stream.message().await?;
        Some((message, stream))
    });
    Ok(Sent::new(sse::response(messages)))
}

fn last_position(value: &http::HeaderValue) -> Result<u64> {
    let position = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    position.ok_or_else(|| ApiError::field(LAST_EVENT_ID, "must be the id of an event of this stream"))
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Course {
    Live,
    /// The log has events that the updates will not tell: they are read there.
    Behind,
    /// Nothing more is committed; what is left in the log is sent, then the stream ends.
    Ending,
    Ended,
}

struct SessionStream {
    app: App,
    /// Whose stream it is.
    principal: Principal,
    session_id: String,
    followed: Arc<Followed>,
    updates: broadcast::Receiver<Update>,
    live: Listening,
    previews: Previews,
    pings: Interval,
    closing: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// The position of the next event to send.
    next: u64,
    ready: VecDeque<Message>,
    course: Course,
}

enum Heard {
    Update(Result<Update, RecvError>),
    Live(Live),
    Ping,
    Closing,
}

impl SessionStream {
    /// The next message; `None` at the end of the stream.
    async fn message(&mut self) -> Option<Message> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Some(message);
            }
            let went_on = match self.course {
                Course::Ended => return None,
                Course::Live => self.hear().await,
                Course::Behind => self.read_on(Course::Live).await,
                Course::Ending => self.end().await,
            };
            if let Err(error) = went_on {
                // The client opens another stream and goes on where this one broke off.
                tracing::warn!(
                    session_id = self.session_id,
                    error = error.message(),
                    "stream broken off: the log cannot be read"
                );
                return None;
            }
        }
    }

    async fn hear(&mut self) -> Result<()> {
        let heard = tokio::select! {
            biased;
            () = &mut self.closing => Heard::Closing,
            live = self.live.next() => Heard::Live(live),
            update = self.updates.recv() => Heard::Update(update),
            _ = self.pings.tick() => Heard::Ping,
        };
        match heard {
            Heard::Closing => self.course = Course::Ended,
            // Whoever would not be let in any more has seen enough.
            Heard::Ping if !access::stands(&self.app, &self.principal).await? => self.course = Course::Ended,
            Heard::Ping => self.ready.push_back(StreamOnly::Ping {}.message()),
            Heard::Live(Live::Delta(delta)) => self.ready.extend(self.previews.delta(&delta)),
            Heard::Live(Live::Deleted) => self.deleted(),
            Heard::Update(Ok(Update::Accepted(event))) => self.accepted(&event).await?,
            Heard::Update(Ok(Update::Committed { position, event })) => self.committed(position, &event).await?,
            Heard::Update(Ok(Update::Closed) | Err(RecvError::Closed)) => self.course = Course::Ending,
            Heard::Update(Err(RecvError::Lagged(_))) => self.course = Course::Behind,
        }
        Ok(())
    }

    /// A queued event has no position: it comes again once it has.
    async fn accepted(&mut self, event: &Event) -> Result<()> {
        let PublicEvent(data) = public_event(&*self.app.blobs, event.clone()).await?;
        self.ready.push_back(Message { name: event.body.type_name().to_owned(), id: None, data });
        Ok(())
    }

    async fn committed(&mut self, position: u64, event: &Event) -> Result<()> {
        if position > self.next {
            self.course = Course::Behind;
            return Ok(());
        }
        if position == self.next {
            self.send(position, event).await?;
        }
        Ok(())
    }

    async fn send(&mut self, position: u64, event: &Event) -> Result<()> {
        let PublicEvent(data) = public_event(&*self.app.blobs, event.clone()).await?;
        self.ready.push_back(Message { name: event.body.type_name().to_owned(), id: Some(position), data });
        self.ready.extend(self.previews.committed(event));
        self.next = position + 1;
        Ok(())
    }

    /// Sends what the log has behind `next`, a window at a time; at its end the stream is in `then`.
    async fn read_on(&mut self, then: Course) -> Result<()> {
        let events = {
            let followed = self.followed.clone();
            let mut log = followed.fresh().await?;
            let to = list::end(&log).min(self.next + WINDOW);
            let events = list::slice(&mut log, &*self.app.blobs, self.next, to).await?;
            if to == list::end(&log) {
                self.course = then;
            }
            events
        };
        for (position, event) in events {
            self.send(position, &event).await?;
        }
        Ok(())
    }

    async fn end(&mut self) -> Result<()> {
        let row = self.app.catalog.row::<row::SessionRow>(&self.session_id).await?;
        if row.is_none_or(|read| read.row.deleted) {
            self.deleted();
            return Ok(());
        }
        self.read_on(Course::Ended).await
    }

    fn deleted(&mut self) {
        let id = derived::derive(derived::prefix::EVENT, &[&self.session_id, "deleted"]);
        let processed_at = moment(self.app.clock.now());
        self.ready.push_back(StreamOnly::SessionDeleted { id: &id, processed_at }.message());
        self.course = Course::Ended;
    }
}
