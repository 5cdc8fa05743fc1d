//! Tasks against a real service with a scripted model: what `run` prints, how it ends, and what the other commands say
//! of the session afterwards.

use crate::program::{Place, end, wait_for};
use serde_json::Value;
use std::process::Command;

const SCRIPT: &str = r#"
version = 1
[[rules]]
when = { user_contains = "wait for me", results = 0 }
answer = [{ text = "I look around." }, { tool = "bash", input = { command = "ls -la" } }]
[[rules]]
when = { user_contains = "wait for me" }
answer = [{ text = "You decided." }]
[[rules]]
when = { user_contains = "overloaded" }
answer = [{ text = "never" }]
fault = { kind = "status", status = 400, message = "no such model" }
[[rules]]
when = { user_contains = "never end" }
answer = [{ text = "one two three four" }]
fault = { kind = "stall", after_events = 3 }
[[rules]]
when = { user_contains = "take your time" }
delay_ms = 3000
answer = [{ text = "There it is." }]
[[rules]]
answer = [{ text = "You said: {{user}}\u001b[31m" }]
"#;

const ASKING: &str = r#"
name = "asks"
model = "m"
[[tools]]
type = "agent_toolset_20260401"
default_config = { permission_policy = { type = "always_ask" } }
"#;

/// The session that a run says it made.
fn session_id(stderr: &str) -> String {
    stderr.lines().find_map(|line| line.strip_prefix("session ")).unwrap().to_owned()
}

fn types(jsonl: &str) -> Vec<String> {
    jsonl
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["type"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_last_words_go_to_stdout_and_the_rest_to_stderr() {
    let place = Place::new();
    let service = place.serve(SCRIPT);
    let shot = place.run(&["run", "hello  there\nfriend"]);
    assert_eq!((shot.code, &*shot.stdout), (0, "You said: hello  there\nfriend\u{1b}[31m\n"), "{shot}");
    let id = session_id(&shot.stderr);
    assert!(shot.stderr.contains(&format!("session {id}: ")) && shot.stderr.contains("1 request, "), "{shot}");

    let listed = place.run(&["session", "list"]).ok();
    assert!(listed.contains(&id) && listed.contains("hello there friend"), "{listed}");
    let events = place.run(&["session", "events", &id]).ok();
    assert!(!events.contains('\u{1b}') && events.lines().count() == 9, "{events}");
    let slice = place.run(&["session", "events", &id, "--from", "3", "--to", "5", "--json"]).ok();
    assert_eq!(types(&slice), ["span.model_request_start", "agent.message"]);
    let shown = place.run(&["session", "show", &id]).ok();
    assert!(shown.contains("status       idle") && shown.contains("turn_begun"), "{shown}");
    let shown: Value = serde_json::from_str(&place.run(&["session", "show", &id, "--json"]).ok()).unwrap();
    assert_eq!((&shown["session"]["id"], shown["log"].as_array().unwrap().len()), (&Value::from(&*id), 2));
    let why = place.run(&["why", &id]).ok();
    assert!(why.starts_with("waiting for  nothing\n"), "{why}");
    place.run(&["session", "diff", &id]).failed(4, "hint: it is made when a session with --repo comes to rest");

    place.run(&["session", "send", &id, "again"]).ok();
    let watched = place.run(&["session", "watch", &id, "--from", "9", "--until-idle", "--json"]).ok();
    assert!(watched.contains("You said: again"), "{watched}");
    place.run(&["session", "archive", &id]).expect(0, "", &format!("archived {id}\n"));
    place.run(&["session", "send", &id, "too late"]).failed(4, "error: ");
    place.run(&["session", "delete", &id]).expect(0, "", &format!("deleted {id}\n"));
    place.run(&["session", "show", &id]).failed(4, &format!("error: session {id} not found"));
    service.stop();
}

#[test]
fn json_is_one_event_a_line_and_the_agent_is_made_once() {
    let place = Place::new();
    let _service = place.serve(SCRIPT);
    let first = place.run(&["run", "one", "--json", "--title", "first"]).ok();
    let last = types(&first).pop();
    assert_eq!(last.as_deref(), Some("session.status_idle"));
    place.run(&["run", "two"]).ok();
    place.run(&["run", "three", "--model", "other-model"]).ok();
    let agents = place.run(&["agent", "list", "--json"]).ok();
    let mut names: Vec<_> = agents.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect();
    names.sort_by_key(|agent| agent["created_at"].to_string());
    let names: Vec<_> =
        names.iter().map(|agent| (agent["name"].as_str().unwrap(), agent["model"]["id"].as_str().unwrap())).collect();
    assert_eq!(names, [("default", "claude-sonnet-5-5"), ("default other-model", "other-model")]);
    assert_eq!(place.run(&["env", "list", "--json"]).ok().lines().count(), 1);
    assert!(place.run(&["session", "list"]).ok().contains("first"));
}

#[test]
fn a_call_that_asks_ends_a_run_that_nobody_watches_and_is_answered_later() {
    let place = Place::new();
    let _service = place.serve(SCRIPT);
    place.write("agent.toml", ASKING);
    let shot = place.run(&["run", "wait for me", "--agent", "agent.toml"]);
    let id = session_id(&shot.stderr);
    shot.failed(5, "error: the session waits for an answer to sevt_");
    shot.failed(
        5,
        &format!("hint: steadyhand session confirm {id} --allow (or --deny), then steadyhand session watch {id}"),
    );
    assert!(shot.stderr.contains("> bash (asks first) ls -la"), "{shot}");
    let why = place.run(&["why", &id]).ok();
    assert!(why.starts_with("waiting for  you\n"), "{why}");

    let end: u64 = place.run(&["session", "events", &id]).ok().lines().count() as u64;
    let denied = place.run(&["session", "confirm", &id, "--deny", "--reason", "not that"]).ok();
    assert!(denied.starts_with("sevt_"), "{denied}");
    let rest = place.run(&["session", "watch", &id, "--from", &end.to_string(), "--until-idle"]).ok();
    assert!(rest.contains("not that") && rest.contains("You decided."), "{rest}");
    place.run(&["session", "confirm", &id, "--allow"]).failed(4, &format!("session {id} waits for no confirmation"));

    place.run(&["run", "wait for me", "--agent", "agent.toml"]).failed(5, "waits for an answer");
    assert_eq!(
        place.run(&["agent", "list", "--json"]).ok().lines().count(),
        1,
        "the file's agent is found by its name"
    );
}

#[test]
fn a_model_that_refuses_ends_the_run_with_its_words() {
    let place = Place::new();
    let _service = place.serve(SCRIPT);
    let shot = place.run(&["run", "be overloaded"]);
    shot.failed(5, "error: the turn ended with retries_exhausted: ");
    shot.failed(5, "no such model");
}

fn interrupt(child: &std::process::Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}

#[test]
fn ctrl_c_interrupts_the_agent() {
    let place = Place::new();
    let _service = place.serve(SCRIPT);
    let mut child = place.command(&["run", "never end"]).spawn().unwrap();
    let stderr = wait_for(&mut child, "session sesn_");
    wait_until_running(&place);
    interrupt(&child);
    let (code, rest) = end(&mut child, stderr);
    assert!(
        code == 5 && rest.contains("* interrupting; ctrl-c again") && rest.contains("the task was interrupted"),
        "{code} {rest}"
    );
}

#[test]
fn the_second_ctrl_c_leaves_the_session_to_itself() {
    let place = Place::new();
    let service = place.serve(SCRIPT);
    let mut child = place.command(&["run", "never end"]).spawn().unwrap();
    let mut stderr = wait_for(&mut child, "session sesn_");
    wait_until_running(&place);
    // A service that is gone cannot take the interrupt: the run waits for it.
    service.kill();
    interrupt(&child);
    let mut line = String::new();
    while !line.contains("ctrl-c again") {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut stderr, &mut line).unwrap() > 0);
    }
    interrupt(&child);
    let (code, rest) = end(&mut child, stderr);
    assert!(code == 5 && rest.contains("hint: it goes on: steadyhand session watch sesn_"), "{code} {rest}");
}

#[test]
fn a_run_goes_on_when_the_service_is_killed_and_started_again() {
    let place = Place::new();
    let service = place.serve(SCRIPT);
    let mut child = place.command(&["run", "take your time"]).spawn().unwrap();
    let stderr = wait_for(&mut child, "session sesn_");
    wait_until_running(&place);
    service.kill();
    let service = place.serve(SCRIPT);
    let (code, rest) = end(&mut child, stderr);
    let mut stdout = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().unwrap(), &mut stdout).unwrap();
    assert_eq!((code, &*stdout), (0, "There it is.\n"), "{rest}");
    assert!(rest.contains("broke off, trying again") && rest.contains("the service is back"), "{rest}");
    service.stop();
}

/// Until the only session is at work. The stream of its events says so.
fn wait_until_running(place: &Place) {
    let session = place.run(&["session", "list", "--json"]).ok();
    let session: Value = serde_json::from_str(session.lines().next().unwrap()).unwrap();
    let mut watch = place.command(&["session", "watch", session["id"].as_str().unwrap()]).spawn().unwrap();
    let mut lines = std::io::BufReader::new(watch.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("span.model_request_start") {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut lines, &mut line).unwrap() > 0);
    }
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn run_starts_the_service_where_none_answers() {
    let place = Place::new().with("STEADYHAND_LISTEN", "127.0.0.1:0").with("STEADYHAND_HANDS", "false");
    let script = place.write("script.toml", SCRIPT);
    let place = place.with("STEADYHAND_MODEL_SCRIPT", script.to_str().unwrap());
    let shot = place.run(&["run", "hello"]);
    let running: Value = serde_json::from_str(&place.read("data/serve.json")).unwrap();
    let pid = running["pid"].as_u64().unwrap();
    let session = Command::new("ps").args(["-o", "sid=", "-p", &pid.to_string()]).output().unwrap();
    let again = place.run(&["run", "hello again"]);
    // Ours: this test started it.
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid as i32).unwrap(), rustix::process::Signal::TERM)
        .unwrap();

    assert_eq!(shot.code, 0, "{shot}");
    assert!(
        shot.stderr.starts_with(
            "no service answers: starting one (log: [DIR]/data/serve.log)\nlistening on http://127.0.0.1:"
        ),
        "{shot}"
    );
    assert_eq!(String::from_utf8(session.stdout).unwrap().trim(), pid.to_string(), "it leads a session of its own");
    assert!(again.code == 0 && !again.stderr.contains("starting one"), "{again}");
}

#[test]
fn a_repository_without_a_commit_is_refused() {
    let place = Place::new();
    let _service = place.serve(SCRIPT);
    place.run(&["run", "fix it", "--repo", "."]).failed(2, ". has no commit to give to the agent");
}

#[test]
fn a_key_is_made_by_the_service_and_without_it() {
    let place = Place::new();
    let service = place.serve(SCRIPT);
    let there = place.run(&["key", "create", "there"]).ok();
    place.run(&["key", "create", "busy", "--url", &service.url]).ok();
    // Its address is left behind, and leads nowhere.
    service.kill();
    let here: Value = serde_json::from_str(&place.run(&["key", "create", "here", "--json"]).ok()).unwrap();
    let _service = place.serve(SCRIPT);
    for key in [there.trim(), here["key"].as_str().unwrap()] {
        let listed = place.command(&["agent", "list"]).env("STEADYHAND_API_KEY", key).output().unwrap();
        assert!(listed.status.success(), "{}", place.shot(listed));
        let made = place.command(&["key", "create", "another"]).env("STEADYHAND_API_KEY", key).output().unwrap();
        place.shot(made).failed(4, "only the admin key may do this");
    }
    let wrong = place.command(&["agent", "list"]).env("STEADYHAND_API_KEY", "wrong").output().unwrap();
    place.shot(wrong).failed(4, "invalid API key");
}

#[test]
fn keys_are_listed_and_revoked_and_open_their_workspace_alone() {
    let place = Place::new();
    let _service = place.serve(SCRIPT);
    let with_key = |key: &str, args: &[&str]| {
        place.shot(place.command(args).env("STEADYHAND_API_KEY", key.trim()).output().unwrap())
    };
    let lines = |text: String| -> Vec<Value> { text.lines().map(|line| serde_json::from_str(line).unwrap()).collect() };

    let workspace = place.run(&["workspace", "create", "elsewhere"]).ok();
    let key = place.run(&["key", "create", "laptop", "--workspace", workspace.trim()]).ok();
    place.run(&["env", "create", "--name", "ours"]).ok();
    assert!(!with_key(&key, &["env", "list"]).ok().contains("ours"));
    with_key(&key, &["workspace", "list"]).failed(4, "only the admin key may do this");

    let reader = place.run(&["key", "create", "dashboard", "--scope", "read"]).ok();
    assert!(with_key(&reader, &["env", "list"]).ok().contains("ours"));
    with_key(&reader, &["env", "create", "--name", "theirs"]).failed(4, "the API key may only read");

    let keys = lines(place.run(&["key", "list", "--json"]).ok());
    let names: Vec<&str> = keys.iter().map(|key| key["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["laptop", "dashboard"]);
    assert!(keys[1]["last_used_at"].is_string(), "{}", keys[1]);
    place.run(&["key", "revoke", keys[1]["id"].as_str().unwrap()]).ok();
    with_key(&reader, &["env", "list"]).failed(4, "invalid API key");

    let made = place.run(&["env", "create", "--name", "shop", "--self-hosted", "--json"]).ok();
    let environment = serde_json::from_str::<Value>(&made).unwrap()["id"].as_str().unwrap().to_owned();
    let worker = place.run(&["env", "key", "create", &environment]).ok();
    with_key(&worker, &["env", "list"]).failed(4, "this is not for workers");
    let keys = lines(place.run(&["env", "key", "list", &environment, "--json"]).ok());
    place.run(&["env", "key", "revoke", &environment, keys[0]["id"].as_str().unwrap()]).ok();
    with_key(&worker, &["env", "list"]).failed(4, "invalid API key");

    let calls: Vec<String> = lines(place.run(&["audit", "--json"]).ok())
        .iter()
        .map(|entry| format!("{} {}", entry["route"].as_str().unwrap(), entry["status"]))
        .collect();
    assert_eq!(calls[0], "/v1/steadyhand/environments/{environment_id}/keys/{key_id}/revoke 200");
    assert!(calls.contains(&"/v1/environments 403".to_owned()), "what was not allowed is in it too: {calls:?}");
}
