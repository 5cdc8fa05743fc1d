//! Hands: where tools run. One trait for all providers, and the activities that use it.
//!
//! Every outcome of a tool is a result. Only a lost worker is a failure of the activity, and then the next attempt
//! asks the hand's journal what became of the call.

mod knock;
mod local;
mod mcp;
mod nesting;
mod packages;
mod pieces;
mod repositories;
pub mod web;

pub use local::Local;
pub use mcp::McpServers;
use mcp::inside;

use crate::beat::beating;
use async_trait::async_trait;
use domain::{
    Content, Event, EventBody, Failure,
    agent::{AgentSnapshot, ToolKind},
    content::{Block, Json},
    event::ErrorBody,
    fault::{self, Point},
    ids,
    limits::VIEW_RESULT_HEAD_BYTES,
    outcome::{Call, CollectOutcome, ListOutcome, ParkOutcome, ProvisionOutcome, ToolDigest, ToolOutcome},
    session::{
        ExecuteInput, HandInput, HandRef, ListInput, McpCallInput, OutputFile, PageInput, ProvisionInput, Workspace,
    },
};
use serde_json::Value;
use std::sync::Arc;
use store::Blobs;
use temporalio_macros::activities;
use temporalio_sdk::activities::{ActivityContext, ActivityError};
use tracing::{Instrument, field::Empty, info, info_span};
use workflows::contract;

/// One call of a tool, by the identity that the hand's journal knows.
#[derive(Clone, Debug)]
pub struct ToolCall {
    pub id: String,
    pub name: String,
    pub input: Value,
}

/// What became of a call.
#[derive(Clone, Debug)]
pub struct Executed {
    pub content: Vec<Block>,
    pub is_error: bool,
    /// Nothing survived that could tell what the call did.
    pub lost: bool,
    /// The hand is gone with everything in it.
    pub hand_lost: bool,
}

impl Executed {
    /// A result that no tool produced.
    pub fn error(text: impl Into<String>) -> Self {
        Executed { content: vec![Block::text(text)], is_error: true, lost: false, hand_lost: false }
    }

    /// The hand cannot be reached and nothing of it is left.
    pub fn hand_lost(why: &str) -> Self {
        let text = format!(
            "lost: the sandbox is gone ({why}). The call may or may not have taken effect; files that were only in the \
             sandbox are lost. The next tool call gets a new sandbox."
        );
        Executed { lost: true, hand_lost: true, ..Executed::error(text) }
    }
}

/// A hand, and what of its recipe it does without.
#[derive(Clone, Debug)]
pub struct Provisioned {
    pub hand: HandRef,
    pub problems: Vec<ErrorBody>,
}

impl From<HandRef> for Provisioned {
    fn from(hand: HandRef) -> Self {
        Provisioned { hand, problems: Vec::new() }
    }
}

/// A way to have hands. Everything is idempotent: a worker that was lost in the middle is followed by another
/// that asks for the same again.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Makes the hand of this id, or finds it.
    async fn provision(&self, input: &ProvisionInput) -> Result<Provisioned, Failure>;

    /// Runs a call at most once, or gets what became of it.
    async fn execute(&self, hand: &HandRef, call: ToolCall) -> Executed;

    /// Ends a call that is running; its `execute` then returns.
    async fn cancel(&self, hand: &HandRef, call_id: &str);

    /// Files and the diff that the hand holds; `None` where the hand is gone.
    async fn collect(&self, hand: &HandRef) -> Result<Option<Vec<OutputFile>>, Failure>;

    /// Keeps what is in the hand, so that another one can begin with it; `None` where the hand is gone. The hand stays as it
    /// is, but that nothing may run in it meanwhile.
    async fn park(&self, hand: &HandRef) -> Result<Option<Workspace>, Failure>;

    /// Ends a hand and removes everything of it.
    async fn release(&self, hand: &HandRef) -> Result<(), Failure>;
}

/// What a model has to know before it relies on what it remembers.
const RESTORED: &str = "[This sandbox begins with what was in an earlier one: /workspace and /mnt/session/outputs are as they \
    were left; processes, shell variables, /tmp and the home folder are not.]";

/// The activities of a hand worker.
pub struct HandsActivities {
    provider: Arc<dyn Provider>,
    blobs: Arc<dyn Blobs>,
    mcp: McpServers,
}

impl HandsActivities {
    pub fn new(provider: Arc<dyn Provider>, blobs: Arc<dyn Blobs>, mcp: McpServers) -> Self {
        HandsActivities { provider, blobs, mcp }
    }

    async fn input(&self, call: &Call) -> Result<Value, log::blobs::Error> {
        let mut input = call.input.clone();
        log::blobs::resolve_json(&*self.blobs, &mut input).await?;
        let Json::Inline { mut value } = input else { unreachable!("it was resolved above") };
        // Which hand it is for was for us; tools know nothing of it.
        if call.kind == ToolKind::Builtin
            && let Some(fields) = value.as_object_mut()
            && fields.get("hand").is_some_and(|named| named == call.hand.as_str())
        {
            fields.remove("hand");
        }
        Ok(value)
    }

    async fn run(&self, ctx: &ActivityContext, input: &ExecuteInput) -> Result<Executed, log::blobs::Error> {
        let Some(call) = self.tool_call(input).await? else {
            return Ok(Executed::error(
                "The agent knows no such MCP server in a sandbox any more; nothing was called.",
            ));
        };
        let id = call.id.clone();
        let mut execute = std::pin::pin!(self.provider.execute(&input.hand, call));
        tokio::select! {
            executed = &mut execute => return Ok(executed),
            () = ctx.cancelled() => info!("call is being ended"),
        }
        // The result says what was ended, and only comes when it is proven dead.
        self.provider.cancel(&input.hand, &id).await;
        Ok(execute.await)
    }

    /// What the hand is given; none for a server that the agent does not have.
    async fn tool_call(&self, input: &ExecuteInput) -> Result<Option<ToolCall>, log::blobs::Error> {
        let (call, arguments) = (&input.call, self.input(&input.call).await?);
        let ToolKind::Mcp { server, tool, .. } = &call.kind else {
            return Ok(Some(ToolCall { id: call.tool_use_id.clone(), name: call.name.clone(), input: arguments }));
        };
        let Some(snapshot) = &input.snapshot else { return Ok(None) };
        let agent: AgentSnapshot = log::blobs::get_json(&*self.blobs, snapshot).await?;
        Ok(inside::tool_call(&agent, &call.tool_use_id, server, tool, arguments))
    }

    /// Nothing at the other end knows a call again: it is made by the first attempt or by none.
    async fn call_once(
        &self,
        input: &McpCallInput,
        attempt: u32,
        interrupted: impl Future<Output = ()>,
    ) -> Result<Executed, log::blobs::Error> {
        let McpCallInput { session_id, server, tool, call, .. } = input;
        // Before anything else: as long as this fails, no attempt has called anybody.
        let arguments = self.input(call).await?;
        if attempt > 1 {
            return Ok(mcp::lost("the worker that may have made the call is gone"));
        }
        tokio::select! {
            executed = self.mcp.call(session_id, server, tool, arguments) => Ok(executed),
            () = interrupted => Ok(mcp::lost("the call was interrupted")),
        }
    }
}

#[activities]
impl HandsActivities {
    #[activity(definition = contract::Provision)]
    pub async fn provision(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: ProvisionInput,
    ) -> Result<ProvisionOutcome, ActivityError> {
        let ProvisionInput { session_id, hand: hand_id, turn_event, .. } = &input;
        let attempt = ctx.info().attempt;
        let span = info_span!("provision", session_id, hand_id, turn_event, attempt, error_type = Empty);
        let provisioned = beating(&ctx, self.provider.provision(&input)).instrument(span.clone()).await;
        fault::pass(Point::HandProvisioned);
        Ok(match provisioned {
            Ok(Provisioned { hand, problems }) => {
                if !problems.is_empty() {
                    span.record("error_type", "no_repository");
                }
                ProvisionOutcome::Ready { hand, problems }
            }
            Err(failure) => {
                span.record("error_type", "no_hand");
                ProvisionOutcome::Failed { failure }
            }
        })
    }

    #[activity(definition = contract::Execute)]
    pub async fn execute(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: ExecuteInput,
    ) -> Result<ToolOutcome, ActivityError> {
        let info = ctx.info();
        let (activity_id, attempt) = (info.activity_id.clone(), info.attempt);
        let ExecuteInput { session_id, hand: HandRef { hand: hand_id, .. }, call, turn_event, .. } = &input;
        let span = info_span!(
            "execute",
            session_id,
            hand_id,
            turn_event,
            activity = activity_id,
            attempt,
            tool = call.name,
            tool_use_id = call.tool_use_id,
            error_type = Empty,
        );
        fault::pass(Point::ExecuteDispatched);
        let mut executed = beating(&ctx, self.run(&ctx, &input)).instrument(span.clone()).await?;
        if matches!(input.call.kind, ToolKind::Mcp { .. }) {
            executed = inside::executed(executed);
        }
        fault::pass(Point::ToolFinished);
        if executed.is_error {
            span.record("error_type", if executed.lost { "lost" } else { "tool_error" });
        }
        drop(span);
        if input.restored {
            executed.content.push(Block::text(RESTORED));
        }
        // The same for every attempt: what the journal gives back is the same event.
        let id = ids::derive(ids::prefix::EVENT, &[&input.session_id, &input.call.tool_use_id, "result"]);
        Ok(outcome(&*self.blobs, id, &input.call, executed).await?)
    }

    #[activity(definition = contract::ListTools)]
    pub async fn list_tools(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: ListInput,
    ) -> Result<ListOutcome, ActivityError> {
        let ListInput { session_id, turn_event, hand, .. } = &input;
        let (activity, attempt) = (ctx.info().activity_id.clone(), ctx.info().attempt);
        let hand_id = hand.as_ref().map(|hand| hand.hand.as_str());
        let span = info_span!("list_tools", session_id, turn_event, hand_id, attempt, error_type = Empty);
        let listing = async {
            match hand {
                None => self.mcp.list(&*self.blobs, &input).await,
                Some(hand) => inside::list(&*self.provider, &*self.blobs, &input, hand, &activity).await,
            }
        };
        let listed = beating(&ctx, listing).instrument(span.clone()).await?;
        if !listed.problems.is_empty() {
            span.record("error_type", "mcp_server");
        }
        Ok(listed)
    }

    #[activity(definition = contract::CallMcp)]
    pub async fn call_mcp(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: McpCallInput,
    ) -> Result<ToolOutcome, ActivityError> {
        let info = ctx.info();
        let (activity_id, attempt) = (info.activity_id.clone(), info.attempt);
        let McpCallInput { session_id, server, tool, call, turn_event } = &input;
        let tool_use_id = &call.tool_use_id;
        let span = info_span!(
            "call_mcp",
            session_id,
            turn_event,
            activity = activity_id,
            attempt,
            server,
            tool,
            tool_use_id,
            error_type = Empty,
        );
        let calling = self.call_once(&input, attempt, ctx.cancelled());
        let executed = beating(&ctx, calling).instrument(span.clone()).await?;
        if executed.is_error {
            span.record("error_type", if executed.lost { "lost" } else { "tool_error" });
        }
        drop(span);
        let id = ids::derive(ids::prefix::EVENT, &[session_id, tool_use_id, "result"]);
        Ok(outcome(&*self.blobs, id, call, executed).await?)
    }

    #[activity(definition = contract::FetchPage)]
    pub async fn fetch_page(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: PageInput,
    ) -> Result<ToolOutcome, ActivityError> {
        let info = ctx.info();
        let (activity_id, attempt) = (info.activity_id.clone(), info.attempt);
        let PageInput { session_id, snapshot, call, turn_event } = &input;
        let tool_use_id = &call.tool_use_id;
        let span = info_span!(
            "fetch_page",
            session_id,
            turn_event,
            activity = activity_id,
            attempt,
            tool = call.name,
            tool_use_id,
            error_type = Empty,
        );
        let fetching = async {
            let agent: AgentSnapshot = log::blobs::get_json(&*self.blobs, snapshot).await?;
            let asked = self.input(call).await?;
            let settings = agent.web_fetch.unwrap_or_default();
            tokio::select! {
                executed = web::fetch(self.mcp.sockets(), session_id, &asked, &settings) => Ok::<_, log::blobs::Error>(executed),
                () = ctx.cancelled() => Ok(Executed::error("unavailable: the call was interrupted")),
            }
        };
        let executed = beating(&ctx, fetching).instrument(span.clone()).await?;
        if executed.is_error {
            span.record("error_type", "tool_error");
        }
        drop(span);
        let id = ids::derive(ids::prefix::EVENT, &[session_id, tool_use_id, "result"]);
        Ok(outcome(&*self.blobs, id, call, executed).await?)
    }

    #[activity(definition = contract::Collect)]
    pub async fn collect(
        self: Arc<Self>,
        ctx: ActivityContext,
        input: HandInput,
    ) -> Result<CollectOutcome, ActivityError> {
        let HandInput { session_id, hand: HandRef { hand: hand_id, .. }, turn_event, .. } = &input;
        let span = info_span!("collect", session_id, hand_id, turn_event);
        let collected = beating(&ctx, self.provider.collect(&input.hand)).instrument(span).await;
        let files = match collected {
            Ok(Some(files)) => files,
            Ok(None) => return Ok(CollectOutcome { listing: None }),
            Err(failure) => {
                tracing::warn!(kind = ?failure.kind, "outputs not collected");
                return Ok(CollectOutcome { listing: None });
            }
        };
        let listing = log::blobs::put_json(&*self.blobs, &files).await?;
        let is_new = input.last_listing.as_ref() != Some(&listing.blob);
        Ok(CollectOutcome { listing: is_new.then_some(listing) })
    }

    #[activity(definition = contract::Park)]
    pub async fn park(self: Arc<Self>, ctx: ActivityContext, input: HandInput) -> Result<ParkOutcome, ActivityError> {
        let HandInput { session_id, hand: HandRef { hand: hand_id, .. }, turn_event, .. } = &input;
        let span = info_span!("park", session_id, hand_id, turn_event, error_type = Empty);
        let kept = beating(&ctx, self.provider.park(&input.hand)).instrument(span.clone()).await;
        fault::pass(Point::HandKept);
        Ok(match kept {
            Ok(Some(workspace)) => ParkOutcome::Parked { workspace },
            Ok(None) => ParkOutcome::Gone {},
            Err(failure) => {
                span.record("error_type", "not_parked");
                ParkOutcome::Kept { failure }
            }
        })
    }

    #[activity(definition = contract::Release)]
    pub async fn release(self: Arc<Self>, ctx: ActivityContext, input: HandInput) -> Result<(), ActivityError> {
        let HandInput { session_id, hand: HandRef { hand: hand_id, .. }, turn_event, .. } = &input;
        let span = info_span!("release", session_id, hand_id, turn_event);
        let released = beating(&ctx, self.provider.release(&input.hand)).instrument(span).await;
        if let Err(failure) = released {
            // Its lease ends it all the same.
            tracing::warn!(kind = ?failure.kind, "hand not released");
        }
        Ok(())
    }
}

pub(crate) async fn outcome(
    blobs: &dyn Blobs,
    event_id: String,
    call: &Call,
    executed: Executed,
) -> Result<ToolOutcome, log::blobs::Error> {
    let content = Content::Inline(executed.content);
    let digest = ToolDigest {
        lost: executed.lost,
        hand_lost: executed.hand_lost,
        ..harness::intake::result_digest(&call.tool_use_id, &content, executed.is_error)
    };
    debug_assert!(digest.head.len() <= VIEW_RESULT_HEAD_BYTES);
    let (tool_use_id, is_error) = (call.tool_use_id.clone(), Some(executed.is_error));
    let body = match call.kind {
        ToolKind::Mcp { .. } => EventBody::AgentMcpToolResult { mcp_tool_use_id: tool_use_id, content, is_error },
        ToolKind::Builtin | ToolKind::Custom | ToolKind::Log | ToolKind::Web => {
            EventBody::AgentToolResult { tool_use_id, content, is_error }
        }
    };
    let mut event = Event { id: event_id, body, processed_at: None };
    log::blobs::offload(blobs, &mut event).await?;
    Ok(ToolOutcome { digest, events: vec![event] })
}

/// Name, description and input schema of every tool that hands have.
pub fn tools() -> impl Iterator<Item = (&'static str, &'static str, Value)> {
    hand::tools::TOOLS.iter().map(|tool| (tool.name, tool.description, (tool.schema)()))
}

#[cfg(test)]
mod tests;
