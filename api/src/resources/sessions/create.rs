//! Making a session: everything is checked, then the id is taken, then the workflow starts.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::response::IntoResponse;
use axum::{Extension, Json};
use domain::agent::{AgentFacts, HarnessRef, StrategyRef};
use domain::egress::Policy;
use domain::session::{Attributes, Origin, Resource, SessionInput};
use domain::{Event, Status, Summary, Time};
use harness::registry;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use store::catalog::Error as CatalogError;
use store::{Batch, Digest, Durability};
use tracing::Span;

use super::current::Current;
use super::object::Session;
use super::repositories;
use super::row::{self, CreationRow, Projection, SessionRow};
use super::uploads::{self, ResourceParam, Upload};
use super::{agent, catch_up, moment};
use crate::app::App;
use crate::auth::audit::Made;
use crate::body;
use crate::egress;
use crate::error::{ApiError, Result};
use crate::ids;
use crate::media::{Given, Sent};
use crate::metadata::{self, Metadata};
use crate::resources::agents::snapshot::{self, AgentParam};
use crate::resources::environments::{self, config::Config, work::queue};
use crate::resources::events::post::{self, fingerprinted};
use crate::resources::events::retry::Fingerprint;
use crate::resources::events::turn::Turn;
use crate::resources::events::wire::{EventParam, check_initial};
use crate::resources::harnesses;
use crate::resources::rollouts::{self, Assigned};
use crate::resources::vaults;

pub const TITLE_CHARS_MAX: usize = 2048;
const VAULTS_MAX: usize = 50;
const ID_CHARS_MAX: usize = 128;
const SHIMS_MAX: usize = 64;
/// How often a session is given a harness anew because a stage began in between.
const CHOICES_MAX: usize = 10;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSession {
    agent: AgentParam,
    environment_id: String,
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    metadata: Option<Metadata>,
    #[serde(default)]
    vault_ids: Option<Vec<String>>,
    #[serde(default)]
    resources: Option<Vec<ResourceParam>>,
    #[serde(default)]
    initial_events: Option<Vec<EventParam>>,
    #[serde(default)]
    #[schemars(with = "()")]
    budget: Option<Value>,
    /// Ours: `name@version` of the harness, the context strategy, and shims of the harness that are switched off.
    #[serde(default)]
    harness: Option<String>,
    #[serde(default)]
    strategy: Option<StrategyRef>,
    #[serde(default)]
    shims_off: Vec<String>,
}

/// What a session will be, before anything of it is written but blobs.
struct Plan {
    id: String,
    created_at: Timestamp,
    attributes: Attributes,
    uploads: Vec<Upload>,
    events: Vec<Event>,
    /// The one that was asked for; without it the service chooses.
    harness: Option<HarnessRef>,
    /// What its sandboxes may reach.
    policy: Option<Policy>,
}

pub async fn create(State(app): State<App>, given: Given<Json<CreateSession>>) -> Result<Sent<Json<Session>>> {
    let read = |bytes: &[u8]| body::json(if bytes.is_empty() { b"{}" } else { bytes });
    let (fingerprint, body): (_, CreateSession) = fingerprinted(given.request(), read).await?;
    // The client may go away; a session that was begun is finished, so that a retry finds it.
    let begun = tokio::spawn({
        let app = app.clone();
        async move {
            let _turn = app.under_way.enter(&fingerprint).await;
            if let Some(first) = first(&app, &fingerprint).await? {
                return Ok((first, Turn::None));
            }
            let plan = plan(&app, body).await?;
            let turn = Turn::of(&plan.events, None);
            begin(&app, plan, &fingerprint).await.map(|made| (made, turn))
        }
    });
    let ((row, current), turn) = begun.await.map_err(ApiError::internal)??;
    Span::current().record("session_id", &row.id);
    turn.record();
    let session = Session::of(&app, &row, current).await?;
    let made = Extension(Made(row.id.clone()));
    Ok(Sent::new(app.answered.watch((made, Json(session)).into_response(), row.id)))
}

/// The session that an earlier attempt at the same request made.
async fn first(app: &App, fingerprint: &Fingerprint) -> Result<Option<(SessionRow, Current)>> {
    if fingerprint.is_first_attempt() {
        return Ok(None);
    }
    let Some(made) = app.catalog.row::<CreationRow>(fingerprint.hash()).await? else { return Ok(None) };
    let CreationRow { session_id, at } = made.row;
    if !fingerprint.wants(&session_id, moment(at), moment(app.clock.now()), &app.answered) {
        return Ok(None);
    }
    let Some(row) = app.catalog.row::<SessionRow>(&session_id).await? else { return Ok(None) };
    // Where nobody knew whether it started, the engine does.
    catch_up::settle(app, &row.row).await?;
    match app.catalog.row::<SessionRow>(&session_id).await?.filter(|read| read.row.is_there()) {
        Some(read) => Ok(Some((read.row, super::read(app, &session_id).await?))),
        None => Ok(None),
    }
}

async fn plan(app: &App, body: CreateSession) -> Result<Plan> {
    let CreateSession { agent, environment_id, title, metadata, vault_ids, resources, initial_events, .. } = body;
    let CreateSession { budget, harness, strategy, shims_off, .. } = body;
    if budget.is_some() {
        return Err(ApiError::not_built("session budgets"));
    }
    check_title(title.as_deref())?;
    let harness = match harness {
        Some(named) => Some(harnesses::resolve(app, &named).await.map_err(|_| no_harness(&named))?.reference()),
        None => None,
    };
    if let Some(strategy) = &strategy {
        harnesses::check_strategy(strategy)?;
    }
    if shims_off.len() > SHIMS_MAX || shims_off.iter().any(|name| name.len() > ID_CHARS_MAX) {
        return Err(ApiError::field("shims_off", format!("at most {SHIMS_MAX} names of {ID_CHARS_MAX} characters")));
    }
    let metadata = metadata::check(metadata.unwrap_or_default())?;
    let vault_ids = check_vaults(vault_ids.unwrap_or_default())?;
    let variables = vaults::variables(app, &vault_ids).await?;
    let bodies = check_initial(initial_events.unwrap_or_default())?;
    let environment = environments::resolve(app, &environment_id).await?;
    let self_hosted = matches!(environment.config, Config::SelfHosted {});
    let agent = snapshot::resolve(app, agent).await?;

    let (id, created_at) = (ids::new(ids::SESSION), app.clock.now());
    let resources = resources.unwrap_or_default();
    if self_hosted && !resources.is_empty() {
        let problem = "a session in a self-hosted environment takes no file or repository resources";
        return Err(ApiError::field("resources", problem));
    }
    let uploads = uploads::resolve(app, &id, resources, &[], created_at).await?;
    let events = post::accept(app, bodies, created_at).await?;
    let agent = agent::keep(app, &agent).await?;
    agent::check_hands(&agent, self_hosted)?;
    let agent = AgentFacts { strategy: strategy.unwrap_or(agent.strategy), shims_off, ..agent };
    let attached = uploads.iter().map(|upload| upload.resource.clone()).collect::<Vec<Resource>>();
    let attributes = Attributes {
        title,
        metadata,
        environment_id,
        self_hosted,
        vault_ids,
        resources: attached,
        agent,
        tuning: app.tuning,
    };
    let policy = super::policy(app, &id, &attributes, &environment.config, variables).await?;
    Ok(Plan { id, created_at, attributes, uploads, events, harness, policy })
}

fn no_harness(named: &str) -> ApiError {
    ApiError::field("harness", format!("there is no {named}"))
}

pub fn check_title(title: Option<&str>) -> Result<()> {
    match title {
        Some(title) if title.chars().count() > TITLE_CHARS_MAX => {
            Err(ApiError::field("title", format!("must be at most {TITLE_CHARS_MAX} characters")))
        }
        _ => Ok(()),
    }
}

fn check_vaults(ids: Vec<String>) -> Result<Vec<String>> {
    if ids.len() > VAULTS_MAX {
        return Err(ApiError::field("vault_ids", format!("{} vaults, at most {VAULTS_MAX} are allowed", ids.len())));
    }
    if let Some(n) = ids.iter().position(|id| id.is_empty() || id.len() > ID_CHARS_MAX) {
        return Err(ApiError::field(format!("vault_ids[{n}]"), "is not the id of a vault"));
    }
    Ok(ids)
}

async fn begin(app: &App, plan: Plan, fingerprint: &Fingerprint) -> Result<(SessionRow, Current)> {
    let (row, summary) = reserve(app, &plan, fingerprint).await?;
    let Plan { id, created_at, attributes, events, policy, uploads, .. } = plan;
    let (harness, status) = (summary.harness.clone(), status_of(&events));
    let opened = async {
        for Upload { resource, token, .. } in uploads {
            if let Some(token) = token {
                repositories::keep_token(app, &id, &resource.id, token).await?;
            }
        }
        egress::open(app, &id, policy).await
    };
    if let Err(error) = opened.await {
        super::end::forget(app, &id).await?;
        return Err(error);
    }
    let works = !events.is_empty();
    let served_by = attributes.self_hosted.then(|| attributes.environment_id.clone());
    let created_at: Time = moment(created_at);
    let from = Origin::Created { created_at, attributes, harness, events };
    let input = SessionInput { session_id: id.clone(), from };
    let row = super::start(app, row, &input).await?;
    if let Some(environment_id) = served_by {
        queue::want(app, &id, &environment_id).await?;
    }
    if works {
        app.follower.follow(&id);
    }
    Ok((row, Current { summary, status, closing: false }))
}

fn status_of(events: &[Event]) -> Status {
    if events.is_empty() { Status::Idle } else { Status::Running }
}

/// Takes the id, with the files that are the session's own and the blobs that it begins with, and chooses its harness.
/// Chooses again where a rollout went on in between.
async fn reserve(app: &App, plan: &Plan, fingerprint: &Fingerprint) -> Result<(SessionRow, Summary)> {
    let Plan { id, created_at, attributes, uploads, events, .. } = plan;
    let contents = events.iter().filter_map(|event| event.body.content()?.blob());
    let blobs = contents.chain([&attributes.agent.snapshot]).filter_map(|blob| blob.blob.parse().ok());
    let blobs: BTreeSet<Digest> = blobs.chain(uploads.iter().filter_map(Upload::blob)).collect();
    let made = CreationRow { session_id: id.clone(), at: *created_at };
    for _ in 0..CHOICES_MAX {
        let assigned = match &plan.harness {
            Some(named) => Assigned::named(named.clone()),
            None => rollouts::assign(app, id, &attributes.agent.agent_id, registry::default_harness()).await?,
        };
        let summary = Summary::created(moment(*created_at), attributes.clone(), assigned.harness.clone());
        let row = row_of(plan, fingerprint, summary.clone());
        let batch = harnesses::hold(Batch::new(), &assigned.harness, id)?;
        let batch = uploads.iter().fold(row::insert(batch, &row), |batch, upload| upload.keep(batch));
        let batch = blobs.iter().fold(batch, |batch, digest| row::refer(batch, *digest, id));
        let batch = assigned.keep(batch.upsert(&row.creation, &made));
        match app.catalog.write(batch, Durability::Synced).await {
            Err(CatalogError::Conflict { .. }) if plan.harness.is_none() => {}
            written => return written.map(|()| (row, summary)).map_err(ApiError::from),
        }
    }
    Err(ApiError::unavailable("a rollout of harnesses goes on too fast to choose one for the session, try again"))
}

fn row_of(plan: &Plan, fingerprint: &Fingerprint, summary: Summary) -> SessionRow {
    let Plan { id, created_at, attributes, events, .. } = plan;
    SessionRow {
        id: id.clone(),
        created_at: *created_at,
        agent_id: attributes.agent.agent_id.clone(),
        agent_version: attributes.agent.version,
        creation: fingerprint.hash().to_owned(),
        started: false,
        archived_at: None,
        deleted: false,
        sealed: None,
        projection: Some(Projection {
            summary,
            status: status_of(events),
            open: !events.is_empty(),
            outputs: Default::default(),
            referred: 0,
            noted: 0,
            read_to: None,
        }),
    }
}
