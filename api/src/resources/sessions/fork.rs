//! A session that goes on from another one, from any place of its log: with another harness, agent or strategy if that is
//! asked for. What is before the place is shared, not copied; hands are its own.

pub mod onward;

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, State};
use domain::agent::{AgentFacts, HarnessRef, StrategyRef};
use domain::commit::Fork;
use domain::egress::Policy;
use domain::session::{Attributes, Origin, Resource, SessionInput};
use domain::{Status, Summary, ids as derived};
use harness::SessionState;
use harness::replay::state_after;
use log::blobs;
use log::manifest::Manifest;
use log::references::Needed;

use log::session_log::{Base, ForkPoint};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use store::catalog::Error as CatalogError;
use store::{Batch, Digest, Durability};
use tracing::Span;

use super::current::Current;
use super::object::Session;
use super::row::{self, Projection, SessionRow};
use super::{agent, create, moment, repositories};
use crate::app::App;
use crate::body::JsonBody;
use crate::egress;
use crate::error::{ApiError, Kind, Result};
use crate::ids;
use crate::metadata::{self, Metadata};
use crate::resources::agents::snapshot::{self, AgentParam};
use crate::resources::environments::{self, config::Config};
use crate::resources::harnesses;
use crate::resources::vaults;

/// Reference rows that are written in one go.
const STRIDE: usize = 1000;

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForkSession {
    /// A position of the parent's log: the fork has everything before it, down to the beginning of a commit. Without it,
    /// all that is there.
    #[serde(default)]
    at: Option<u64>,
    #[serde(default)]
    harness: Option<String>,
    #[serde(default)]
    strategy: Option<StrategyRef>,
    #[serde(default)]
    agent: Option<AgentParam>,
    #[serde(default)]
    environment_id: Option<String>,
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    metadata: Option<Metadata>,
}

/// What the fork will be, before anything of it is written but blobs.
struct Plan {
    fork: Fork,
    state: SessionState,
    is_harness_named: bool,
    shared: usize,
    needed: BTreeSet<Digest>,
    policy: Option<Policy>,
    /// What the parent had, in the fork's order.
    resources: Vec<Resource>,
}

pub async fn fork(
    State(app): State<App>,
    Path(parent): Path<String>,
    JsonBody(body): JsonBody<ForkSession>,
) -> Result<Json<Session>> {
    row::find(&app, &parent).await?;
    // The client may go away; a session that was begun is finished.
    let begun = tokio::spawn({
        let app = app.clone();
        async move {
            let plan = plan(&app, &parent, body).await?;
            begin(&app, plan).await
        }
    });
    let (row, current) = begun.await.map_err(ApiError::internal)??;
    Span::current().record("session_id", &row.id);
    Ok(Json(Session::of(&app, &row, current).await?))
}

async fn plan(app: &App, parent: &str, body: ForkSession) -> Result<Plan> {
    create::check_title(body.title.as_deref())?;
    let (manifest, state) = before(app, parent, body.at).await?;
    let id = ids::new(ids::SESSION);
    let (attributes, policy) = attributes(app, &id, &state, &body).await?;
    let resources = state.summary.attributes.resources.clone();
    let harness = harness(app, &state, body.harness.as_deref()).await?;
    let created_at = moment(app.clock.now());
    let (parent, goes_on) = (parent.to_owned(), false);
    let fork = Fork { parent, session_id: id, created_at, attributes, harness, goes_on };
    let is_harness_named = body.harness.is_some();
    finish(app, Planned { fork, state, is_harness_named, policy, resources }, manifest, Needed::default()).await
}

/// What the log shares up to a place, and the state there.
async fn before(app: &App, parent: &str, at: Option<u64>) -> Result<(Manifest, SessionState)> {
    let followed = app.session(parent);
    // Whatever its log needs so far has a reference of the parent's: those are what is copied.
    if !followed.keep().await? {
        return Err(ApiError::unavailable("the row of the session to fork could not be written"));
    }
    let (genesis, point) = {
        let mut log = followed.fresh().await?;
        let end = log.end_position();
        let at = at.unwrap_or(end);
        if at > end {
            return Err(ApiError::field("at", format!("is behind the end of the log, which is at {end}")));
        }
        log.fork_point(&*app.blobs, at).await?.ok_or_else(|| {
            let message = "the log does not say what the session began with: it was sealed by an earlier version";
            ApiError::new(Kind::PreconditionFailed, message)
        })?
    };
    let ForkPoint { manifest, base, commits, .. } = point;
    let before: SessionState = match base {
        Base::Genesis => SessionState::created(parent, genesis.created_at, genesis.attributes, genesis.harness),
        Base::Stored(blob) => blobs::get_json(&*app.blobs, &blob).await?,
        Base::Inline(state) => serde_json::from_value(state).map_err(ApiError::internal)?,
    };
    let commits = commits.iter().map(|committed| (**committed).clone()).collect();
    let state = state_after(before, commits).map_err(ApiError::internal)?;
    Ok((manifest, state))
}

/// A fork before its log is written down.
struct Planned {
    fork: Fork,
    /// At the place.
    state: SessionState,
    is_harness_named: bool,
    policy: Option<Policy>,
    resources: Vec<Resource>,
}

/// `needed` is what it needs beside what its manifest and its state name.
async fn finish(app: &App, planned: Planned, mut manifest: Manifest, mut needed: Needed) -> Result<Plan> {
    let Planned { fork, state, is_harness_named, policy, resources } = planned;
    let mut state = state.forked(fork.clone());
    manifest.session_id.clone_from(&fork.session_id);
    let listed = blobs::put_json(&*app.blobs, &manifest).await?;
    needed.manifest(&manifest);
    needed.blob(&listed);
    state.summary.manifest = Some(listed);
    needed.summary(&state.summary);
    for resource in &state.summary.attributes.resources {
        resource.kind.blob().into_iter().for_each(|blob| needed.blob(blob));
    }
    needed.resolve(&*app.blobs).await?;
    let (shared, needed) = (manifest.count(), needed.blobs);
    Ok(Plan { fork, state, is_harness_named, shared, needed, policy, resources })
}

/// The parent's, with what was asked for otherwise.
async fn attributes(
    app: &App,
    id: &str,
    state: &SessionState,
    body: &ForkSession,
) -> Result<(Attributes, Option<Policy>)> {
    let mut attributes = state.summary.attributes.clone();
    let environment_id = body.environment_id.as_ref().unwrap_or(&attributes.environment_id).clone();
    let environment = environments::resolve(app, &environment_id).await?;
    attributes.self_hosted = matches!(environment.config, Config::SelfHosted {});
    attributes.environment_id = environment_id;
    if let Some(param) = &body.agent {
        let resolved = snapshot::resolve(app, param.clone()).await?;
        let strategy = attributes.agent.strategy.clone();
        attributes.agent = AgentFacts { strategy, ..agent::keep(app, &resolved).await? };
    }
    agent::check_hands(&attributes.agent, attributes.self_hosted)?;
    if let Some(strategy) = &body.strategy {
        harnesses::check_strategy(strategy)?;
        attributes.agent.strategy.clone_from(strategy);
    }
    if body.title.is_some() {
        attributes.title.clone_from(&body.title);
    }
    if let Some(given) = &body.metadata {
        attributes.metadata = metadata::check(given.clone())?;
    }
    for resource in &mut attributes.resources {
        resource.id = derived::derive(ids::RESOURCE, &[&state.session_id, &resource.id]);
    }
    let variables = vaults::variables(app, &attributes.vault_ids).await?;
    let policy = super::policy(app, id, &attributes, &environment.config, variables).await?;
    Ok((attributes, policy))
}

async fn harness(app: &App, state: &SessionState, named: Option<&str>) -> Result<HarnessRef> {
    match named {
        Some(named) => Ok(harnesses::resolve(app, named)
            .await
            .map_err(|_| ApiError::field("harness", format!("there is no {named}")))?
            .reference()),
        None => Ok(state.summary.harness.clone()),
    }
}

async fn begin(app: &App, plan: Plan) -> Result<(SessionRow, Current)> {
    let Plan { fork, state, is_harness_named, shared, needed, policy, resources } = plan;
    let id = &fork.session_id;
    // What its parent holds is shared with it below.
    let named = is_harness_named.then_some(&fork.harness);
    let row = reserve(app, &fork, &state, named, shared, needed).await?;
    let begun = async {
        share(app, &fork.parent, id).await?;
        repositories::copy_tokens(app, (&fork.parent, &resources), (id, &fork.attributes.resources)).await?;
        egress::open(app, id, policy).await
    };
    if let Err(error) = begun.await {
        super::end::forget(app, id).await?;
        return Err(error);
    }
    let summary = state.summary.clone();
    let state: Value = serde_json::to_value(&state).map_err(ApiError::internal)?;
    let input = SessionInput { session_id: id.clone(), from: Origin::Forked { state: Box::new(state) } };
    let row = super::start(app, row, &input).await?;
    app.follower.follow(id);
    let status = first_status(&fork, &summary);
    Ok((row, Current { summary, status, closing: false }))
}

/// Where nothing goes on, its first decision lets it rest.
fn first_status(fork: &Fork, summary: &Summary) -> Status {
    match fork.goes_on {
        true => summary.status,
        false => Status::Idle,
    }
}

/// Takes the id, with what the fork needs beside what it shares.
async fn reserve(
    app: &App,
    fork: &Fork,
    state: &SessionState,
    named: Option<&HarnessRef>,
    shared: usize,
    needed: BTreeSet<Digest>,
) -> Result<SessionRow> {
    let agent = &fork.attributes.agent;
    let row = SessionRow {
        id: fork.session_id.clone(),
        created_at: jiff::Timestamp::from_millisecond(fork.created_at.as_ms()).map_err(ApiError::internal)?,
        agent_id: agent.agent_id.clone(),
        agent_version: agent.version,
        creation: format!("fork-{}", fork.session_id),
        started: false,
        archived_at: None,
        deleted: false,
        sealed: None,
        projection: Some(Projection {
            summary: state.summary.clone(),
            status: first_status(fork, &state.summary),
            open: true,
            outputs: Default::default(),
            // What commits before it need, the parent's references say.
            referred: state.summary.n,
            noted: shared,
            read_to: None,
        }),
    };
    let mut batch = row::insert(Batch::new(), &row);
    if let Some(named) = named {
        batch = harnesses::require(batch, named)?;
    }
    for digest in needed {
        batch = row::refer(batch, digest, &row.id);
    }
    match app.catalog.write(batch, Durability::Synced).await {
        Err(CatalogError::Conflict { .. }) => Err(harnesses::removed(&fork.harness)),
        written => Ok(written.map(|()| row)?),
    }
}

/// Refers to everything that the parent refers to. Whoever is there at the end was there all along: nothing of it can have
/// been swept before the fork referred to it.
async fn share(app: &App, parent: &str, id: &str) -> Result<()> {
    let digests = row::referred(&*app.catalog, parent, usize::MAX).await?;
    for digests in digests.chunks(STRIDE) {
        let batch = digests.iter().fold(Batch::new(), |batch, digest| row::refer(batch, *digest, id));
        app.catalog.write(batch, Durability::Synced).await?;
    }
    row::find(app, parent).await.map(drop)
}
