//! Which shims of a harness do something on recorded sessions, and which are dead weight there. Off the event loop, as a
//! replay is: without model, hands or network.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, State};
use domain::Time;
use domain::committed::Recording;
use domain::rollout::Moments;
use harness::ablate::{Effect, interval};
use harness::rollout::threshold;
use serde_json::{Value, json};

use super::{Found, deciding, resolve};
use crate::app::App;
use crate::error::{ApiError, Result};
use crate::query::{Param, Query};
use crate::resources::inspect;
use crate::resources::sessions::row as session_row;

const SESSIONS: usize = 50;
const SESSIONS_MAX: usize = 200;

pub fn params() -> [Param; 3] {
    [Param::text("model"), Param::text("agent"), Param::number("sessions", 1..=SESSIONS_MAX as u64)]
}

/// `model` and `agent` choose among recorded sessions, `sessions` says how many are looked at.
pub async fn ablate(State(app): State<App>, Path(name): Path<String>, query: Query) -> Result<Json<Value>> {
    let found = resolve(&app, &name).await?;
    let shims = shims(&found);
    let reference = found.reference();
    let (model, agent) = (query.text("model")?, query.text("agent")?);
    let wanted = query.parsed::<usize>("sessions", "a number")?.unwrap_or(SESSIONS);
    if wanted == 0 || wanted > SESSIONS_MAX {
        return Err(ApiError::field("sessions", format!("must be from 1 to {SESSIONS_MAX}")));
    }
    let gone = || ApiError::not_found("harness", &name);
    let deciding = deciding(&app, &reference).await?.ok_or_else(gone)?;
    let mut effects = vec![Effect::default(); shims.len()];
    let (mut read, mut related, mut unreadable) = (0_u64, 0_u64, 0_u64);
    let mut roots = Roots::default();
    for session_id in sample(&app, model, agent).await? {
        if read == wanted as u64 {
            break;
        }
        let Ok(recording) = inspect::recording(&app, &session_id).await else {
            unreadable += 1;
            continue;
        };
        if !roots.is_news(&recording) {
            related += 1;
            continue;
        }
        let (shims, deciding, reference) = (shims.clone(), deciding.clone(), reference.clone());
        let mut added = effects.clone();
        let walked = tokio::task::spawn_blocking(move || {
            for (effect, shim) in added.iter_mut().zip(&shims) {
                effect.add(&recording, &reference, &mut *deciding.asked(), shim)?;
            }
            Ok::<_, harness::replay::Error>(added)
        });
        match walked.await.map_err(ApiError::internal)? {
            Ok(added) => (effects, read) = (added, read + 1),
            Err(_) => unreadable += 1,
        }
    }
    let shown = shims.iter().zip(&effects).map(|(shim, effect)| shown(shim, effect));
    Ok(Json(json!({
        "type": "harness_ablation",
        "harness": reference,
        "model": model,
        "agent_id": agent,
        "at": Time::from_ms(app.clock.now().as_millisecond()),
        "sessions": read,
        "related": related,
        "unreadable": unreadable,
        "shims": shown.collect::<Vec<_>>(),
    })))
}

pub fn shims(found: &Found) -> Vec<String> {
    match found {
        Found::Native(harness) => harness.shims.iter().map(|shim| shim.name.to_owned()).collect(),
        Found::Added(row) => row.manifest.shims.iter().map(|shim| shim.name.clone()).collect(),
    }
}

fn shown(shim: &str, effect: &Effect) -> Value {
    let (low, high) = effect.share();
    let verdict = match (effect.sessions, effect.sessions_changed) {
        (0, _) => "unknown",
        (_, 0) => "dead_weight",
        _ => "acts",
    };
    json!({
        "name": shim,
        "verdict": verdict,
        "sessions_changed": effect.sessions_changed,
        "share": {"low": low, "high": high},
        "moments": effect.moments,
        "other_step": effect.other_step,
        "other_context": effect.other_context,
        "requests": mean(&effect.requests),
    })
}

/// With its interval, if more than one value makes one.
pub fn mean(moments: &Moments) -> Value {
    let (low, high) = interval(moments).unzip();
    json!({"mean": moments.mean(), "low": low, "high": high})
}

/// Sessions with a turn behind them, in an order that is by chance and always the same.
pub async fn sample(app: &App, model: Option<&str>, agent: Option<&str>) -> Result<Vec<String>> {
    let mut sample = Vec::new();
    session_row::each(app, |row| {
        let Some(summary) = row.projection.as_ref().map(|projection| &projection.summary) else { return };
        let is_meant = model.is_none_or(|model| summary.attributes.agent.model == model)
            && agent.is_none_or(|agent| row.agent_id == agent);
        if row.is_there() && is_meant && summary.turn > 0 {
            sample.push(row.id.clone());
        }
    })
    .await?;
    sample.sort_by(|one, other| threshold(one).total_cmp(&threshold(other)));
    Ok(sample)
}

/// The sessions that those of a sample began as. A fork has the turns of its parent: counted as well it would say the same twice, and
/// intervals would be narrower than what is known.
#[derive(Default)]
pub struct Roots(BTreeSet<String>);

impl Roots {
    /// Whether nothing of this one was seen before.
    pub fn is_news(&mut self, recording: &Recording) -> bool {
        self.0.insert(recording.first_session_id().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use domain::commit::Fork;
    use domain::{PrivateEntry, Take};
    use harness::{kit, registry};

    use super::*;

    #[test]
    fn a_fork_is_no_session_of_its_own_whichever_is_seen_first() {
        let mut session = kit::Session::new(kit::attributes(), registry::default_harness());
        session.message("the task");
        session.settle();
        let parent = session.recording();
        let forked = |session_id: &str| {
            let fork = Fork {
                parent: parent.session_id.clone(),
                session_id: session_id.to_owned(),
                created_at: Time::from_ms(0),
                attributes: kit::attributes(),
                harness: registry::default_harness(),
                goes_on: false,
            };
            let mut recording = Recording { session_id: session_id.to_owned(), ..parent.clone() };
            let take = Take::Private { entry: PrivateEntry::Forked { fork: Box::new(fork) } };
            recording.commits.last_mut().expect("a turn was begun").commit.takes.insert(0, take);
            recording
        };
        let (one, other) = (forked("sesn_one"), forked("sesn_other"));
        let unrelated = Recording { session_id: "sesn_unrelated".to_owned(), ..parent.clone() };
        for order in [[&parent, &one, &other], [&one, &other, &parent]] {
            let mut roots = Roots::default();
            assert_eq!(order.map(|recording| roots.is_news(recording)), [true, false, false]);
            assert!(roots.is_news(&unrelated));
        }
    }
}
