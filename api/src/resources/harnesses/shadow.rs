//! What the shims of a harness are worth to a model that is really asked: recorded sessions gone through again with all of them
//! and without each, by a brain worker.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use domain::agent::HarnessRef;
use domain::limits::TRIAL_SESSIONS_MAX;
use domain::rollout::{Price, Recorded};
use domain::trial::Tried;
use harness::ablate::shadow::Shadow;
use harness::whatif::{Input, Report, Variant};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::sample::{Roots, Sample};
use super::{ablation, resolve};
use crate::app::App;
use crate::body::JsonBody;
use crate::error::{ApiError, Result};
use crate::ids;
use crate::resources::inspect;
use crate::resources::sessions::other_model;
use crate::resources::trials::{self, Found, TrialRow};

/// Sessions where nothing else is said.
const SESSIONS: usize = 10;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ablate {
    /// Of the recorded sessions, and asked where they have no answer.
    model: String,
    #[serde(default)]
    agent: Option<String>,
    /// Only sessions that were made within so many seconds.
    #[serde(default)]
    age_s: Option<u64>,
    /// Only these sessions.
    #[serde(default)]
    session_ids: Vec<String>,
    #[serde(default)]
    sessions: Option<usize>,
    /// The first turns of each session; all of them if left out.
    #[serde(default)]
    turns: Option<u64>,
    /// How often the model may be asked for one session and shim.
    #[serde(default)]
    requests_max: Option<u32>,
    /// What the last message contains if all went well.
    #[serde(default)]
    expect: Option<String>,
    #[serde(default)]
    price: Option<Price>,
}

/// What whoever asks again needs: which trial is whose.
#[derive(Debug, Serialize, Deserialize)]
struct Asked {
    harness: HarnessRef,
    model: String,
    shims: Vec<String>,
    sessions: Vec<String>,
    expect: Option<String>,
    price: Option<Price>,
}

pub async fn begin(
    State(app): State<App>,
    Path(name): Path<String>,
    JsonBody(body): JsonBody<Ablate>,
) -> Result<Json<Value>> {
    let found = resolve(&app, &name).await?;
    let (harness, shims) = (found.reference(), ablation::shims(&found));
    let sample = Sample { agent: body.agent.clone(), age_s: body.age_s, session_ids: body.session_ids.clone() };
    let wanted = sample.count(body.sessions, SESSIONS);
    if wanted == 0 || wanted > TRIAL_SESSIONS_MAX {
        return Err(ApiError::field("sessions", format!("must be from 1 to {TRIAL_SESSIONS_MAX}")));
    }
    if body.turns == Some(0) {
        return Err(ApiError::field("turns", "must be at least 1"));
    }
    if shims.is_empty() {
        return Err(ApiError::invalid(format!("{harness} has no shims that could be switched off")));
    }
    inspect::check_text(Some(&body.model), body.expect.as_deref())?;
    let requests_max = inspect::requests_max(body.requests_max)?;
    let sessions = unrelated(&app, &sample, &body.model, wanted).await?;
    let id = ids::new(ids::TRIAL);
    let mut trials = Vec::new();
    for session in &sessions {
        for off in std::iter::once(None).chain(shims.iter().map(Some)) {
            trials.push(Input {
                id: format!("{id}-{}", trials.len()),
                session: session.clone(),
                turn: 1,
                turns: body.turns,
                variant: Variant {
                    harness: Some(harness.clone()),
                    strategy: None,
                    model: Some(other_model(&body.model)),
                    shims_off: off.cloned().into_iter().collect(),
                },
                requests_max,
                expect: body.expect.clone(),
                live: false,
            });
        }
    }
    let Ablate { model, expect, price, .. } = body;
    let subject = harness.sha256.clone();
    let sessions = sessions.into_iter().map(|session| session.session_id).collect();
    let asked = json!(Asked { harness, model, shims, sessions, expect, price });
    let row = TrialRow { id, created_at: app.clock.now(), subject, asked, fork: None };
    trials::begin(&app, &row, trials).await?;
    shown(&app, &row).await.map(Json)
}

/// Sessions that can be read, none of which shares turns with another one.
async fn unrelated(app: &App, sample: &Sample, model: &str, wanted: usize) -> Result<Vec<Recorded>> {
    let (mut roots, mut sessions) = (Roots::default(), Vec::new());
    for session in sample.sessions(app, |summary| summary.attributes.agent.model == model).await? {
        if sessions.len() == wanted {
            break;
        }
        let recording = inspect::recording(app, &session.session_id).await;
        if recording.is_ok_and(|recording| roots.is_news(&recording)) {
            sessions.push(session);
        }
    }
    Ok(sessions)
}

/// Waits a while for it to be over.
pub async fn retrieve(State(app): State<App>, Path((name, id)): Path<(String, String)>) -> Result<Json<Value>> {
    let harness = resolve(&app, &name).await?.reference();
    let row = trials::find(&app, &id, &harness.sha256).await?;
    shown(&app, &row).await.map(Json)
}

async fn shown(app: &App, row: &TrialRow) -> Result<Value> {
    let asked: Asked = serde_json::from_value(row.asked.clone()).map_err(ApiError::internal)?;
    let mut shown = json!({
        "type": "harness_ablation_live",
        "id": row.id,
        "created_at": crate::time::text(row.created_at),
        "harness": asked.harness,
        "model": asked.model,
        "expect": asked.expect,
        "sessions": asked.sessions.len(),
    });
    match trials::look(app, &row.id).await? {
        Found::Running => shown["status"] = json!("running"),
        Found::Broken => shown["status"] = json!("failed"),
        Found::Done(tried) => {
            shown["status"] = json!("done");
            let (shims, failed) = weigh(&asked, &tried);
            shown["shims"] = json!(shims);
            shown["failed"] = json!(failed);
        }
    }
    Ok(shown)
}

/// Every shim with what its absence did, and why trials came to no report, with their number.
fn weigh(asked: &Asked, tried: &[Tried<Report>]) -> (Vec<Value>, BTreeMap<String, u64>) {
    let mut shadows = vec![Shadow::default(); asked.shims.len()];
    let mut failed: BTreeMap<String, u64> = BTreeMap::new();
    for of_session in tried.chunks(asked.shims.len() + 1) {
        let mut reports = of_session.iter().map(|tried| match tried {
            Tried::Report { report } => Ok(report),
            Tried::Failed { why } => Err(why),
        });
        let mut fail = |why: &str| *failed.entry(why.to_owned()).or_default() += 1;
        let Some(with) = reports.next() else { continue };
        // Every shim is held against this one, but it failed once.
        let with = with.inspect_err(|why| fail(why));
        for (shadow, without) in shadows.iter_mut().zip(reports) {
            let without = without.inspect_err(|why| fail(why));
            match (with, without) {
                (Ok(with), Ok(without)) => shadow.add(with, without, asked.price.as_ref()),
                _ => shadow.unfinished += 1,
            }
        }
    }
    let told = asked.shims.iter().zip(&shadows).map(|(name, shadow)| {
        let (low, high) = shadow.share_worse();
        json!({
            "name": name,
            "verdict": shadow.worth(),
            "sessions": shadow.sessions,
            "changed": shadow.changed,
            "worse": shadow.worse,
            "better": shadow.better,
            "unfinished": shadow.unfinished,
            "share_worse": {"low": low, "high": high},
            "requests": ablation::mean(&shadow.requests),
            "tokens": ablation::mean(&shadow.tokens),
            "cost": shadow.cost.as_ref().map(ablation::mean),
        })
    });
    (told.collect(), failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Tried<Report> {
        let sum = json!({"turn": 1, "requests": 2, "failed_requests": 0, "usage": {}, "calls": 0, "errors": 0, "ended": "end_turn"});
        let answered = json!({"requests_recorded": 2, "requests_live": 0, "calls_recorded": 0});
        let report = json!({
            "session_id": "sesn_1", "turn": 1, "position": 0, "harness": {"name": "loop", "version": 2, "sha256": ""},
            "model": "m", "strategy": {"name": "full", "version": 1}, "shims_off": [], "same_steps": 3, "left_out": 0,
            "turns": [{"turn": 1, "recorded": sum, "tried": sum}], "answered": answered, "end": {"end": "complete"},
        });
        Tried::Report { report: serde_json::from_value(report).unwrap() }
    }

    fn failed(why: &str) -> Tried<Report> {
        Tried::Failed { why: why.to_owned() }
    }

    #[test]
    fn what_failed_is_counted_once() {
        let asked = Asked {
            harness: HarnessRef { name: "loop".to_owned(), version: 2, sha256: String::new() },
            model: "m".to_owned(),
            shims: ["one", "two"].map(str::to_owned).to_vec(),
            sessions: ["sesn_1", "sesn_2", "sesn_3"].map(str::to_owned).to_vec(),
            expect: None,
            price: None,
        };
        // With every shim, without one, without the other: of each session.
        let tried = [
            [failed("gone"), report(), report()],
            [report(), report(), failed("late")],
            [failed("gone"), report(), failed("late")],
        ];
        let (shims, failed) = weigh(&asked, &tried.concat());
        assert_eq!(json!(failed), json!({"gone": 2, "late": 2}));
        let counts = shims.iter().map(|shim| (&shim["sessions"], &shim["unfinished"])).collect::<Vec<_>>();
        assert_eq!(counts, [(&json!(1), &json!(2)), (&json!(0), &json!(3))]);
        assert_eq!(shims[0]["requests"], json!({"mean": 0.0, "low": null, "high": null}), "one session has no spread");
        assert_eq!((&shims[0]["verdict"], &shims[1]["verdict"]), (&json!("dead_weight"), &json!("unknown")));
    }
}
