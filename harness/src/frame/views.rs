//! What a harness gets to see, in every version of the View.

use super::draft::Draft;
use crate::view::{AgentView, CallView, ContextView, Last, Queued, VERSION, View};
use domain::{ids, outcome::ModelDigest};

/// One moment of a session, seen by a harness of any View version.
pub struct Views(View);

impl Views {
    pub(super) fn of(draft: &Draft<'_>) -> Self {
        Views(whole(draft))
    }

    /// The View of a version; older versions come out as they did when they were new.
    pub fn at(&self, version: u32) -> View {
        self.0.clone().at(version)
    }
}

/// Everything, before it is cut to size.
fn whole(draft: &Draft<'_>) -> View {
    let state = &draft.state;
    let last = state.last.as_ref().map(|last| match last {
        ModelDigest::Answer { stop_reason, usage, blocks, refusal, .. } => Last::Answer {
            stop_reason: stop_reason.clone(),
            usage: *usage,
            blocks: blocks.clone(),
            refusal: refusal.clone(),
        },
        ModelDigest::Failed { failure } => Last::Failed { failure: failure.clone(), tries: state.tries },
    });
    let queued = draft.intake.mail.iter().filter(|waiting| waiting.is_input() && !draft.has_taken(waiting.id()));
    let agent = &state.summary.attributes.agent;
    View {
        version: VERSION,
        now: draft.now,
        seed: seed(&state.session_id, state.summary.n),
        turn: state.summary.turn,
        round: state.round,
        last,
        calls: state
            .calls
            .iter()
            .map(|call| CallView {
                tool_use_id: call.tool_use_id.clone(),
                name: call.name.clone(),
                input_sha256: call.input_sha256.clone(),
            })
            .collect(),
        results: state.results.clone(),
        queued: queued.map(|waiting| Queued { id: waiting.id().to_owned(), kind: "user.message".to_owned() }).collect(),
        context: ContextView {
            tokens: state.context.tokens + state.context.bytes_since / 4,
            window_tokens: agent.window_tokens,
            end: Some(state.summary.position),
            compactions: Some(state.marks.compactions),
        },
        agent: AgentView {
            model: agent.model.clone(),
            tools: agent.tools.clone(),
            strategy: state.strategy_now().clone(),
            shims_off: agent.shims_off.clone(),
        },
        memo: state.memo.clone(),
    }
}

/// Chance for a decision, from the log alone.
fn seed(session_id: &str, n: u64) -> u64 {
    let digest = ids::content_hash(format!("{session_id}/{n}").as_bytes());
    u64::from_str_radix(&digest[..16], 16).expect("a digest is hex")
}
