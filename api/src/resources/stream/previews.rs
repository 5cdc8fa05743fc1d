//! Previews on one stream: `event_start` before deltas, at most one for an event; nothing of an event that is there
//! whole, and nothing of a span that is over.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::delta::{Delta, DeltaKind};
use domain::{Event, EventBody};
use log::SessionLog;
use log::segment::Error;
use store::Blobs;

use super::only::{self, Begun, StreamOnly};
use crate::error::{ApiError, Result};
use crate::query::{Param, Query};
use crate::sse::Message;

const MESSAGE: &str = "agent.message";
const THINKING: &str = "agent.thinking";
const VALUES_MAX: usize = 100;
/// Positions that are read in search of the last span. A span's own events are few.
const WINDOW: u64 = 128;
/// The first deltas of a span may overtake its start on their way here. What is older than this belongs to no span.
const EARLY_MAX: Duration = Duration::from_secs(1);
const EARLY_DELTAS_MAX: usize = 256;

pub fn param() -> Param {
    Param::choices("event_deltas", &[MESSAGE, THINKING])
}

/// The types of events that a client wants previews of.
#[derive(Clone, Default, Debug)]
pub struct Wanted(BTreeSet<&'static str>);

impl Wanted {
    /// Reads `event_deltas[]`.
    pub fn of(query: &Query) -> Result<Self> {
        if query.count("event_deltas") > VALUES_MAX {
            return Err(ApiError::field("event_deltas", format!("at most {VALUES_MAX} values are allowed")));
        }
        let known = |name: &str| match name {
            MESSAGE => Ok(MESSAGE),
            THINKING => Ok(THINKING),
            _ => Err(ApiError::field("event_deltas", format!("must be {MESSAGE} or {THINKING}"))),
        };
        Ok(Self(query.list("event_deltas").into_iter().map(known).collect::<Result<_>>()?))
    }
}

pub struct Previews {
    wanted: Wanted,
    is_span_open: bool,
    /// Events that were begun on this stream in the open span.
    begun: BTreeSet<String>,
    /// Events of the open span that are there whole.
    done: BTreeSet<String>,
    /// All of these of the span before: what is still on its way of them comes too late.
    past: BTreeSet<String>,
    early: VecDeque<(Instant, Arc<Delta>)>,
}

impl Previews {
    pub fn new(wanted: Wanted, is_span_open: bool) -> Self {
        let (begun, done, past) = Default::default();
        Self { wanted, is_span_open, begun, done, past, early: VecDeque::new() }
    }

    /// Whether the log ends inside of a model request.
    pub async fn is_span_open(log: &mut SessionLog, blobs: &dyn Blobs) -> Result<bool, Error> {
        let end = log.end_position();
        let entries = log.slice(blobs, end.saturating_sub(WINDOW), end).await?;
        Ok(entries.iter().rev().find_map(|entry| span(&entry.event.body)).unwrap_or(false))
    }

    /// What a delta becomes on this stream.
    pub fn delta(&mut self, delta: &Arc<Delta>) -> Option<Message> {
        if self.wanted.0.is_empty() {
            return None;
        }
        if self.is_span_open {
            return self.message(delta);
        }
        if self.early.len() == EARLY_DELTAS_MAX {
            self.early.pop_front();
        }
        self.early.push_back((Instant::now(), delta.clone()));
        None
    }

    /// Takes note of an event that was sent, and tells what comes behind it: the deltas that overtook their span.
    pub fn committed(&mut self, event: &Event) -> Vec<Message> {
        match span(&event.body) {
            Some(true) => {
                self.is_span_open = true;
                let early = std::mem::take(&mut self.early);
                let fresh = early.into_iter().filter(|(at, _)| at.elapsed() < EARLY_MAX);
                fresh.filter_map(|(_, delta)| self.message(&delta)).collect()
            }
            Some(false) => {
                self.is_span_open = false;
                self.past = std::mem::take(&mut self.begun);
                self.past.append(&mut self.done);
                Vec::new()
            }
            None => {
                self.done.insert(event.id.clone());
                Vec::new()
            }
        }
    }

    fn message(&mut self, delta: &Delta) -> Option<Message> {
        let id = &delta.event_id;
        if self.done.contains(id) || self.past.contains(id) {
            return None;
        }
        match &delta.what {
            DeltaKind::Start { event_type } => {
                if !self.wanted.0.contains(event_type.as_str()) || !self.begun.insert(id.clone()) {
                    return None;
                }
                Some(StreamOnly::EventStart { event: Begun { kind: event_type, id } }.message())
            }
            DeltaKind::Text { text } => {
                if !self.begun.contains(id) {
                    return None;
                }
                let more = only::Delta::Content { index: 0, content: only::Piece::Text { text } };
                Some(StreamOnly::EventDelta { event_id: id, delta: more }.message())
            }
        }
    }
}

/// True where a model request begins, false where one ends.
fn span(body: &EventBody) -> Option<bool> {
    match body {
        EventBody::SpanModelRequestStart {} => Some(true),
        EventBody::SpanModelRequestEnd { .. } => Some(false),
        _ => None,
    }
}
