//! Listing a session's events: committed ones by position, then those that wait.
//!
//! A cursor is the position to go on at, with short hashes of the waiting events that were shown already: they get
//! their positions later and must not come twice.

use std::collections::BTreeSet;

use domain::session::Mail;
use domain::{Event, EventBody, Time, ids};
use log::SessionLog;
use log::follow::Followed;
use store::Blobs;

use super::public::{PublicEvent, public_event};
use crate::error::{ApiError, Result};
use crate::page::{self, Limits, Order, Page, PageRequest};
use crate::query::{Param, Query, TimeRange};

const LIMITS: Limits = Limits { default: 1000, max: 1000 };
/// Positions that are read at a time.
const WINDOW: u64 = 1024;
const HASH_CHARS: usize = 8;

/// The types of the API: those of the log, and those that only sessions of several threads have.
const TYPES: &[&str] = &[
    "user.message",
    "user.interrupt",
    "user.tool_confirmation",
    "user.custom_tool_result",
    "user.tool_result",
    "user.define_outcome",
    "system.message",
    "agent.message",
    "agent.thinking",
    "agent.tool_use",
    "agent.tool_result",
    "agent.mcp_tool_use",
    "agent.mcp_tool_result",
    "agent.custom_tool_use",
    "agent.thread_context_compacted",
    "agent.thread_message_sent",
    "agent.thread_message_received",
    "session.status_running",
    "session.status_idle",
    "session.status_rescheduled",
    "session.status_terminated",
    "session.updated",
    "session.usage",
    "session.error",
    "session.deleted",
    "session.thread_created",
    "session.thread_status_running",
    "session.thread_status_idle",
    "session.thread_status_rescheduled",
    "session.thread_status_terminated",
    "span.model_request_start",
    "span.model_request_end",
    "span.outcome_evaluation_start",
    "span.outcome_evaluation_ongoing",
    "span.outcome_evaluation_end",
    "workflow_run.created",
    "workflow_run.status_running",
    "workflow_run.status_idle",
    "workflow_run.phase_started",
    "workflow_run.phase_ended",
    "workflow_run.error",
    "workflow_run.status_ended",
];

/// What a list of events takes.
pub fn params() -> [Param; 7] {
    [
        LIMITS.param(),
        page::param(),
        Order::param(),
        Param::choices("types", TYPES),
        Param::times("created_at"),
        Param::number("from_position", 0..=u64::MAX),
        Param::number("to_position", 0..=u64::MAX),
    ]
}

/// What a request asks for.
pub struct Filter {
    types: BTreeSet<String>,
    times: TimeRange,
    /// Positions `[from, to)`.
    from: u64,
    to: Option<u64>,
}

impl Filter {
    pub fn of(query: &Query) -> Result<Self> {
        let types: BTreeSet<String> = query.list("types").into_iter().map(str::to_owned).collect();
        if let Some(unknown) = types.iter().find(|name| !TYPES.contains(&name.as_str())) {
            return Err(ApiError::field("types", format!("{unknown} is not a type of event")));
        }
        Ok(Self {
            types,
            times: query.times("created_at")?,
            from: query.parsed("from_position", "a position")?.unwrap_or(0),
            to: query.parsed("to_position", "a position")?,
        })
    }

    fn keeps(&self, event: &Event) -> bool {
        let named = self.types.is_empty() || self.types.contains(event.body.type_name());
        named && self.is_in_time(event.processed_at)
    }

    fn is_in_time(&self, time: Option<Time>) -> bool {
        let TimeRange { from_ms, to_ms } = self.times;
        match time.map(Time::as_ms) {
            Some(ms) => from_ms.is_none_or(|from| ms >= from) && to_ms.is_none_or(|to| ms <= to),
            None => from_ms.is_none() && to_ms.is_none(),
        }
    }
}

/// Where a page goes on: in ascending order the next position, in descending order the one after the next.
#[derive(Clone, Default)]
struct Place {
    position: u64,
    shown: BTreeSet<String>,
}

impl Place {
    fn decode(text: &str) -> Option<Self> {
        let (position, shown) = text.split_once('.')?;
        if !shown.is_ascii() || shown.len() % HASH_CHARS != 0 {
            return None;
        }
        let shown = shown.as_bytes().chunks(HASH_CHARS).map(|hash| String::from_utf8_lossy(hash).into_owned());
        Some(Self { position: position.parse().ok()?, shown: shown.collect() })
    }

    fn encode(&self) -> String {
        let shown: String = self.shown.iter().map(String::as_str).collect();
        format!("{}.{shown}", self.position)
    }
}

/// Most lists have shown none that waited, and a thousand hashes are a tenth of what a page takes.
fn is_shown(shown: &BTreeSet<String>, event: &Event) -> bool {
    !shown.is_empty() && shown.contains(&hash(&event.id))
}

fn hash(id: &str) -> String {
    ids::content_hash(id.as_bytes())[..HASH_CHARS].to_owned()
}

struct Found {
    event: Event,
    /// Where a page goes on that ends with this event.
    place: Place,
}

pub async fn list(followed: &Followed, blobs: &dyn Blobs, query: &Query, name: String) -> Result<Page<PublicEvent>> {
    let order = Order::of(query, Order::Asc)?;
    let request = PageRequest::of(query, name, order, LIMITS)?;
    let filter = Filter::of(query)?;
    let place = match request.position() {
        None => None,
        Some(text) => {
            Some(Place::decode(text).ok_or_else(|| ApiError::field("page", "is not a cursor of this server"))?)
        }
    };
    let count = request.limit + 1;
    let found = match order {
        Order::Asc => ascending(followed, blobs, &filter, place, count).await?,
        Order::Desc => descending(followed, blobs, &filter, place, count).await?,
    };
    let page = request.page(found, |found| found.place.encode());
    let mut data = Vec::with_capacity(page.data.len());
    for found in page.data {
        data.push(public_event(blobs, found.event).await?);
    }
    Ok(Page { data, next_page: page.next_page, prev_page: None })
}

async fn ascending(
    followed: &Followed,
    blobs: &dyn Blobs,
    filter: &Filter,
    place: Option<Place>,
    count: usize,
) -> Result<Vec<Found>> {
    let Place { position, mut shown } = place.unwrap_or(Place { position: filter.from, shown: BTreeSet::new() });
    let mut at = position.max(filter.from);
    let mut found = Vec::new();
    loop {
        // Read anew for each window: a long list must not keep the log from its follower.
        let mut log = followed.fresh().await?;
        let end = end(&log);
        let to = filter.to.map_or(end, |to| to.min(end));
        if at < to {
            let upto = to.min(at + WINDOW);
            for (position, event) in slice(&mut log, blobs, at, upto).await? {
                if filter.keeps(&event) && !is_shown(&shown, &event) {
                    found.push(Found { event, place: Place { position: position + 1, shown: shown.clone() } });
                }
            }
            at = upto;
        }
        if found.len() >= count {
            break;
        }
        if at >= to {
            if filter.to.is_none() {
                for event in waiting(&log) {
                    if filter.keeps(&event) && shown.insert(hash(&event.id)) {
                        found.push(Found { event, place: Place { position: at, shown: shown.clone() } });
                    }
                }
            }
            break;
        }
    }
    found.truncate(count);
    Ok(found)
}

async fn descending(
    followed: &Followed,
    blobs: &dyn Blobs,
    filter: &Filter,
    place: Option<Place>,
    count: usize,
) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    let (mut at, mut shown) = (None, BTreeSet::new());
    let mut waits = filter.to.is_none();
    if let Some(place) = place {
        // Past the waiting events already, unless the cursor stands among them.
        waits &= !place.shown.is_empty() && place.position == u64::MAX;
        at = Some(place.position);
        shown = place.shown;
    }
    loop {
        let mut log = followed.fresh().await?;
        if std::mem::take(&mut waits) {
            for event in waiting(&log).into_iter().rev() {
                if filter.keeps(&event) && shown.insert(hash(&event.id)) {
                    found.push(Found { event, place: Place { position: u64::MAX, shown: shown.clone() } });
                }
            }
        }
        let to = at.unwrap_or(u64::MAX).min(filter.to.unwrap_or(u64::MAX)).min(end(&log));
        if found.len() >= count || to <= filter.from {
            break;
        }
        let from = to.saturating_sub(WINDOW).max(filter.from);
        for (position, event) in slice(&mut log, blobs, from, to).await?.into_iter().rev() {
            if filter.keeps(&event) && !is_shown(&shown, &event) {
                found.push(Found { event, place: Place { position, shown: shown.clone() } });
            }
        }
        at = Some(from);
    }
    found.truncate(count);
    Ok(found)
}

/// Accepted and not committed.
fn waiting(log: &SessionLog) -> Vec<Event> {
    let events = log.uncommitted().filter_map(|mail| match mail {
        Mail::Event { event } => Some(event.clone()),
        _ => None,
    });
    events.collect()
}

/// One behind the last position.
pub fn end(log: &SessionLog) -> u64 {
    log.end_position() + u64::from(log.cut().is_some())
}

/// Committed events with their positions. A log that was cut from outside ends with the event that says so.
pub async fn slice(
    log: &mut SessionLog,
    blobs: &dyn Blobs,
    from: u64,
    to: u64,
) -> Result<Vec<(u64, Event)>, log::segment::Error> {
    let entries = log.slice(blobs, from, to).await?;
    let mut events: Vec<_> = entries.into_iter().map(|entry| (entry.position, entry.event)).collect();
    let last = log.end_position();
    if let Some(event) = cut_event(log).filter(|_| (from..to).contains(&last)) {
        events.push((last, event));
    }
    Ok(events)
}

fn cut_event(log: &SessionLog) -> Option<Event> {
    log.cut()?;
    let id = ids::derive(ids::prefix::EVENT, &[log.session_id(), "cut"]);
    let processed_at = log.summary().map(|summary| summary.last_time);
    Some(Event { id, body: EventBody::SessionStatusTerminated {}, processed_at })
}
