//! Whether a session can take events as it is now: checked against its log and everything accepted since.
//!
//! All or nothing: the first event that cannot be taken refuses the whole request, and nothing changes. What is let
//! through may still lose a race; then the decision says so in the log.

use domain::event::{Confirmation, Permission};
use domain::{EventBody, Status};

use super::calls::{Calls, Kind};
use crate::error::{ApiError, Result};
use crate::resources::sessions::current::Current;

/// Models that are known to take a system message in the middle of a conversation. Of other makes nothing is known,
/// and they are let through.
const MAKE: &str = "claude-";
const TAKE_SYSTEM: &[&str] = &[
    "claude-fable-5",
    "claude-fable-5-1",
    "claude-mythos-5",
    "claude-mythos-5-1",
    "claude-opus-4-8",
    "claude-opus-5",
    "claude-opus-5-5",
    "claude-sonnet-5-5",
    "claude-haiku-5-5",
];

/// Checks the events of one request in their order, each after those before it.
pub fn check(current: &Current, calls: &Calls, bodies: &[EventBody]) -> Result<()> {
    if current.is_over() {
        return Err(refused("the session has ended and takes no more events"));
    }
    let attributes = &current.summary.attributes;
    let mut calls = calls.clone();
    for (n, body) in bodies.iter().enumerate() {
        let at = format!("events[{n}]");
        match body {
            EventBody::UserMessage { .. }
                if current.status == Status::RequiresAction && calls.wait(attributes.self_hosted) =>
            {
                let problem = "the session waits for tool results or confirmations, which must come first";
                return Err(ApiError::field(at, problem).should_retry(false));
            }
            EventBody::SystemMessage { .. } => check_model(&attributes.agent.model, &at)?,
            EventBody::UserToolConfirmation { tool_use_id, .. } => confirmation(&calls, tool_use_id, &at)?,
            EventBody::UserCustomToolResult { custom_tool_use_id, .. } => {
                let at = format!("{at}.custom_tool_use_id");
                match calls.get(custom_tool_use_id) {
                    Some(call) if call.kind != Kind::Custom => {
                        return Err(refused(format!("{at}: is not the call of a custom tool")));
                    }
                    call => open(call.is_some_and(|call| !call.answered), custom_tool_use_id, &at)?,
                }
            }
            EventBody::UserToolResult { tool_use_id, .. } => {
                if !attributes.self_hosted {
                    let problem = "user.tool_result is for sessions in self-hosted environments";
                    return Err(ApiError::field(format!("{at}.type"), problem).should_retry(false));
                }
                tool_result(&calls, tool_use_id, &format!("{at}.tool_use_id"))?;
            }
            _ => {}
        }
        calls.see_body("", body);
    }
    Ok(())
}

fn refused(message: impl Into<std::borrow::Cow<'static, str>>) -> ApiError {
    ApiError::invalid(message).should_retry(false)
}

fn open(is_open: bool, id: &str, at: &str) -> Result<()> {
    if is_open { Ok(()) } else { Err(refused(format!("{at}: no tool call {id} waits for an answer"))) }
}

fn confirmation(calls: &Calls, id: &str, at: &str) -> Result<()> {
    let at = format!("{at}.tool_use_id");
    match calls.get(id) {
        Some(call) if call.permission != Permission::Ask => {
            Err(refused(format!("{at}: the tool call {id} was not held for a confirmation")))
        }
        call => open(call.is_some_and(|call| !call.answered && call.confirmed.is_none()), id, &at),
    }
}

fn tool_result(calls: &Calls, id: &str, at: &str) -> Result<()> {
    match calls.get(id) {
        Some(call) if call.kind != Kind::Builtin => Err(refused(format!("{at}: is not the call of a built-in tool"))),
        Some(call) if call.permission == Permission::Ask && call.confirmed != Some(Confirmation::Allow) => {
            Err(refused(format!("{at}: the tool call {id} was not confirmed")))
        }
        call => open(call.is_some_and(|call| !call.answered), id, at),
    }
}

fn check_model(model: &str, at: &str) -> Result<()> {
    let dated = |known: &&str| {
        let rest = model.strip_prefix(known).and_then(|rest| rest.strip_prefix('-'));
        rest.is_some_and(|rest| rest.len() == 8 && rest.bytes().all(|byte| byte.is_ascii_digit()))
    };
    if model.starts_with(MAKE) && !TAKE_SYSTEM.iter().any(|known| *known == model || dated(known)) {
        let problem = format!("the model {model} takes no system message in the middle of a conversation");
        return Err(ApiError::field(at, problem).code("model_does_not_support_mid_conversation_system"));
    }
    Ok(())
}
