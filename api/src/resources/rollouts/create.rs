//! Making a rollout: everything is checked, the sample is drawn, the id is taken, then the workflow starts.

use axum::Json;
use axum::extract::State;
use domain::Time;
use domain::limits::{GATE_SESSIONS_MAX, ROLLOUT_STAGES_MAX};
use domain::rollout::{Gate, Origin, Price, RolloutInput, Spec, Watch};
use harness::rollout::Rollout;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use store::{Batch, Durability};

use super::object;
use super::row::{self, RolloutRow, Share};
use crate::app::App;
use crate::body::JsonBody;
use crate::error::{ApiError, Result};
use crate::gateway;
use crate::ids;
use crate::resources::harnesses::{self, Sample};

const STAGES: &[u8] = &[10, 50, 100];
const GATE_SESSIONS: u32 = 50;
const SESSIONS_MIN: u64 = 20;
const STAGE_S: u64 = 3600;
const STAGE_S_MAX: u64 = 30 * 24 * 3600;
const ALPHA: f64 = 0.001;
const TOLERANCE: f64 = 0.25;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateRollout {
    from: String,
    to: String,
    /// Sessions of this agent alone.
    #[serde(default)]
    agent: Option<String>,
    #[serde(default)]
    stages: Option<Vec<u8>>,
    #[serde(default)]
    live: bool,
    #[serde(default)]
    gate: GateParam,
    #[serde(default)]
    watch: WatchParam,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct GateParam {
    #[serde(default)]
    sessions: Option<u32>,
    /// Only sessions that were made within so many seconds.
    #[serde(default)]
    age_s: Option<u64>,
    #[serde(default)]
    strict: bool,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WatchParam {
    #[serde(default)]
    sessions_min: Option<u64>,
    #[serde(default)]
    stage_s: Option<u64>,
    #[serde(default)]
    alpha: Option<f64>,
    #[serde(default)]
    tolerance: Option<f64>,
    #[serde(default)]
    price: Option<Price>,
}

pub async fn create(State(app): State<App>, JsonBody(body): JsonBody<CreateRollout>) -> Result<Json<Value>> {
    let now = app.clock.now();
    let CreateRollout { from, to, agent, stages, live, gate, watch } = body;
    let from = harnesses::resolve(&app, &from).await?.reference();
    let to = harnesses::resolve(&app, &to).await?.reference();
    if from == to {
        return Err(ApiError::field("to", format!("is the same harness as from: {to}")));
    }
    let stages = check_stages(stages.unwrap_or_else(|| STAGES.to_vec()))?;
    let watch = watch.check()?;
    check_alone(&app, agent.as_deref(), &from).await?;
    let wanted = gate.sessions.unwrap_or(GATE_SESSIONS);
    if wanted > GATE_SESSIONS_MAX {
        return Err(ApiError::field("gate.sessions", format!("must be at most {GATE_SESSIONS_MAX}")));
    }
    let sample = Sample { agent: agent.clone(), age_s: gate.age_s, ..Sample::default() };
    let mut sample = sample.sessions(&app, |summary| summary.harness == from).await?;
    sample.truncate(wanted as usize);
    let gate = Gate {
        sessions: u32::try_from(sample.len()).unwrap_or(wanted),
        sample: log::blobs::put_json(&*app.blobs, &sample).await?,
        strict: gate.strict,
    };
    let decisions_per_run = app.tuning.decisions_per_run;
    let spec = Spec { from, to, agent_id: agent, gate, stages, live, watch, decisions_per_run };
    begin(&app, spec, now).await.map(|row| Json(object::of(&row)))
}

fn check_stages(stages: Vec<u8>) -> Result<Vec<u8>> {
    let rise = stages.windows(2).all(|pair| pair[0] < pair[1]);
    let fit = stages.iter().all(|percent| (1..=100).contains(percent)) && stages.len() <= ROLLOUT_STAGES_MAX;
    match stages.first() {
        Some(first) if rise && fit && *first < 100 => Ok(stages),
        _ => Err(ApiError::field(
            "stages",
            format!(
                "must be at most {ROLLOUT_STAGES_MAX} percentages from 1 to 100 that rise, the first below 100: the new version is \
                 held against the old one"
            ),
        )),
    }
}

impl WatchParam {
    fn check(self) -> Result<Watch> {
        let (alpha, tolerance) = (self.alpha.unwrap_or(ALPHA), self.tolerance.unwrap_or(TOLERANCE));
        if !(alpha > 0.0 && alpha < 0.5) {
            return Err(ApiError::field("watch.alpha", "must be above 0 and below 0.5"));
        }
        if !(0.0..=100.0).contains(&tolerance) {
            return Err(ApiError::field("watch.tolerance", "must be a share from 0 to 100, as 0.25 for a quarter"));
        }
        let stage_s = self.stage_s.unwrap_or(STAGE_S);
        if stage_s > STAGE_S_MAX {
            return Err(ApiError::field("watch.stage_s", format!("must be at most {STAGE_S_MAX}")));
        }
        let sessions_min = self.sessions_min.unwrap_or(SESSIONS_MIN);
        if sessions_min == 0 {
            return Err(ApiError::field("watch.sessions_min", "must be at least 1"));
        }
        Ok(Watch { sessions_min, stage_ms: stage_s * 1000, alpha, tolerance, price: self.price })
    }
}

/// Two rollouts at a time would be measured on each other's sessions.
async fn check_alone(app: &App, agent: Option<&str>, from: &domain::agent::HarnessRef) -> Result<()> {
    let meet = |other: Option<&str>| agent.is_none() || other.is_none() || agent == other;
    let other = row::routes(app).await?.into_iter().map(|read| read.row);
    match other.into_iter().find(|route| !route.is_over && meet(route.agent_id.as_deref())) {
        Some(other) => Err(ApiError::conflict(format!(
            "rollout {} from {} to {} is under way for the same sessions as one from {from}: let it end first",
            other.rollout_id, other.from, other.to
        ))),
        None => Ok(()),
    }
}

async fn begin(app: &App, spec: Spec, now: Timestamp) -> Result<RolloutRow> {
    let id = ids::new(ids::ROLLOUT);
    let created_at = Time::from_ms(now.as_millisecond());
    let state = Rollout::created(&id, created_at, spec.clone());
    let row = RolloutRow { id: id.clone(), created_at: now, state, started: false, swapped: Share::Percent(0) };
    app.catalog.write(row::insert(Batch::new(), &row), Durability::Synced).await?;
    let from = Origin::Created { created_at, spec: Box::new(spec) };
    match app.gateway.start_rollout(&RolloutInput { rollout_id: id.clone(), from }).await {
        Ok(()) => {}
        // Nobody knows whether it started: the keeper finds out.
        Err(error @ gateway::Error::Unreachable { .. }) => return Err(error.into()),
        Err(error) => {
            row::forget(app, &row).await?;
            return Err(error.into());
        }
    }
    let started = row::change(&*app.catalog, &id, |row| Some(RolloutRow { started: true, ..row.clone() })).await?;
    app.rollouts.send_modify(|count| *count += 1);
    Ok(started.unwrap_or(row))
}
