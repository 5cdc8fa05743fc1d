//! What clients sent: interrupts first, then answers, then attribute changes. Messages wait for a turn
//! boundary (`turn`).

use super::{draft::Draft, rest};
use crate::{
    intake::{Intake, Waiting},
    state::{Blocker, Op, SessionState},
};
use domain::{
    EventBody, PrivateEntry, Status, Usage,
    commit::Closed,
    event::StopReason,
    outcome::Call,
    session::{Change, Swap},
};

/// Whether some mail can be acted on now. What must wait (messages in a turn, an interrupt while tools are
/// dying) is acted on when something else happens.
pub fn is_due(state: &SessionState, intake: &Intake) -> bool {
    if state.summary.status == Status::Terminated {
        return !intake.mail.is_empty();
    }
    intake.mail.iter().any(|waiting| match waiting {
        Waiting::Message { .. } | Waiting::System { .. } => state.summary.status == Status::Idle,
        Waiting::Interrupt { .. } => !is_stopping(state),
        Waiting::Give { give } => state.summary.status.is_idle() && state.work(&give.name).giving.is_none(),
        Waiting::Confirmation { .. }
        | Waiting::Answer { .. }
        | Waiting::Change { .. }
        | Waiting::Swap { .. }
        | Waiting::Handed { .. }
        | Waiting::Close { .. } => true,
    })
}

fn is_stopping(state: &SessionState) -> bool {
    state.pending.iter().any(|pending| pending.cancelling)
}

pub fn sort(draft: &mut Draft<'_>) {
    let intake = draft.intake;
    if draft.state.summary.status == Status::Terminated {
        return late(draft);
    }
    if intake.mail.iter().any(|waiting| matches!(waiting, Waiting::Interrupt { .. } | Waiting::Close { .. })) {
        stop(draft);
    }
    for waiting in &intake.mail {
        match waiting {
            Waiting::Confirmation { id, tool_use_id, allow, deny_message } => {
                confirm(draft, id, tool_use_id, *allow, deny_message.as_deref());
            }
            Waiting::Answer { id, digest } => answer(draft, id, &digest.tool_use_id),
            Waiting::Change { change } => self::change(draft, change),
            Waiting::Swap { swap } => self::swap(draft, swap),
            Waiting::Handed { handed } => rest::handed(draft, handed),
            // When the session rests.
            Waiting::Give { .. } => {}
            Waiting::Message { .. } | Waiting::System { .. } | Waiting::Interrupt { .. } | Waiting::Close { .. } => {}
        }
    }
}

/// Stops what is under way. The interrupt itself is applied when everything has stopped (`turn::go_on`).
fn stop(draft: &mut Draft<'_>) {
    for close in draft.intake.mail.iter().filter_map(|waiting| match waiting {
        Waiting::Close { close } => Some(close),
        _ => None,
    }) {
        draft.note(PrivateEntry::CloseRequested { id: close.id.clone() });
    }
    let mut dying = Vec::new();
    for pending in draft.state.pending.clone() {
        match &pending.op {
            // An answer that is still coming is not waited for; nothing outside depends on it.
            Op::CallModel { span_id, .. } | Op::Compact { span_id, .. } => {
                draft.closed(&pending.activity, Closed::Cancelled);
                draft.emit(EventBody::SpanModelRequestEnd {
                    model_request_start_id: span_id.clone(),
                    is_error: Some(true),
                    model_usage: Usage::default(),
                });
            }
            // A hand that comes too late has a lease that ends it.
            Op::Timer { .. } | Op::Provision { .. } | Op::ListTools { .. } => {
                draft.closed(&pending.activity, Closed::Cancelled)
            }
            // Never dispatched: nothing can have happened.
            Op::Execute { call } if !pending.dispatched => {
                draft.closed(&pending.activity, Closed::Cancelled);
                draft.tool_error(call, INTERRUPTED);
            }
            Op::Execute { .. } if !pending.cancelling => dying.push(pending.activity),
            Op::Execute { .. }
            | Op::Seal { .. }
            | Op::Collect { .. }
            | Op::Rest { .. }
            | Op::Park { .. }
            | Op::Discard { .. }
            | Op::Hand { .. }
            | Op::Release { .. } => {}
        }
    }
    if !dying.is_empty() {
        draft.note(PrivateEntry::Cancelling { activities: dying });
    }
}

/// The call did not complete; asking again is the model's choice.
const INTERRUPTED: &str =
    "The tool execution was interrupted by the user before it completed. Retry it if it is still needed.";

/// Applies the interrupts that wait, now that nothing is under way: open calls get results, the turn ends.
/// Returns false when there is none.
pub fn interrupt(draft: &mut Draft<'_>) -> bool {
    let interrupts: Vec<String> = draft
        .intake
        .mail
        .iter()
        .filter_map(|waiting| match waiting {
            Waiting::Interrupt { id } => Some(id.clone()),
            _ => None,
        })
        .collect();
    if interrupts.is_empty() && !draft.state.closing {
        return false;
    }
    let was_idle = draft.state.summary.status == Status::Idle;
    end_calls(draft, INTERRUPTED);
    for id in &interrupts {
        draft.accept(id);
    }
    if !was_idle {
        draft.idle(StopReason::EndTurn {}, None);
    }
    true
}

/// Every use must have a result, or no later request is valid.
pub fn end_calls(draft: &mut Draft<'_>, text: &str) {
    let blocked = draft.state.blocked.iter().map(|blocked| &blocked.call);
    let open: Vec<Call> = draft.state.calls.iter().chain(blocked).cloned().collect();
    for call in open {
        draft.tool_error(&call, text);
    }
}

fn confirm(draft: &mut Draft<'_>, id: &str, tool_use_id: &str, allow: bool, deny_message: Option<&str>) {
    let mut asked = draft.state.blocked.iter().filter(|blocked| blocked.on == Blocker::Ask);
    let asked = asked.find(|blocked| blocked.call.tool_use_id == tool_use_id).map(|blocked| blocked.call.clone());
    let Some(call) = asked else { return draft.ignore(id) };
    draft.accept(id);
    if !allow {
        let text = match deny_message {
            Some(message) if !message.is_empty() => format!("The user denied this tool call: {message}"),
            _ => "The user denied this tool call.".to_owned(),
        };
        draft.tool_error(&call, text);
    }
}

fn answer(draft: &mut Draft<'_>, id: &str, tool_use_id: &str) {
    let waits = draft.state.blocked.iter().any(|blocked| {
        matches!(blocked.on, Blocker::Custom | Blocker::SelfHosted) && blocked.call.tool_use_id == tool_use_id
    });
    // A result may come before its call was dispatched: "as soon as the use event appears".
    let early = draft.state.calls.iter().any(|call| call.tool_use_id == tool_use_id);
    if waits || early { draft.accept(id) } else { draft.ignore(id) }
}

fn change(draft: &mut Draft<'_>, change: &Change) {
    let is_idle = draft.state.summary.status.is_idle();
    let dropped = change.agent.is_some() && !is_idle;
    draft.note(PrivateEntry::Changed { id: change.id.clone(), dropped });
    let agent = change.agent.as_ref().map(|agent| agent.public.clone());
    let body = EventBody::SessionUpdated {
        agent: if dropped { None } else { agent },
        title: change.title.clone(),
        metadata: change.metadata.clone(),
    };
    let changes_something_public =
        change.title.is_some() || change.metadata.is_some() || (change.agent.is_some() && !dropped);
    if changes_something_public {
        draft.emit(body);
    }
}

fn swap(draft: &mut Draft<'_>, swap: &Swap) {
    draft.note(PrivateEntry::SwapRequested { id: swap.id.clone(), harness: swap.harness.clone() });
}

/// Mail to a session that is over: in the log, without effect.
fn late(draft: &mut Draft<'_>) {
    for waiting in &draft.intake.mail {
        match waiting {
            Waiting::Change { change } => draft.note(PrivateEntry::Changed { id: change.id.clone(), dropped: true }),
            Waiting::Swap { swap } => self::swap(draft, swap),
            Waiting::Give { give } => {
                draft.note(PrivateEntry::Giving { give: give.clone() });
                let reason = "the session is over".to_owned();
                draft.note(PrivateEntry::NotGiven { reason, name: give.name.clone() });
            }
            Waiting::Handed { handed } => rest::refuse(draft, handed),
            Waiting::Close { close } => draft.note(PrivateEntry::CloseRequested { id: close.id.clone() }),
            other => draft.ignore(other.id()),
        }
    }
}
