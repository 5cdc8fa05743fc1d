//! The course of a turn: what became of activities, when it is the harness's move, how a turn begins and ends.

use super::{Ask, draft::Draft, mail, rest, views::Views};
use crate::{
    context,
    intake::{Closing, Outcome},
    state::{Blocker, Op, is_hands, span_start_id},
    view::Decision,
};
use domain::{
    EventBody, HandName, PrivateEntry, Status, Step, Take, Usage,
    agent::{McpFact, ToolKind},
    commit::{Closed, IdleReason},
    event::{ErrorBody, ErrorKind, Permission, RetryStatus, StopDetails, StopReason},
    ids,
    limits::{COMPACTIONS_MAX, MEMO_BYTES_MAX},
    outcome::{ModelDigest, ProvisionOutcome},
};
use std::collections::BTreeSet;

const HOST_SILENT: &str = "the machine that has the sandbox does not answer";

/// Takes the end of one activity or timer into the log. What no state waits for is not taken at all.
pub fn close(draft: &mut Draft<'_>, closing: &Closing) {
    let Some(pending) = draft.state.pending(&closing.activity).cloned() else { return };
    let activity = closing.activity.as_str();
    match &pending.op {
        Op::CallModel { span_id, .. } => close_model(draft, closing, span_id),
        Op::Compact { span_id, .. } => close_compact(draft, closing, span_id),
        Op::Execute { call } => {
            let lost = match (&closing.how, &closing.outcome) {
                (Closed::Finished, Some(Outcome::Tool { digest })) => {
                    draft.take(Take::Result { activity: activity.to_owned(), index: 0 });
                    draft.closed(activity, Closed::Finished);
                    if digest.hand_lost {
                        hand_lost(draft, &call.hand, "its sandbox is gone");
                    }
                    return;
                }
                (Closed::Cancelled, _) => "the call was cancelled before its worker confirmed its end",
                _ => match call.kind {
                    ToolKind::Mcp { inside: None, .. } => "no worker that calls MCP servers answers",
                    ToolKind::Log => "no worker that reads the log answers",
                    ToolKind::Web => "no worker that fetches pages answers",
                    ToolKind::Builtin | ToolKind::Custom | ToolKind::Mcp { inside: Some(_), .. } => HOST_SILENT,
                },
            };
            draft.closed(activity, closing.how.clone());
            draft.tool_error(
                call,
                format!("lost: {lost}. It may or may not have taken effect; check before running it again."),
            );
            if matches!(closing.how, Closed::Failed { .. }) && is_hands(call) {
                hand_lost(draft, &call.hand, "its host does not answer");
            }
        }
        Op::Provision { name, .. } => close_provision(draft, closing, name),
        Op::ListTools { hand } => close_list(draft, closing, hand.as_ref()),
        Op::Timer { .. } => {
            draft.closed(activity, closing.how.clone());
            if draft.state.summary.status == Status::Rescheduling {
                draft.running();
            }
        }
        Op::Seal { .. } => {
            draft.closed(activity, closing.how.clone());
            if let Some(Outcome::Seal { outcome }) = &closing.outcome {
                let (run_id, manifest) = (outcome.run_id.clone(), outcome.manifest.clone());
                draft.note(PrivateEntry::RunSealed { run_id, manifest });
            }
        }
        Op::Collect { name } => {
            draft.closed(activity, closing.how.clone());
            if let Some(Outcome::Collect { outcome }) = &closing.outcome
                && let Some(listing) = outcome.listing.clone()
            {
                draft.note(PrivateEntry::Outputs { listing, name: name.clone() });
            }
        }
        Op::Rest { .. } => rest::over(draft, closing),
        Op::Park { name } => rest::parked(draft, closing, name),
        Op::Hand { handed, .. } => rest::sent(draft, closing, handed),
        Op::Discard { .. } => draft.closed(activity, closing.how.clone()),
        Op::Release { name } => {
            draft.closed(activity, closing.how.clone());
            if let Some(hand) = draft.state.hand(name).cloned() {
                draft.note(PrivateEntry::HandReleased { hand: hand.hand });
            }
        }
    }
}

fn close_model(draft: &mut Draft<'_>, closing: &Closing, span_id: &str) {
    let activity = closing.activity.as_str();
    let (is_error, model_usage, private) = match (&closing.how, &closing.outcome) {
        (Closed::Finished, Some(Outcome::Model { digest, events })) => {
            for index in 0..*events {
                draft.take(Take::Result { activity: activity.to_owned(), index });
            }
            match digest {
                ModelDigest::Answer { usage, .. } => (false, *usage, Some(activity.to_owned())),
                ModelDigest::Failed { .. } => (true, Usage::default(), None),
            }
        }
        _ => (true, Usage::default(), None),
    };
    draft.closed(activity, closing.how.clone());
    end_span(draft, span_id, is_error, model_usage, private);
}

/// The summary hangs on the event that says it is in force; what else the model said is not part of the log.
fn close_compact(draft: &mut Draft<'_>, closing: &Closing, span_id: &str) {
    let (is_error, model_usage) = match (&closing.how, &closing.outcome) {
        (Closed::Finished, Some(Outcome::Model { digest, .. })) => {
            if context::is_summary(digest) {
                let id = ids::derive(ids::prefix::EVENT, &[span_id, "compacted"]);
                draft.emit_as(id, EventBody::AgentThreadContextCompacted {}, Some(closing.activity.clone()));
            }
            match digest {
                ModelDigest::Answer { usage, .. } => (false, *usage),
                ModelDigest::Failed { .. } => (true, Usage::default()),
            }
        }
        _ => (true, Usage::default()),
    };
    draft.closed(&closing.activity, closing.how.clone());
    end_span(draft, span_id, is_error, model_usage, None);
}

fn end_span(draft: &mut Draft<'_>, span_id: &str, is_error: bool, model_usage: Usage, private: Option<String>) {
    let id = ids::derive(ids::prefix::EVENT, &[span_id, "end"]);
    let model_request_start_id = span_id.to_owned();
    let end = EventBody::SpanModelRequestEnd { model_request_start_id, is_error: Some(is_error), model_usage };
    draft.emit_as(id, end, private);
}

/// The session goes on with the tools that there are.
fn close_list(draft: &mut Draft<'_>, closing: &Closing, hand: Option<&HandName>) {
    draft.closed(&closing.activity, closing.how.clone());
    let problems = match (&closing.how, &closing.outcome) {
        (Closed::Finished, Some(Outcome::List { outcome })) => {
            if let Some(listed) = &outcome.listed {
                draft.note(PrivateEntry::ToolsListed { listed: listed.clone() });
            }
            if let Some(name) = hand.filter(|_| outcome.hand_lost) {
                hand_lost(draft, name, "its sandbox is gone");
            }
            outcome.problems.clone()
        }
        _ => {
            if let Some(name) = hand.filter(|_| matches!(closing.how, Closed::Failed { .. })) {
                hand_lost(draft, name, "its host does not answer");
            }
            let why = if hand.is_none() { "no worker that asks MCP servers answers" } else { HOST_SILENT };
            unlisted(draft, hand, why)
        }
    };
    for error in problems {
        draft.emit(EventBody::SessionError { error });
    }
}

/// What is said of the servers there that nobody could ask.
fn unlisted(draft: &Draft<'_>, hand: Option<&HandName>, why: &str) -> Vec<ErrorBody> {
    let servers = draft.state.summary.attributes.agent.mcp.iter();
    let problem = |server: &McpFact| ErrorBody {
        kind: ErrorKind::McpConnectionFailed { mcp_server_name: server.server.clone() },
        message: why.to_owned(),
        retry_status: RetryStatus::Retrying,
    };
    servers.filter(|server| !server.listed && server.inside.as_ref() == hand).map(problem).collect()
}

fn close_provision(draft: &mut Draft<'_>, closing: &Closing, name: &HandName) {
    draft.closed(&closing.activity, closing.how.clone());
    let reason = match (&closing.how, &closing.outcome) {
        (Closed::Finished, Some(Outcome::Provision { outcome: ProvisionOutcome::Ready { hand, problems } })) => {
            draft.note(PrivateEntry::HandProvisioned { hand: hand.clone(), name: name.clone() });
            for error in problems {
                draft.emit(EventBody::SessionError { error: error.clone() });
            }
            return;
        }
        (Closed::Finished, Some(Outcome::Provision { outcome: ProvisionOutcome::Failed { failure } })) => {
            failure.message.clone()
        }
        (Closed::Failed { message }, _) => message.clone(),
        _ => "provisioning was cancelled".to_owned(),
    };
    let why = format!("no sandbox could be provisioned: {reason}");
    for pending in draft.state.pending.clone() {
        if pending.op.waits_for() != Some(name) || pending.dispatched {
            continue;
        }
        let no_hand = Closed::Failed { message: "no hand".to_owned() };
        match pending.op {
            Op::Execute { call } => {
                draft.closed(&pending.activity, no_hand);
                draft.tool_error(&call, &why);
            }
            Op::ListTools { hand } => {
                draft.closed(&pending.activity, no_hand);
                for error in unlisted(draft, hand.as_ref(), &why) {
                    draft.emit(EventBody::SessionError { error });
                }
            }
            _ => {}
        }
    }
}

/// The session's other hands have nothing to do with it.
pub fn hand_lost(draft: &mut Draft<'_>, name: &HandName, reason: &str) {
    if let Some(hand) = draft.state.hand(name).cloned() {
        draft.note(PrivateEntry::HandLost { hand: hand.hand, reason: reason.to_owned() });
    }
}

/// Moves the session on as far as it goes without waiting: at most one step.
pub fn go_on(draft: &mut Draft<'_>, ask: &mut dyn Ask) {
    if draft.state.summary.status == Status::Terminated || draft.state.is_busy() {
        return;
    }
    if mail::interrupt(draft) && draft.state.closing {
        return terminate(draft);
    }
    if !draft.state.blocked.is_empty() && !resume(draft) {
        return;
    }
    if draft.state.summary.status == Status::RequiresAction {
        // Everything that was asked for is there.
        draft.running();
    }
    if draft.state.summary.status.is_idle() && draft.state.swap.is_some() {
        apply_swap(draft);
        if !draft.turn_begins_with_swap {
            // The one that is asked now is the old one: the turn begins with the next decision.
            return;
        }
    }
    if (draft.state.summary.status == Status::Idle) && !begin_turn(draft) {
        return;
    }
    if draft.state.is_harness_due() {
        move_on(draft, ask);
    }
}

/// Some calls wait for somebody outside. Returns true when none does any more.
fn resume(draft: &mut Draft<'_>) -> bool {
    let waiting: Vec<String> = draft
        .state
        .blocked
        .iter()
        .filter(|blocked| blocked.on != Blocker::Allowed)
        .map(|blocked| blocked.call.tool_use_id.clone())
        .collect();
    if waiting.is_empty() {
        draft.note(PrivateEntry::Resumed {});
    }
    let still: Vec<String> = draft.state.blocked.iter().map(|blocked| blocked.call.tool_use_id.clone()).collect();
    if still.is_empty() {
        if draft.state.summary.status != Status::Running {
            draft.running();
        }
        return true;
    }
    let listed = if waiting.is_empty() { still } else { waiting };
    if !is_asking_for(draft, &listed) {
        draft.idle(StopReason::RequiresAction { event_ids: listed }, None);
    }
    false
}

/// Whether the session is idle already and nothing was answered by this commit.
fn is_asking_for(draft: &Draft<'_>, listed: &[String]) -> bool {
    draft.asked.as_deref() == Some(listed)
}

/// Queued messages begin a turn. Returns false when there is none.
fn begin_turn(draft: &mut Draft<'_>) -> bool {
    if !draft.has_input() {
        return false;
    }
    draft.note(PrivateEntry::TurnBegun {});
    take_inputs(draft);
    if draft.state.summary.status != Status::Running {
        draft.running();
    }
    list_tools(draft);
    true
}

/// Servers that were not reached are asked again whenever the session begins to work.
fn list_tools(draft: &mut Draft<'_>) {
    let unlisted = draft.state.summary.attributes.agent.mcp.iter().filter(|server| !server.listed);
    // Those that need no hand first, as that one may take its time.
    let places: BTreeSet<Option<HandName>> = unlisted.map(|server| server.inside.clone()).collect();
    for hand in places {
        let base = format!("list-{}", draft.state.summary.n);
        let activity = hand.as_ref().map_or_else(|| base.clone(), |name| format!("{base}-in-{name}"));
        draft.note(PrivateEntry::Listing { activity, hand });
    }
}

fn take_inputs(draft: &mut Draft<'_>) {
    let intake = draft.intake;
    for waiting in intake.mail.iter().filter(|waiting| waiting.is_input()) {
        if !draft.has_taken(waiting.id()) {
            draft.accept(waiting.id());
        }
    }
}

fn apply_swap(draft: &mut Draft<'_>) {
    if let Some(swap) = draft.state.swap.clone() {
        draft.note(PrivateEntry::Swapped { from: draft.state.summary.harness.clone(), to: swap.harness });
    }
}

fn terminate(draft: &mut Draft<'_>) {
    let (session_thread_id, agent_name) = draft.thread();
    draft.emit(EventBody::SessionThreadStatusTerminated { session_thread_id, agent_name });
    draft.emit(EventBody::SessionStatusTerminated {});
    for name in draft.state.hand_names() {
        let activity = name.activity(&format!("release-{}", draft.state.summary.n));
        draft.note(PrivateEntry::Releasing { activity, name });
    }
}

/// The harness's move.
fn move_on(draft: &mut Draft<'_>, ask: &mut dyn Ask) {
    let views = Views::of(draft);
    let view = views.at(ask.view_version());
    draft.saw(&view);
    let answer = ask.ask(&view, &views);
    let decision = match answer {
        Ok(decision) => decision,
        Err(error) => return give_up(draft, error.to_string()),
    };
    if decision.memo.as_ref().is_some_and(|memo| memo.len() > MEMO_BYTES_MAX) {
        return give_up(draft, format!("harness {} returned a memo of over 8 KiB", draft.state.summary.harness));
    }
    perform(draft, decision);
}

/// Without a harness nothing can be decided: the turn ends at a boundary, where a swap cures it.
fn give_up(draft: &mut Draft<'_>, message: String) {
    mail::end_calls(draft, "The tool was not run: the turn was interrupted.");
    draft.emit(EventBody::SessionError {
        error: ErrorBody { kind: ErrorKind::Unknown, message, retry_status: RetryStatus::Exhausted },
    });
    end_turn(draft, IdleReason::RetriesExhausted {});
}

fn perform(draft: &mut Draft<'_>, decision: Decision) {
    let Decision { step, errors, memo } = decision;
    if let Some(memo) = memo {
        draft.set_memo(memo);
    }
    if let Err(why) = can_be_done(draft, &step) {
        return give_up(draft, format!("harness {} {why}", draft.state.summary.harness));
    }
    let is_retrying = errors.iter().any(|error| error.retry_status == RetryStatus::Retrying);
    for error in errors {
        draft.emit(EventBody::SessionError { error });
    }
    match step {
        Step::CallModel { .. } | Step::Compact { .. } => {
            mail::end_calls(draft, "The tool was not run.");
            let span_id = span_start_id(&draft.state.session_id, draft.state.summary.n);
            draft.emit_as(span_id, EventBody::SpanModelRequestStart {}, None);
            draft.set_step(step);
        }
        Step::Execute { ref calls } => {
            refuse(draft, calls);
            draft.set_step(step);
        }
        Step::Wait { .. } => {
            if is_retrying {
                draft.emit(EventBody::SessionStatusRescheduled {});
                let (session_thread_id, agent_name) = draft.thread();
                draft.emit(EventBody::SessionThreadStatusRescheduled { session_thread_id, agent_name });
            }
            draft.set_step(step);
        }
        Step::Idle { reason } => end_turn(draft, reason),
        Step::Fail { message } => give_up(draft, message),
        Step::Provision {} | Step::Continue {} => draft.set_step(step),
    }
}

/// A step that leads nowhere would be decided again and again.
fn can_be_done(draft: &Draft<'_>, step: &Step) -> Result<(), String> {
    let state = &draft.state;
    match step {
        Step::CallModel { strategy, .. } => {
            context::find(&state.strategy(strategy.as_ref())).map(|_| ()).map_err(|error| format!("asked for {error}"))
        }
        Step::Compact { .. } if state.marks.compactions >= COMPACTIONS_MAX => {
            Err(format!("asked for {} summaries in a row", COMPACTIONS_MAX + 1))
        }
        Step::Compact { strategy } => {
            context::can_summarize(&state.strategy(strategy.as_ref())).map_err(|error| format!("asked for {error}"))
        }
        Step::Execute { calls } if !state.calls.iter().any(|call| calls.contains(&call.tool_use_id)) => {
            Err("asked to run no call that is open".to_owned())
        }
        Step::Provision {} if state.summary.main.hand.is_some() => Err("asked for a hand that is there".to_owned()),
        Step::Continue {} => Err("decided nothing".to_owned()),
        _ => Ok(()),
    }
}

/// Calls that will not be run get their result at once.
fn refuse(draft: &mut Draft<'_>, chosen: &[String]) {
    for call in draft.state.calls.clone().iter().filter(|call| chosen.contains(&call.tool_use_id)) {
        if let Some(refused) = &call.refused {
            draft.tool_error(call, refused);
        } else if call.permission == Permission::Deny {
            draft.tool_error(call, format!("Permission to use {} was denied.", call.name));
        }
    }
}

/// The end of a turn: with messages waiting the next one begins at once, else the session goes idle.
fn end_turn(draft: &mut Draft<'_>, reason: IdleReason) {
    mail::end_calls(draft, "The tool was not run: the turn ended.");
    let spent = reason == (IdleReason::RetriesExhausted {});
    if spent {
        // Queued inputs are flushed: in the log, but they start nothing.
        take_inputs(draft);
    }
    draft.set_step(Step::Idle { reason: reason.clone() });
    if draft.state.swap.is_none() && !spent && draft.has_input() {
        draft.note(PrivateEntry::TurnBegun {});
        return take_inputs(draft);
    }
    match reason {
        IdleReason::EndTurn {} => draft.idle(StopReason::EndTurn {}, None),
        IdleReason::RetriesExhausted {} => draft.idle(StopReason::RetriesExhausted {}, None),
        IdleReason::Refusal { category, explanation } => {
            let details = StopDetails { kind: "refusal".to_owned(), category, explanation };
            draft.idle(StopReason::Refusal {}, Some(details));
        }
    }
    for name in draft.state.hand_names() {
        if draft.state.work(&name).uncollected {
            let activity = name.activity(&format!("collect-{}", draft.state.summary.n));
            draft.note(PrivateEntry::Collecting { activity, name });
        }
    }
    // What is still under way ends with a decision, which then swaps. Else the next one may be long in coming.
    if draft.swaps_with_end && draft.state.pending.is_empty() {
        apply_swap(draft);
    }
}
