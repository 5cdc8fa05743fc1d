//! `patient@1`: runs what the model asks for, and asks once a turn what shows that the work is done.
//!
//! `decide` is the harness: a View in, a Decision out. The rest of the crate is `abi`, which need not change.

mod abi;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What this harness looks at. A View has more (docs/harnesses.md); what is not named here is skipped.
#[derive(Deserialize)]
pub struct View {
    pub now: String,
    pub turn: u64,
    pub last: Option<Last>,
    pub calls: Vec<Call>,
    pub results: Vec<Value>,
    pub agent: Agent,
    pub memo: Option<String>,
}

#[derive(Deserialize)]
#[serde(tag = "last", rename_all = "snake_case")]
pub enum Last {
    Answer { stop_reason: String },
    Failed { failure: Failure, tries: u32 },
}

#[derive(Deserialize)]
pub struct Failure {
    pub message: String,
    pub retry: String,
}

#[derive(Deserialize)]
pub struct Call {
    pub tool_use_id: String,
}

#[derive(Deserialize)]
pub struct Agent {
    pub shims_off: Vec<String>,
}

#[derive(Debug, PartialEq, Serialize)]
pub struct Decision {
    pub step: Value,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memo: Option<String>,
}

/// The turn that was asked for proof last.
#[derive(Default, Deserialize, Serialize)]
struct Memo {
    proof: u64,
}

const TRIES_MAX: u32 = 5;
const PROOF: &str = "What shows that this is done? Check it with a tool if you have not, then give the result.";

pub fn decide(view: &View) -> Decision {
    if !view.calls.is_empty() {
        let calls: Vec<&String> = view.calls.iter().map(|call| &call.tool_use_id).collect();
        return step(json!({"step": "execute", "calls": calls}));
    }
    match &view.last {
        Some(Last::Failed { failure, tries }) => failed(view, failure, *tries),
        Some(Last::Answer { stop_reason }) if view.results.is_empty() => answered(view, stop_reason),
        _ => call(&[]),
    }
}

fn answered(view: &View, stop_reason: &str) -> Decision {
    let memo: Memo = view.memo.as_deref().and_then(|memo| serde_json::from_str(memo).ok()).unwrap_or_default();
    let is_off = view.agent.shims_off.iter().any(|name| name == "ask-for-proof");
    if stop_reason == "end_turn" && memo.proof < view.turn && !is_off {
        let memo = serde_json::to_string(&Memo { proof: view.turn }).ok();
        return Decision { memo, ..call(&[PROOF]) };
    }
    step(json!({"step": "idle", "reason": {"reason": "end_turn"}}))
}

/// Tries again at the end of the minute: `now` up to its minutes, and the last second of it.
fn failed(view: &View, failure: &Failure, tries: u32) -> Decision {
    let is_over = failure.retry == "permanent" || tries >= TRIES_MAX;
    let status = if is_over { "exhausted" } else { "retrying" };
    let error = json!({
        "type": "model_request_failed_error",
        "message": failure.message,
        "retry_status": {"type": status},
    });
    let next = if is_over {
        json!({"step": "idle", "reason": {"reason": "retries_exhausted"}})
    } else {
        json!({"step": "wait", "until": format!("{}59.999Z", &view.now[..17])})
    };
    Decision { errors: vec![error], ..step(next) }
}

fn call(told: &[&str]) -> Decision {
    let message = |text: &&str| json!({"role": "user", "content": [{"type": "text", "text": text}]});
    let suffix: Vec<Value> = told.iter().map(message).collect();
    step(json!({"step": "call_model", "strategy": {"name": "full", "version": 2}, "suffix": suffix}))
}

fn step(step: Value) -> Decision {
    Decision { step, errors: Vec::new(), memo: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A View is JSON: a test needs no engine, no model and no clock.
    fn told(view: Value) -> Decision {
        decide(&serde_json::from_value(view).expect("a view"))
    }

    fn view(change: Value) -> Value {
        let mut view = json!({"now": "2026-01-01T00:00:07.5Z", "turn": 1, "last": null, "calls": [], "results": [], "agent": {"shims_off": []}, "memo": null});
        for (name, value) in change.as_object().expect("an object") {
            view[name] = value.clone();
        }
        view
    }

    #[test]
    fn calls_are_run_and_proof_is_asked_for_once_a_turn() {
        let run = told(view(json!({"calls": [{"tool_use_id": "a"}, {"tool_use_id": "b"}]})));
        assert_eq!(run.step, json!({"step": "execute", "calls": ["a", "b"]}));
        let done = json!({"last": "answer", "stop_reason": "end_turn"});
        let first = told(view(json!({"last": done})));
        assert_eq!(first.step["suffix"][0]["content"][0]["text"], PROOF);
        let second = told(view(json!({"last": done, "memo": first.memo})));
        assert_eq!(second.step["step"], "idle");
        let off = told(view(json!({"last": done, "agent": {"shims_off": ["ask-for-proof"]}})));
        assert_eq!(off.step["step"], "idle");
    }

    #[test]
    fn what_may_pass_is_waited_out_to_the_end_of_the_minute() {
        let failed = |tries, retry| {
            let failure = json!({"message": "busy", "retry": retry});
            told(view(json!({"last": {"last": "failed", "failure": failure, "tries": tries}})))
        };
        assert_eq!(failed(1, "transient").step["until"], "2026-01-01T00:00:59.999Z");
        for over in [failed(5, "transient"), failed(1, "permanent")] {
            assert_eq!(over.step["reason"]["reason"], "retries_exhausted");
            assert_eq!(over.errors[0]["retry_status"]["type"], "exhausted");
        }
    }
}
