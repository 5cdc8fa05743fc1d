//! Another context strategy under a live session, from its next model request on.

use axum::Json;
use axum::extract::{Path, State};
use domain::agent::StrategyRef;
use domain::session::StrategyChange;
use harness::context;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::session_row;
use crate::app::App;
use crate::body::JsonBody;
use crate::error::{ApiError, Result};
use crate::resources::sessions::change::{self, Edit};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeStrategy {
    strategy: StrategyRef,
    /// For the turn that is on, or the next one, and no longer.
    #[serde(default)]
    turn: bool,
}

#[derive(Serialize, JsonSchema)]
pub struct StrategyChanged {
    #[serde(rename = "type")]
    #[schemars(extend("const" = "strategy_change"))]
    kind: &'static str,
    session_id: String,
    from: StrategyRef,
    to: StrategyRef,
    turn: bool,
}

/// A strategy that a request names, by its field `strategy`.
pub fn check(strategy: &StrategyRef) -> Result<()> {
    context::check(strategy).map_err(|error| ApiError::field("strategy", format!("names {error}")))
}

pub async fn change(
    State(app): State<App>,
    Path(id): Path<String>,
    JsonBody(ChangeStrategy { strategy, turn }): JsonBody<ChangeStrategy>,
) -> Result<Json<StrategyChanged>> {
    session_row::find(&app, &id).await?;
    check(&strategy)?;
    let to = strategy.clone();
    let edited = change::apply(&app, &id, async |current| {
        let from = current.summary.attributes.agent.strategy.clone();
        let is_news = turn || from != strategy;
        let strategy = is_news.then(|| Box::new(StrategyChange { strategy, turn }));
        Ok((Edit { strategy, ..Edit::default() }, from))
    });
    let (from, _) = edited.await?;
    Ok(Json(StrategyChanged { kind: "strategy_change", session_id: id, from, to, turn }))
}
