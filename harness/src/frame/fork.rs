//! The first commit of a session that goes on from another one: what was under way there ends here, and the session rests; or it
//! goes on.

use super::{draft::Draft, mail};
use crate::state::Op;
use domain::{EventBody, PrivateEntry, Status, Usage, commit::Closed, event::StopReason};

const FORKED: &str = "The tool was not run in this session: it was still under way where the session was forked. Retry it if it is needed.";

pub fn begin(draft: &mut Draft<'_>) {
    let Some(fork) = draft.state.fork.clone() else { return };
    let goes_on = fork.goes_on;
    draft.note(PrivateEntry::Forked { fork: Box::new(fork) });
    if goes_on {
        return;
    }
    for pending in draft.state.pending.clone() {
        draft.closed(&pending.activity, Closed::Cancelled);
        match pending.op {
            Op::CallModel { span_id, .. } | Op::Compact { span_id, .. } => {
                draft.emit(EventBody::SpanModelRequestEnd {
                    model_request_start_id: span_id,
                    is_error: Some(true),
                    model_usage: Usage::default(),
                });
            }
            Op::Execute { call } => draft.tool_error(&call, FORKED),
            Op::Provision { .. }
            | Op::Timer { .. }
            | Op::ListTools { .. }
            | Op::Seal { .. }
            | Op::Collect { .. }
            | Op::Rest { .. }
            | Op::Park { .. }
            | Op::Discard { .. }
            | Op::Hand { .. }
            | Op::Release { .. } => {}
        }
    }
    mail::end_calls(draft, FORKED);
    if draft.state.summary.status != Status::Idle {
        draft.idle(StopReason::EndTurn {}, None);
    }
}
