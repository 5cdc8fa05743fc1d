//! The OpenAPI document against the router that it was read off, and against what the SDKs call.

use std::collections::BTreeSet;

use axum::body::Body;
use http::Method;
use serde_json::{Value, json};

use super::{Api, fit, request};
use crate::openapi::DOCUMENT;
use crate::resources::unbuilt;

/// Every operation, as `POST /v1/agents`.
fn operations(document: &Value) -> BTreeSet<String> {
    let paths = document["paths"].as_object().unwrap().iter();
    let each = paths.flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().keys().filter(|key| *key != "parameters");
        methods.map(move |method| format!("{} {path}", method.to_ascii_uppercase()))
    });
    each.collect()
}

#[tokio::test]
async fn it_has_every_call_of_the_sdks_that_is_built() {
    let api = Api::new().await;
    let document = api.get("/openapi.json").await.ok();
    let known = operations(&document);
    let mut later = 0;
    for line in include_str!("endpoints.tsv").lines().skip(1) {
        let mut columns = line.split('\t');
        let (method, path) = (columns.next().unwrap(), columns.next().unwrap());
        let roots = unbuilt::RESOURCE.routes.iter().map(|route| route.path.trim_end_matches("/{*rest}"));
        if roots.into_iter().any(|root| path == root || path.starts_with(&format!("{root}/"))) {
            later += 1;
        } else {
            assert!(known.contains(&format!("{method} {path}")), "{method} {path}");
        }
    }
    assert!(known.len() > later);
}

#[tokio::test]
async fn what_it_has_is_answered_and_what_it_has_not_is_405() {
    let api = Api::new().await;
    let document = api.get("/openapi.json").await.ok();
    let known = operations(&document);
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let params: BTreeSet<_> =
            item["parameters"].as_array().into_iter().flatten().map(|it| it["name"].as_str().unwrap()).collect();
        let named: BTreeSet<_> = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        assert_eq!(params, named, "{path}");
        let called = path.replace(['{', '}'], "");
        for method in [Method::GET, Method::POST, Method::DELETE, Method::PUT, Method::PATCH] {
            let answer = api.open(request(method.clone(), &called).body(Body::from("{}")).unwrap()).await;
            let is_known = known.contains(&format!("{method} {path}"));
            assert_eq!(is_known, answer.status() != 405, "{method} {path}: {}", answer.status());
            assert!(answer.headers().contains_key("request-id"));
            if is_known {
                let operation = &item[method.as_str().to_ascii_lowercase()];
                assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{operation}");
                let status = answer.status().as_u16();
                assert!(status != 500 && (status < 500 || status == 503), "{method} {path}: {status}");
            }
        }
    }
    assert_eq!(ids.len(), known.len());
}

#[test]
fn it_says_what_streams_send_and_nothing_else_fits() {
    let message = |event: &str, data: Value| json!({"event": event, "data": data.to_string()});
    let text = json!({"type": "text", "text": "he"});
    let delta = json!({"type": "content_delta", "index": 0, "content": text});
    let sound = [
        json!({"event": "agent.message", "id": "7", "data": json!({"type": "agent.message", "id": "sevt_1",
            "content": [text], "processed_at": "2026-11-23T00:00:00.000Z"}).to_string()}),
        message("event_start", json!({"type": "event_start", "event": {"type": "agent.message", "id": "sevt_1"}})),
        message("event_delta", json!({"type": "event_delta", "event_id": "sevt_1", "delta": delta})),
        message(
            "session.deleted",
            json!({"type": "session.deleted", "id": "sevt_1", "processed_at": "2026-11-23T00:00:00.000Z"}),
        ),
        message("ping", json!({"type": "ping"})),
    ];
    let wrong = [
        json!({"event": "ping"}),
        json!({"event": "ping", "data": "{"}),
        json!({"event": "ping", "data": "{\"type\":\"ping\"}", "retry": "1"}),
        json!({"event": "ping", "id": "x", "data": "{\"type\":\"ping\"}"}),
        message("pong", json!({"type": "pong"})),
        message("event_start", json!({"type": "event_start", "event": {"id": "sevt_1"}})),
        message("event_delta", json!({"type": "event_delta", "delta": delta})),
        message(
            "event_delta",
            json!({"type": "event_delta", "event_id": "sevt_1", "delta": {"type": "content_delta"}}),
        ),
    ];
    let streams =
        ["~1v1~1sessions~1{session_id}~1events~1stream", "~1v1~1sessions~1{session_id}~1threads~1{thread_id}~1stream"];
    for stream in streams {
        let pointer = format!("/paths/{stream}/get/responses/200/content/text~1event-stream/x-itemSchema");
        for message in &sound {
            assert_eq!(fit::problem(&pointer, message), None);
        }
        for message in &wrong {
            assert!(fit::problem(&pointer, message).is_some(), "{message}");
        }
    }
}

/// POSTs that are said all by their path. May only shrink.
const WITHOUT_BODY: &[&str] = &[
    "/v1/agents/{agent_id}/archive",
    "/v1/environments/{environment_id}/archive",
    "/v1/environments/{environment_id}/work/{work_id}/ack",
    "/v1/environments/{environment_id}/work/{work_id}/heartbeat",
    "/v1/harness_rollouts/{rollout_id}/{order}",
    "/v1/sessions/{session_id}/archive",
    "/v1/sessions/{session_id}/threads/{thread_id}/archive",
    "/v1/steadyhand/api_keys/{key_id}/revoke",
    "/v1/steadyhand/environments/{environment_id}/keys/{key_id}/revoke",
    "/v1/vaults/{vault_id}/archive",
    "/v1/vaults/{vault_id}/credentials/{credential_id}/archive",
    "/v1/vaults/{vault_id}/credentials/{credential_id}/mcp_oauth_validate",
];

/// Answers that are shown as they are kept, for people to look at: the document does not say what they have in them. May
/// only shrink.
const OPEN: &[&str] = &[
    "/openapi.json",
    "/v1/harness_rollouts",
    "/v1/harness_rollouts/{rollout_id}",
    "/v1/harness_rollouts/{rollout_id}/{order}",
    "/v1/harnesses/{harness}/ablation",
    "/v1/harnesses/{harness}/ablation/{trial_id}",
    "/v1/sessions/{session_id}/context",
    "/v1/sessions/{session_id}/recording",
    "/v1/sessions/{session_id}/replay",
    "/v1/sessions/{session_id}/whatif",
    "/v1/sessions/{session_id}/whatif/{trial_id}",
];

#[test]
fn every_post_says_what_it_takes_and_every_answer_what_it_is() {
    let mut open = BTreeSet::new();
    let mut bare = BTreeSet::new();
    for (path, item) in DOCUMENT["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(name, _)| *name != "parameters") {
            let content = operation["requestBody"]["content"].as_object();
            if method == "post" && content.is_none() {
                bare.insert(path.as_str());
            }
            if let Some(schema) = content.and_then(|content| content.get("application/json")) {
                assert!(schema["schema"]["$ref"].is_string(), "{method} {path}: {schema}");
            }
            let answer = operation["responses"]["200"]["content"].as_object();
            let answer = answer.unwrap_or_else(|| panic!("{method} {path} answers nothing"));
            if let Some(json) = answer.get("application/json") {
                let schema = &json["schema"];
                let is_said = schema["$ref"].is_string() || schema["anyOf"].is_array();
                if !is_said || schema["$ref"] == "#/components/schemas/PageOfAnyValue" {
                    open.insert(path.as_str());
                }
            }
        }
    }
    assert_eq!(bare, BTreeSet::from_iter(WITHOUT_BODY.iter().copied()));
    assert_eq!(open, BTreeSet::from_iter(OPEN.iter().copied()));
}

#[test]
fn what_does_not_fit_is_found() {
    let agent = |kind: &str| json!({"type": kind});
    let problem = fit::problem("/components/schemas/Agent", &agent("agent")).unwrap();
    assert!(problem.contains("created_at"), "{problem}");
    let event = json!({"type": "session.usage", "id": "sevt_1", "processed_at": null, "usage": {}});
    let problem = fit::problem("/components/schemas/SessionEvent", &event).unwrap();
    assert!(problem.contains("cache_creation"), "{problem}");
    let event = json!({"type": "agent.thinking", "id": "sevt_1", "processed_at": null});
    assert_eq!(fit::problem("/components/schemas/SessionEvent", &event), None);
}

#[test]
fn what_may_be_left_out_or_cleared_says_so() {
    let update = &DOCUMENT["components"]["schemas"]["UpdateAgent"];
    assert_eq!(update.get("required"), None);
    assert_eq!(update["properties"]["system"]["type"], json!(["string", "null"]));
    assert_eq!(update["additionalProperties"], false);
    let create = &DOCUMENT["components"]["schemas"]["CreateAgent"];
    assert_eq!(create["required"], json!(["name", "model"]));
}
