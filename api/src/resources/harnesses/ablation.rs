//! Which shims of a harness do something on recorded sessions, and which are dead weight there. Off the event loop, as a
//! replay is: without model, hands or network.

use axum::Json;
use axum::extract::{Path, State};
use domain::rollout::{Moments, Recorded};
use domain::{Summary, Time};
use harness::ablate::{Effect, interval};
use serde_json::{Value, json};

use super::sample::{Roots, Sample};
use super::{Found, deciding, resolve};
use crate::app::App;
use crate::error::{ApiError, Result};
use crate::query::{Param, Query};
use crate::resources::inspect;

const SESSIONS: usize = 50;
const SESSIONS_MAX: usize = 200;

pub fn params() -> [Param; 5] {
    let [agent, age, ids] = Sample::params();
    [Param::text("model"), agent, age, ids, Param::number("sessions", 1..=SESSIONS_MAX as u64)]
}

/// `model` and what makes a [`Sample`] choose among recorded sessions, `sessions` says how many are looked at.
pub async fn ablate(State(app): State<App>, Path(name): Path<String>, query: Query) -> Result<Json<Value>> {
    let found = resolve(&app, &name).await?;
    let shims = shims(&found);
    let reference = found.reference();
    let (model, sample) = (query.text("model")?, Sample::of(&query)?);
    let wanted = sample.count(query.parsed("sessions", "a number")?, SESSIONS);
    if wanted == 0 || wanted > SESSIONS_MAX {
        return Err(ApiError::field("sessions", format!("must be from 1 to {SESSIONS_MAX}")));
    }
    let gone = || ApiError::not_found("harness", &name);
    let deciding = deciding(&app, &reference).await?.ok_or_else(gone)?;
    let mut effects = vec![Effect::default(); shims.len()];
    let (mut read, mut related, mut unreadable) = (0_u64, 0_u64, 0_u64);
    let mut roots = Roots::default();
    let is_meant = |summary: &Summary| model.is_none_or(|model| summary.attributes.agent.model == model);
    for Recorded { session_id, .. } in sample.sessions(&app, is_meant).await? {
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
        "agent_id": sample.agent,
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
