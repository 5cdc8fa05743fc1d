//! A `tracing` layer that turns closed spans into those of OpenTelemetry. Where a span belongs it learns from two fields:
//! `begins_turn` (a request brought the event that begins a turn) and `turn_event` (it works for the turn that this
//! event began); without them a span belongs to the one around it, or to a trace of its own.

use super::{
    convention::{self, ERROR_TYPE, Outside},
    export::Sender,
    ids,
};
use opentelemetry::{
    InstrumentationScope, Value,
    trace::{SpanContext, SpanId, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_sdk::trace::SpanData;
use std::{
    fmt::Debug,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tracing::{
    Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    Layer,
    layer::Context,
    registry::{LookupSpan, SpanRef},
};

const BEGINS_TURN: &str = "begins_turn";
const TURN_EVENT: &str = "turn_event";
const BEGAN_MS: &str = "began_ms";
const TURN: &str = "turn";

pub struct Spans {
    sender: Sender,
    scope: InstrumentationScope,
}

impl Spans {
    pub fn new(sender: Sender) -> Self {
        let scope = InstrumentationScope::builder("steadyhand").with_version(env!("CARGO_PKG_VERSION")).build();
        Spans { sender, scope }
    }
}

/// A span that is not closed yet.
struct Open {
    name: &'static str,
    trace: TraceId,
    span: SpanId,
    parent: SpanId,
    start: SystemTime,
    fields: Fields,
}

#[derive(Default)]
struct Fields {
    values: Vec<(&'static str, Value)>,
    begins_turn: Option<String>,
    turn_event: Option<String>,
    began_ms: Option<u64>,
}

impl Open {
    fn new(name: &'static str, around: Option<(TraceId, SpanId)>, fields: Fields) -> Self {
        let (trace, parent) = around.unwrap_or_else(|| (ids::random_trace(), SpanId::INVALID));
        let mut open = Open { name, trace, span: ids::random_span(), parent, start: SystemTime::now(), fields };
        open.place();
        open
    }

    /// Puts the span into the trace of its turn, once that is known.
    fn place(&mut self) {
        if let Some(event) = &self.fields.begins_turn {
            (self.trace, self.span, self.parent) = (ids::trace(event), ids::root(event), SpanId::INVALID);
        } else if let Some(event) = &self.fields.turn_event {
            self.trace = ids::trace(event);
            self.parent = ids::turn(event);
            if self.name == TURN {
                (self.span, self.parent) = (ids::turn(event), ids::root(event));
            }
        }
        if let Some(ms) = self.fields.began_ms {
            self.start = UNIX_EPOCH + Duration::from_millis(ms);
        }
    }

    fn close(self, scope: InstrumentationScope) -> SpanData {
        let Outside { name, kind, attributes } = convention::outside(self.name, &self.fields.values);
        let error = attributes.iter().find(|attribute| attribute.key.as_str() == ERROR_TYPE);
        let status = error.map_or(Status::Unset, |error| Status::error(error.value.to_string()));
        let context = SpanContext::new(self.trace, self.span, TraceFlags::SAMPLED, false, TraceState::default());
        SpanData {
            span_context: context,
            parent_span_id: self.parent,
            parent_span_is_remote: false,
            span_kind: kind,
            name: name.into(),
            start_time: self.start,
            end_time: SystemTime::now().max(self.start),
            attributes,
            dropped_attributes_count: 0,
            events: Default::default(),
            links: Default::default(),
            status,
            instrumentation_scope: scope,
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let around = span.parent().and_then(|parent| place_of(&parent));
        let open = Open::new(span.name(), around, fields);
        span.extensions_mut().insert(open);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(id) else { return };
        if let Some(open) = span.extensions_mut().get_mut::<Open>() {
            values.record(&mut open.fields);
            open.place();
        }
    }

    fn on_close(&self, id: Id, ctx: Context<'_, S>) {
        let Some(span) = ctx.span(&id) else { return };
        let open = span.extensions_mut().remove::<Open>();
        if let Some(open) = open {
            self.sender.send(open.close(self.scope.clone()));
        }
    }
}

fn place_of<'a, S: LookupSpan<'a>>(span: &SpanRef<'a, S>) -> Option<(TraceId, SpanId)> {
    span.extensions().get::<Open>().map(|open| (open.trace, open.span))
}

impl Fields {
    fn set(&mut self, field: &Field, value: impl FnOnce() -> Value) {
        let name = field.name();
        match name {
            BEGINS_TURN => self.begins_turn = Some(value().to_string()),
            TURN_EVENT => self.turn_event = Some(value().to_string()),
            _ if convention::attribute(name).is_some() => {
                self.values.retain(|(known, _)| *known != name);
                self.values.push((name, value()));
            }
            _ => {}
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, || Value::from(value.to_owned()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        if field.name() == BEGAN_MS {
            self.began_ms = u64::try_from(value).ok();
        }
        self.set(field, || Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, || Value::from(i64::try_from(value).unwrap_or(i64::MAX)));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, || Value::from(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.set(field, || Value::from(format!("{value:?}")));
    }
}
