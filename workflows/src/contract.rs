//! The activities that workflows call, by name and type. `activities` implements them with
//! `#[activity(definition = ...)]`, so the compiler checks both ends.

use domain::{
    Commit,
    outcome::{CollectOutcome, ListOutcome, ModelOutcome, ParkOutcome, ProvisionOutcome, SealOutcome, ToolOutcome},
    session::{
        ExecuteInput, HandInput, ListInput, McpCallInput, ModelInput, PageInput, ProvisionInput, ReadLogInput,
        SealInput,
    },
    trial::Tried,
};
use harness::{
    Intake, SessionState,
    rollout::{self, GateInput, GateReport, Rollout},
    whatif,
};
use serde::{Deserialize, Serialize};
use temporalio_common::ActivityError;
use temporalio_macros::activity_definitions;

pub use brain::{CallModel, Decide, DecideRollout, Gate, ReadLog, Seal, Whatif};
pub use hands::{CallMcp, Collect, Execute, FetchPage, ListTools, Park, Provision, Release};

/// Input of `decide`. Not recorded: the commit that comes back is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DecideInput {
    pub state: SessionState,
    pub intake: Intake,
}

/// Input of `decide_rollout`. Not recorded: the state that comes back is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DecideRolloutInput {
    pub state: Rollout,
    pub intake: rollout::Intake,
}

/// Activities on queue `brain`.
pub struct Brain;

#[activity_definitions]
impl Brain {
    /// The next commit of a session. A local activity: no side effects, runs again when its task fails.
    #[activity(name = "decide")]
    pub fn decide(input: DecideInput) -> Result<Commit, ActivityError> {
        unimplemented!()
    }

    /// One model request. A failure of the provider is a result.
    #[activity(name = "call_model")]
    pub fn call_model(input: ModelInput) -> Result<ModelOutcome, ActivityError> {
        unimplemented!()
    }

    /// Copies a closed run into segments and adds them to the manifest.
    #[activity(name = "seal")]
    pub fn seal(input: SealInput) -> Result<SealOutcome, ActivityError> {
        unimplemented!()
    }

    /// One call of the tool that reads the session's own log.
    #[activity(name = "read_log")]
    pub fn read_log(input: ReadLogInput) -> Result<ToolOutcome, ActivityError> {
        unimplemented!()
    }

    /// The next state of a rollout. A local activity: no side effects, runs again when its task fails.
    #[activity(name = "decide_rollout")]
    pub fn decide_rollout(input: DecideRolloutInput) -> Result<Rollout, ActivityError> {
        unimplemented!()
    }

    /// Shows a part of a sample of recorded sessions to a harness.
    #[activity(name = "gate")]
    pub fn gate(input: GateInput) -> Result<GateReport, ActivityError> {
        unimplemented!()
    }

    /// Goes through a recorded session again with something else about it.
    #[activity(name = "whatif")]
    pub fn whatif(input: whatif::Input) -> Result<Tried<whatif::Report>, ActivityError> {
        unimplemented!()
    }
}

/// Activities of hand workers: what any of them can do on queue `hands`, the others on the queue of the hand's host.
pub struct Hands;

#[activity_definitions]
impl Hands {
    #[activity(name = "provision")]
    pub fn provision(input: ProvisionInput) -> Result<ProvisionOutcome, ActivityError> {
        unimplemented!()
    }

    /// Asks MCP servers which tools they have: on queue `hands`, or where the hand is that they live in. A server that does not
    /// answer is a result.
    #[activity(name = "list_tools")]
    pub fn list_tools(input: ListInput) -> Result<ListOutcome, ActivityError> {
        unimplemented!()
    }

    /// One call of a tool of an MCP server that is reached through egress, at most once.
    #[activity(name = "call_mcp")]
    pub fn call_mcp(input: McpCallInput) -> Result<ToolOutcome, ActivityError> {
        unimplemented!()
    }

    /// One page of the web, as the model is shown it. Fetched again if its worker is lost.
    #[activity(name = "fetch_page")]
    pub fn fetch_page(input: PageInput) -> Result<ToolOutcome, ActivityError> {
        unimplemented!()
    }

    /// One tool call, at most once.
    #[activity(name = "execute")]
    pub fn execute(input: ExecuteInput) -> Result<ToolOutcome, ActivityError> {
        unimplemented!()
    }

    /// Output files and the diff, into blobs.
    #[activity(name = "collect")]
    pub fn collect(input: HandInput) -> Result<CollectOutcome, ActivityError> {
        unimplemented!()
    }

    /// Keeps what is in a hand, and leaves the hand as it is.
    #[activity(name = "park")]
    pub fn park(input: HandInput) -> Result<ParkOutcome, ActivityError> {
        unimplemented!()
    }

    /// Ends a hand for good.
    #[activity(name = "release")]
    pub fn release(input: HandInput) -> Result<(), ActivityError> {
        unimplemented!()
    }
}
