//! Bodies that nobody would send. Whatever comes, the answer is one that the OpenAPI document has, and it is never a
//! failure of the service. `PROPTEST_CASES` says how many (`scripts/long fuzz`).

use axum::body::Body;
use http::Method;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value, json};
use tokio::runtime::{Builder, Runtime};

use super::{Api, id};

/// Sound bodies, to be damaged, by the path that takes them. `{agent}` and so on stand for things that are there.
fn sound() -> Vec<(&'static str, Value)> {
    let text = json!([{"type": "text", "text": "hello"}]);
    let image = json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGVsbG8="}});
    let config = json!({"name": "web_fetch", "enabled": true, "permission_policy": {"type": "always_ask"},
        "allowed_domains": ["example.com"], "max_content_tokens": 10, "url_sources": {"user_input": "all",
        "client_tool_results": {"type": "only", "tools": [{"type": "tool_reference", "name": "weather"}]}}});
    let tools = json!([
        {"type": "agent_toolset_20260401", "default_config": {"enabled": true}, "configs": [config]},
        {"type": "mcp_toolset", "mcp_server_name": "s", "configs": [{"name": "t", "enabled": false}]},
        {"type": "custom", "name": "weather", "description": "d", "input_schema": {"type": "object", "properties": {}}},
    ]);
    let servers = json!([{"type": "url", "name": "s", "url": "https://mcp.example.com"}]);
    vec![
        ("/v1/sessions/{session}/events", json!({"events": [{"type": "user.message", "content": text}]})),
        (
            "/v1/sessions/{session}/events",
            json!({"events": [
                {"type": "user.message", "content": [image, {"type": "document", "title": "t", "source": {"type": "text",
                    "media_type": "text/plain", "data": "x"}}]},
                {"type": "user.interrupt", "session_thread_id": null},
                {"type": "system.message", "content": text},
            ]}),
        ),
        (
            "/v1/sessions/{session}/events",
            json!({"events": [
                {"type": "user.tool_confirmation", "tool_use_id": "sevt_1", "result": "deny", "deny_message": "no"},
                {"type": "user.custom_tool_result", "custom_tool_use_id": "sevt_2", "content": text, "is_error": true},
                {"type": "user.tool_result", "tool_use_id": "sevt_3", "content": [{"type": "search_result",
                    "source": "s", "title": "t", "content": text, "citations": {"enabled": true}}]},
            ]}),
        ),
        (
            "/v1/agents",
            json!({"name": "a", "model": {"id": "m", "effort": {"type": "max"}, "speed": "fast"}, "description": "d",
                "system": "s", "tools": tools, "mcp_servers": servers, "metadata": {"k": "v"}}),
        ),
        ("/v1/agents/{agent}", json!({"version": 1, "system": null, "tools": tools, "mcp_servers": servers})),
        (
            "/v1/sessions",
            json!({"agent": {"type": "agent_with_overrides", "id": "{agent}", "version": 1, "model": "n", "tools": []},
                "environment_id": "{environment}", "title": "t", "metadata": {"k": "v"}, "vault_ids": [],
                "initial_events": [{"type": "user.message", "content": text}],
                "resources": [{"type": "file", "file_id": "file_1", "mount_path": "/data/a"}],
                "harness": "loop", "strategy": {"name": "full", "version": 1, "params": {}}, "shims_off": ["x"]}),
        ),
        ("/v1/sessions/{session}", json!({"title": null, "metadata": {"k": null}, "agent": {"tools": tools}})),
        ("/v1/sessions/{session}/fork", json!({"at": 0, "title": "f"})),
        ("/v1/sessions/{session}/strategy", json!({"strategy": {"name": "full", "version": 1}, "turn": true})),
        (
            "/v1/environments",
            json!({"name": "e", "description": "", "metadata": {"k": "v"}, "scope": "organization",
                "config": {"type": "cloud", "networking": {"type": "limited", "allowed_hosts": ["*.example.com"],
                "allow_package_managers": true}, "packages": {"type": "packages", "pip": ["a==1"]}}}),
        ),
        ("/v1/steadyhand/api_keys", json!({"name": "k", "scope": "read"})),
    ]
}

/// One thing done to a body.
#[derive(Clone, Debug)]
enum Damage {
    /// Another value at one of its places.
    Value(usize, Value),
    /// A place that is gone, or doubled where it is in a list.
    Gone(usize),
    Twice(usize),
    /// A field under another name.
    Renamed(usize, String),
    /// Not even JSON, most of the time.
    Byte(usize, u8),
    Cut(usize),
}

fn any_text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z_.]{0,12}", "\\PC{0,8}", Just("\u{0}".to_owned()), "(ab|\\.\\./|%00){0,200}"]
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any_text().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 48, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            vec((any_text(), inner), 0..6).prop_map(|fields| Value::from(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

fn any_damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => (any::<usize>(), any_json()).prop_map(|(at, value)| Damage::Value(at, value)),
        2 => any::<usize>().prop_map(Damage::Gone),
        1 => any::<usize>().prop_map(Damage::Twice),
        1 => (any::<usize>(), any_text()).prop_map(|(at, name)| Damage::Renamed(at, name)),
        1 => (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Damage::Byte(at, byte)),
        1 => any::<usize>().prop_map(Damage::Cut),
    ]
}

/// Pointers to every place of a value but the whole.
fn places(value: &Value, at: &str, found: &mut Vec<(String, String)>) {
    let mut inside = |name: String, value: &Value| {
        found.push((at.to_owned(), name.clone()));
        places(value, &format!("{at}/{}", name.replace('~', "~0").replace('/', "~1")), found);
    };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| inside(name.clone(), value)),
        Value::Array(items) => items.iter().enumerate().for_each(|(n, value)| inside(n.to_string(), value)),
        _ => {}
    }
}

fn change(body: &mut Value, at: usize, change: impl FnOnce(&mut Value, &str)) {
    let mut found = Vec::new();
    places(body, "", &mut found);
    if found.is_empty() {
        return;
    }
    let (parent, name) = &found[at % found.len()];
    if let Some(parent) = body.pointer_mut(parent) {
        change(parent, name);
    }
}

fn damaged(mut body: Value, damage: &[Damage]) -> Vec<u8> {
    for one in damage {
        match one.clone() {
            Damage::Value(at, value) => change(&mut body, at, |parent, name| match parent {
                Value::Object(fields) => drop(fields.insert(name.to_owned(), value)),
                Value::Array(items) => items[name.parse::<usize>().unwrap()] = value,
                _ => {}
            }),
            Damage::Gone(at) => change(&mut body, at, |parent, name| match parent {
                Value::Object(fields) => drop(fields.remove(name)),
                Value::Array(items) => drop(items.remove(name.parse().unwrap())),
                _ => {}
            }),
            Damage::Twice(at) => change(&mut body, at, |parent, name| {
                if let Value::Array(items) = parent {
                    items.push(items[name.parse::<usize>().unwrap()].clone());
                }
            }),
            Damage::Renamed(at, to) => change(&mut body, at, |parent, name| {
                if let Value::Object(fields) = parent
                    && let Some(value) = fields.remove(name)
                {
                    fields.insert(to, value);
                }
            }),
            Damage::Byte(..) | Damage::Cut(_) => {}
        }
    }
    let mut bytes = body.to_string().into_bytes();
    for one in damage {
        match one {
            Damage::Byte(at, byte) if !bytes.is_empty() => {
                let at = at % bytes.len();
                bytes[at] = *byte;
            }
            Damage::Cut(at) => bytes.truncate(at % (bytes.len() + 1)),
            _ => {}
        }
    }
    bytes
}

/// A service with one thing of each kind, and how bodies and paths name them.
struct Target {
    runtime: Runtime,
    api: Api,
    names: [(&'static str, String); 3],
}

impl Target {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let (api, names) = runtime.block_on(async {
            let api = Api::new().await;
            let (agent, environment) = api.ground().await;
            let session = id(&api.session(json!({"agent": agent, "environment_id": environment})).await);
            (api, [("{agent}", agent), ("{environment}", environment), ("{session}", session)])
        });
        Self { runtime, api, names }
    }

    fn named(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (name, id)| text.replace(name, id))
    }

    fn post(&self, path: &str, body: Vec<u8>) -> u16 {
        let answered = self.api.call(Method::POST, path, Body::from(body));
        self.runtime.block_on(answered).status.as_u16()
    }
}

#[test]
fn sound_bodies_are_understood() {
    let target = Target::new();
    for (path, body) in sound() {
        let body = target.named(&body.to_string());
        let answer = target.runtime.block_on(target.api.call(Method::POST, &target.named(path), body.clone()));
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        // Refused for what they name at most, never for what they are.
        assert!(!text.contains("unknown field") && !text.contains("missing field"), "{path} {body}: {text}");
        assert!(!text.contains("unknown variant") && !text.contains("invalid type"), "{path} {body}: {text}");
    }
}

#[test]
fn no_body_is_a_failure_of_the_service() {
    let target = Target::new();
    let sound = sound();
    let bodies = (0..sound.len(), vec(any_damage(), 1..4));
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&bodies, |(n, damage)| {
        let (path, body) = &sound[n];
        let body: Value = serde_json::from_str(&target.named(&body.to_string())).unwrap();
        let body = damaged(body, &damage);
        let status = target.post(&target.named(path), body.clone());
        let is_ours = status == 500 || (status > 501 && status != 503);
        prop_assert!(!is_ours, "{status} for {path} {}", String::from_utf8_lossy(&body));
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}
