//! What a request has to do with turns: how its span finds its trace.

use domain::Event;
use tracing::Span;

use crate::resources::sessions::current::starts_work;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Turn {
    /// It brought the event that begins one, unless others are taken with it that came before.
    Begins(String),
    /// It came in one, which this event began.
    PartOf(String),
    None,
}

impl Turn {
    /// Of events that come while a turn is on that began with `on`.
    pub fn of(events: &[Event], on: Option<&str>) -> Self {
        match (events.iter().find(|event| starts_work(&event.body)), on) {
            (Some(first), _) => Turn::Begins(first.id.clone()),
            (None, Some(on)) => Turn::PartOf(on.to_owned()),
            (None, None) => Turn::None,
        }
    }

    /// On the span of the request.
    pub fn record(self) {
        match self {
            Turn::Begins(event) => drop(Span::current().record("begins_turn", event)),
            Turn::PartOf(event) => drop(Span::current().record("turn_event", event)),
            Turn::None => {}
        }
    }
}
