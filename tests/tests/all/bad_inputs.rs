//! What a model may call that no tool expects: each gets a result that it can act on, and the session goes on.

use activities::model::scripted::{Script, serve};
use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use std::path::Path;
use steadyhand_tests::{
    client::{LoggedEvent, Mark},
    engines::engine,
    on_each_engine,
    service::{Options, Service},
};
use tokio::net::TcpListener;

struct Case {
    tool: &'static str,
    input: Value,
    is_error: bool,
    /// What the model is told, in part.
    says: &'static str,
}

fn refused(tool: &'static str, input: Value, says: &'static str) -> Case {
    Case { tool, input, is_error: true, says }
}

fn taken(tool: &'static str, input: Value, says: &'static str) -> Case {
    Case { tool, input, is_error: false, says }
}

fn bash(command: &str) -> Value {
    json!({"command": command})
}

fn cases() -> Vec<Case> {
    vec![
        refused("launch_missiles", json!({}), "launch_missiles"),
        refused("bash", json!({}), "either command or restart is needed"),
        refused("bash", json!({"command": ["ls"]}), "invalid input"),
        refused("bash", json!({"command": "ls", "sudo": true}), "unknown field `sudo`"),
        refused("bash", json!({"command": "true", "timeout_ms": -1}), "invalid input"),
        refused("bash", json!({"command": "sleep 600", "timeout_ms": 1}), "timed out"),
        taken("bash", json!({"command": "echo ran", "timeout_ms": 9_000_000_000_000_000_u64}), "ran"),
        taken("bash", bash("true"), "(no output)"),
        taken("bash", bash(r"printf '\000\001\377'"), "\u{fffd}"),
        taken("bash", bash(r"printf 'caf\351\n'"), "caf\u{fffd}"),
        refused("bash", bash("head -c 100M /dev/zero >/tmp/full"), "No space left"),
        taken("bash", bash("rm /tmp/full; echo room"), "room"),
        refused("bash", bash("kill -9 $$"), ""),
        taken("bash", bash("echo still here"), "still here"),
        refused("read", json!({"file_path": "/etc/shadow"}), ""),
        refused("read", json!({"file_path": "../../etc/passwd"}), ""),
        refused("write", json!({"file_path": "/usr/bin/ls", "content": "x"}), ""),
        refused("edit", json!({"file_path": "nothing", "old_string": "a", "new_string": "b"}), "nothing"),
        refused("grep", json!({"pattern": "("}), ""),
        taken("bash", bash("head -c 4000 /dev/urandom >noise"), "(no output)"),
        refused("read", json!({"file_path": "noise"}), ""),
    ]
}

on_each_engine![every_bad_input_has_a_result_and_the_session_goes_on];

async fn every_bad_input_has_a_result_and_the_session_goes_on(is_temporal: bool) -> anyhow::Result<()> {
    let cases = cases();
    let mut script = json!({"version": 1, "rules": []});
    let rules = script["rules"].as_array_mut().context("made above")?;
    for (at, case) in cases.iter().enumerate() {
        let answer = json!([{"tool": case.tool, "input": case.input}]);
        rules.push(json!({"when": {"results": at}, "answer": answer}));
    }
    rules.push(json!({"answer": [{"text": "through"}]}));
    let script = Script::from_toml(&toml::to_string(&script)?, Path::new("bad_inputs.toml"))?;
    let model = serve(TcpListener::bind("127.0.0.1:0").await?, script)?;
    let temporal = engine(is_temporal)?;
    let temporal_at = temporal.as_ref().map(|temporal| (temporal.addr, "default".to_owned()));
    let service = Service::start(Options { temporal: temporal_at, ..Options::new(model.url()) }).await?;
    let client = service.client();
    let session = client.session().await?;
    client.send(&session, "go", Mark::RetryCount).await?;
    let events = client.until(&session, |events| events.last().is_some_and(LoggedEvent::is_idle)).await?;
    let results: Vec<&LoggedEvent> = events.iter().filter(|event| event.kind == "agent.tool_result").collect();
    let mut wrong = Vec::new();
    for (at, case) in cases.iter().enumerate() {
        let Some(result) = results.get(at) else { break };
        let (text, is_error) = (result.text(), result.rest["is_error"] == true);
        if is_error != case.is_error || !text.contains(case.says) || text.trim().is_empty() {
            wrong.push(format!("{} {}: is_error {is_error}: {text:?}", case.tool, case.input));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    ensure!(results.len() == cases.len(), "{} of {} calls have a result", results.len(), cases.len());
    let last = events.iter().rfind(|event| event.kind == "agent.message").context("the turn ends in words")?;
    ensure!(last.text() == "through", "{}", last.text());
    service.stop().await.map(drop)
}
