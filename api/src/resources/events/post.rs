//! Sending events to a session: checked whole, then one signal.

use std::collections::BTreeSet;

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use domain::fault::{self, Point};
use domain::limits::{SIGNAL_BYTES_MAX, UNCOMMITTED_EVENTS_MAX};
use domain::session::{Mail, Posted, signal};
use domain::{Event, EventBody, Status, Time, ids as derived};
use jiff::Timestamp;
use log::{SessionLog, blobs};
use schemars::JsonSchema;
use serde::Serialize;
use store::{Batch, Blobs, Digest, Durability};
use tracing::Span;

use super::calls::Calls;
use super::check::check;
use super::public::{PublicEvent, public_event};
use super::retry::Fingerprint;
use super::sources;
use super::turn::Turn;
use super::wire::Post;
use crate::app::App;
use crate::auth::Principal;
use crate::body;
use crate::error::{ApiError, Kind, Result};
use crate::gateway;
use crate::ids;
use crate::media::{Given, Sent};
use crate::resources::environments::work::queue;
use crate::resources::sessions::current::{Current, starts_work};
use crate::resources::sessions::{moment, row};

/// Positions that are read at a time in search of a known event.
const WINDOW: u64 = 512;

pub async fn send(
    State(app): State<App>,
    Extension(principal): Extension<Principal>,
    Path(session_id): Path<String>,
    given: Given<Json<Post>>,
) -> Result<Sent<Json<Accepted>>> {
    row::find(&app, &session_id).await?;
    let thread_id = derived::primary_thread(&session_id);
    let checked = move |bytes: &[u8]| body::json::<Post>(bytes)?.check(&thread_id);
    let (fingerprint, bodies) = fingerprinted(given.request(), checked).await?;
    let is_worker = principal.is_worker();
    if is_worker && let Some(n) = bodies.iter().position(|body| !is_result(body)) {
        let message = format!("events[{n}].type: a worker posts results of tools and nothing else");
        return Err(ApiError::new(Kind::Permission, message));
    }
    Span::current().record("session_id", &session_id);
    // The client may go away; what was begun is finished, so that its retry finds either all of it or nothing.
    let sent = tokio::spawn({
        let app = app.clone();
        async move {
            let sent = take(&app, &session_id, bodies, &fingerprint).await?;
            if let Some(environment_id) = sent.served_by.as_ref().filter(|_| !is_worker) {
                queue::want(&app, &session_id, environment_id).await?;
            }
            Ok::<_, ApiError>(sent)
        }
    });
    let Taken { events, turn, .. } = sent.await.map_err(ApiError::internal)??;
    turn.record();
    let mut data = Vec::with_capacity(events.len());
    for event in &events {
        data.push(public_event(&*app.blobs, event.clone()).await?);
    }
    Ok(Sent::new(answer(&app, Accepted { data }, events)))
}

/// The events as they were accepted.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AcceptedEvents")]
pub struct Accepted {
    data: Vec<PublicEvent>,
}

struct Taken {
    events: Vec<Event>,
    turn: Turn,
    /// The environment whose workers are to hear of it.
    served_by: Option<String>,
}

fn is_result(body: &EventBody) -> bool {
    matches!(body, EventBody::UserToolResult { .. } | EventBody::UserCustomToolResult { .. })
}

/// What a request is recognised by, and what its body is read as.
pub async fn fingerprinted<T: Send + 'static>(
    request: Request,
    how: impl FnOnce(&[u8]) -> Result<T> + Send + 'static,
) -> Result<(Fingerprint, T)> {
    let (parts, body) = request.into_parts();
    let whole = body::read(Request::from_parts(parts.clone(), body)).await?;
    let taken_apart = move |bytes: &[u8]| {
        let key_id = parts.extensions.get::<Principal>().map_or("", |principal| &principal.key_id);
        let fingerprint = Fingerprint::of(&parts.headers, key_id, parts.uri.path(), bytes);
        Ok((fingerprint, how(bytes)?))
    };
    whole.taken_apart(taken_apart).await
}

fn answer(app: &App, accepted: Accepted, events: Vec<Event>) -> Response {
    let response = Json(accepted).into_response();
    match events.into_iter().next() {
        Some(first) => app.answered.watch(response, first.id),
        None => response,
    }
}

async fn take(app: &App, session_id: &str, bodies: Vec<EventBody>, fingerprint: &Fingerprint) -> Result<Taken> {
    let _turn = app.under_way.enter(fingerprint).await;
    let now = app.clock.now();
    let followed = app.session(session_id);
    let served_by;
    let on = {
        let mut log = followed.fresh().await?;
        let current = Current::of(&log).ok_or_else(|| ApiError::not_found("session", session_id))?;
        let attributes = &current.summary.attributes;
        served_by = attributes.self_hosted.then(|| attributes.environment_id.clone());
        if let Some(ids) = fingerprint.first(log.posts(), moment(now), &app.answered) {
            let ids = ids.to_vec();
            // Their first request is in the trace already.
            return Ok(Taken { events: known(&mut log, &*app.blobs, &ids).await?, turn: Turn::None, served_by });
        }
        // Only answers, and messages to a session that waits for some, have to do with calls.
        let answers = current.status == Status::RequiresAction || bodies.iter().any(|body| body.answers().is_some());
        let calls = if answers { Calls::read(&mut log, &*app.blobs).await? } else { Calls::default() };
        check(&current, &calls, &bodies)?;
        let uncommitted = log.uncommitted().filter(|mail| matches!(mail, Mail::Event { .. })).count();
        if uncommitted + bodies.len() > UNCOMMITTED_EVENTS_MAX {
            let message = format!(
                "{uncommitted} events of the session wait to be taken up, at most {UNCOMMITTED_EVENTS_MAX} may"
            );
            return Err(ApiError::new(Kind::RateLimit, message).retry_after_s(1));
        }
        current.summary.began.map(|began| began.event)
    };
    let works = bodies.iter().any(starts_work);
    let events = accept(app, bodies, now).await?;
    keep(app, session_id, &events, works).await?;
    let posted = Posted { fingerprint: Some(fingerprint.at(moment(now))), events };
    // Whoever listens keeps the follower reading, so it is there when the signal lands.
    let _listening = followed.subscribe();
    followed.follow();
    let request_id = &posted.events[0].id;
    match app.gateway.signal(session_id, signal::EVENTS, &posted, request_id).await {
        Ok(()) => fault::pass(Point::EventAccepted),
        Err(gateway::Error::NotFound { .. }) => {
            return Err(ApiError::invalid("the session has ended and takes no more events").should_retry(false));
        }
        Err(error) => return Err(error.into()),
    }
    followed.follow();
    Ok(Taken { turn: Turn::of(&posted.events, on.as_deref()), events: posted.events, served_by })
}

/// Sends events that were accepted elsewhere, under the ids that they have there: sent again they count once. What they refer to the
/// session refers to already.
pub async fn deliver(app: &App, session_id: &str, events: Vec<Event>) -> Result<()> {
    keep(app, session_id, &events, true).await?;
    let Some(first) = events.first() else { return Ok(()) };
    let request_id = format!("{session_id}-{}", first.id);
    let posted = Posted { fingerprint: None, events };
    Ok(app.gateway.signal(session_id, signal::EVENTS, &posted, &request_id).await?)
}

/// Makes events of checked bodies: the content of files, ids, stamps where they are due on receipt, large content in blobs.
pub async fn accept(app: &App, mut bodies: Vec<EventBody>, now: Timestamp) -> Result<Vec<Event>> {
    sources::embed(app, &mut bodies).await?;
    let mut events: Vec<Event> = bodies.into_iter().map(|body| stamped(body, moment(now))).collect();
    for event in &mut events {
        blobs::offload(&*app.blobs, event).await?;
    }
    let size = |event: &Event| serde_json::to_vec(event).map_or(0, |json| json.len());
    while events.iter().map(size).sum::<usize>() > SIGNAL_BYTES_MAX {
        let inline = events.iter_mut().filter(|event| event.body.content().is_some_and(|it| it.blob().is_none()));
        let Some(largest) = inline.max_by_key(|event| size(event)) else {
            return Err(ApiError::new(Kind::TooLarge, "the events are too large to be taken in one request"));
        };
        offload_whole(&*app.blobs, largest).await?;
    }
    Ok(events)
}

fn stamped(body: EventBody, now: Time) -> Event {
    let on_receipt = is_result(&body);
    Event { id: ids::new(ids::EVENT), body, processed_at: on_receipt.then_some(now) }
}

async fn offload_whole(store: &dyn Blobs, event: &mut Event) -> Result<()> {
    if let Some(content) = event.body.content_mut() {
        let blob = blobs::put_json(store, content).await?;
        *content = domain::Content::Blob(blob);
    }
    Ok(())
}

/// What must stand before the signal: who needs the blobs, and that the session is open again, so that a service that
/// dies right after the signal reads on at its next start.
async fn keep(app: &App, session_id: &str, events: &[Event], works: bool) -> Result<()> {
    let blobs: BTreeSet<Digest> =
        events.iter().filter_map(|event| event.body.content()?.blob()?.blob.parse().ok()).collect();
    let durability = if blobs.is_empty() { Durability::Lazy } else { Durability::Synced };
    let refer = |batch: Batch| blobs.iter().fold(batch, |batch, digest| row::refer(batch, *digest, session_id));
    row::change(&*app.catalog, session_id, durability, |row, batch| {
        let mut row = row.clone();
        let reopens = works && row.projection.as_ref().is_some_and(|projection| !projection.open);
        if let Some(projection) = row.projection.as_mut().filter(|_| reopens) {
            projection.open = true;
        }
        (reopens || !blobs.is_empty()).then(|| (row, refer(batch)))
    })
    .await?;
    Ok(())
}

/// Events that the log has, by their ids and in their order.
async fn known(log: &mut SessionLog, store: &dyn Blobs, ids: &[String]) -> Result<Vec<Event>> {
    let waiting = log.uncommitted().filter_map(|mail| match mail {
        Mail::Event { event } if ids.contains(&event.id) => Some(event.clone()),
        _ => None,
    });
    let mut found: Vec<Event> = waiting.collect();
    let mut to = log.end_position();
    while found.len() < ids.len() && to > 0 {
        let from = to.saturating_sub(WINDOW);
        let entries = log.slice(store, from, to).await?;
        found.extend(entries.into_iter().map(|entry| entry.event).filter(|event| ids.contains(&event.id)));
        to = from;
    }
    found.sort_by_key(|event| ids.iter().position(|id| *id == event.id));
    Ok(found)
}
