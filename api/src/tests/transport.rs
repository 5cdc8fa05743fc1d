//! The conformance checks of transport, 1 to 12.

use axum::body::Body;
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::StreamBody;
use hyper::body::Frame;
use serde_json::json;

use super::{Api, KEY, id, request};
use crate::auth::Scope;
use crate::body::BODY_BYTES_MAX;

#[tokio::test]
async fn both_key_headers_are_accepted_and_answers_say_whose_they_are() {
    let api = Api::new().await;
    let made = api.app.keys.create("laptop", Scope::All, None, api.app.clock.now()).await.unwrap();
    for (name, value) in [
        ("authorization", format!("Bearer {KEY}")),
        ("authorization", format!("bearer {}", made.token)),
        ("x-api-key", KEY.to_owned()),
        ("x-api-key", made.token.clone()),
    ] {
        let answer = api.send(Request::get("/v1/agents").header(name, value).body(Body::empty()).unwrap()).await;
        assert_eq!(answer.headers["anthropic-organization-id"], api.app.tenant.organization_id.as_str());
        assert_eq!(answer.headers["anthropic-workspace-id"], api.app.tenant.workspace_id.as_str());
        answer.ok();
    }
    let wrong = Request::get("/v1/agents").header("x-api-key", "no").body(Body::empty()).unwrap();
    let answer = api.send(wrong).await;
    assert!(answer.headers.get("anthropic-workspace-id").is_none());
    answer.refused(401, "authentication_error");
}

#[tokio::test]
async fn a_workspace_that_is_named_must_be_the_keys() {
    let api = Api::new().await;
    for (workspace, status) in [(api.app.tenant.workspace_id.as_str(), 200), ("wrkspc_other", 403)] {
        let request = request(Method::GET, "/v1/agents").header("anthropic-workspace-id", workspace);
        assert_eq!(api.send(request.body(Body::empty()).unwrap()).await.status, status);
    }
}

#[tokio::test]
async fn every_answer_carries_a_request_id_of_its_own() {
    let api = Api::new().await;
    let mut seen = std::collections::HashSet::new();
    for path in ["/v1/agents", "/v1/agents/agent_no", "/v1/no", "/", "/healthz", "/v1/vaults"] {
        let answer = api.get(path).await;
        let request_id = answer.headers["request-id"].to_str().unwrap().to_owned();
        assert!(request_id.starts_with("req_01"), "{request_id}");
        assert!(seen.insert(request_id));
    }
}

#[tokio::test]
async fn what_does_not_exist_is_not_found() {
    let api = Api::new().await;
    for path in ["/v1/agents/x", "/v1/agents/x/versions", "/v1/environments/x", "/v1/files/x", "/v1/files/x/content"] {
        api.get(path).await.refused(404, "not_found_error");
    }
    for path in ["/v1/agents/x", "/v1/environments/x"] {
        api.post(path, &json!({})).await.refused(404, "not_found_error");
        api.act(&format!("{path}/archive")).await.refused(404, "not_found_error");
    }
    for path in ["/v1/environments/x", "/v1/files/x"] {
        api.delete(path).await.refused(404, "not_found_error");
    }
    let endless = "x".repeat(60_000);
    let answer = api.get(&format!("/v1/agents/{endless}")).await;
    // The frame keeps the headers of the answer that it wraps.
    assert_eq!(answer.headers["anthropic-workspace-id"], api.app.tenant.workspace_id.as_str());
    answer.refused(404, "not_found_error");
    for path in ["/", "/v1", "/v1/agentsx", "/v1/agents/a/b/c", "/v2/agents"] {
        api.get(path).await.refused(404, "not_found_error");
    }
    // A parameter that is not even text.
    api.get("/v1/agents/%ff").await.invalid();
}

#[tokio::test]
async fn a_method_that_a_path_does_not_know_is_405() {
    let api = Api::new().await;
    let answer = api.delete("/v1/agents").await;
    assert!(answer.headers["allow"].to_str().unwrap().contains("POST"));
    answer.refused(405, "invalid_request_error");
}

#[tokio::test]
async fn malformed_bodies_are_400_and_say_where() {
    let api = Api::new().await;
    for (body, expected) in [
        ("{", "the body is not valid JSON: EOF"),
        ("{}", "missing field `name`"),
        (r#"["a", "m"]"#, "the body must be a JSON object"),
        ("null", "the body must be a JSON object"),
        ("\"\u{0}\"", "the body is not valid JSON"),
        (r#"{"name": 7, "model": "m"}"#, "name: invalid type: integer `7`, expected a string"),
        (r#"{"name": "a", "model": []}"#, "model: invalid type: sequence, expected an object"),
        (
            r#"{"name": "a", "model": "m", "tools": [{"type": "agent_toolset_20260401", "default_config": []}]}"#,
            "tools[0].default_config: invalid type: sequence, expected an object",
        ),
        (r#"{"name": "a", "model": "m"} x"#, "the body is not valid JSON: trailing characters"),
    ] {
        let message = api.call(Method::POST, "/v1/agents", body).await.invalid();
        assert!(message.starts_with(expected), "{body}: {message}");
    }
    api.call(Method::POST, "/v1/agents", vec![0xff, 0xfe]).await.invalid();
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_whether_announced_or_not() {
    let api = Api::new().await;
    let filler = "x".repeat(BODY_BYTES_MAX);
    let body = json!({"name": "a", "model": "m", "system": filler}).to_string();
    let announced = request(Method::POST, "/v1/agents").header("content-length", body.len());
    api.send(announced.body(body.clone().into()).unwrap()).await.refused(413, "request_too_large");
    let chunks: Vec<Bytes> = body.as_bytes().chunks(1 << 20).map(Bytes::copy_from_slice).collect();
    let frames = chunks.into_iter().map(|chunk| Ok::<_, std::io::Error>(Frame::data(chunk)));
    let streamed = Body::new(StreamBody::new(futures::stream::iter(frames)));
    api.call(Method::POST, "/v1/agents", streamed).await.refused(413, "request_too_large");
    // One that just fits is read, and then refused for what is in it.
    let mut fits = body;
    fits.truncate(BODY_BYTES_MAX);
    assert!(api.call(Method::POST, "/v1/agents", fits).await.invalid().starts_with("the body is not valid JSON"));
}

#[tokio::test]
async fn versions_of_the_protocol_and_unknown_query_keys_make_no_difference() {
    let api = Api::new().await;
    for version in ["2026-10-21", "2023-06-01"] {
        let path = "/v1/agents?beta=true&unknown=1&limit=";
        let request = Request::get(path).header("anthropic-version", version).header("x-api-key", KEY);
        api.send(request.body(Body::empty()).unwrap()).await.ok();
    }
}

#[tokio::test]
async fn actions_and_deletes_take_an_empty_json_body() {
    let api = Api::new().await;
    let agent = api.post("/v1/agents", &json!({"name": "a", "model": "m"})).await.ok();
    api.act(&format!("/v1/agents/{}/archive", id(&agent))).await.ok();
    let environment = api.post("/v1/environments", &json!({"name": "e"})).await.ok();
    api.act(&format!("/v1/environments/{}", id(&environment))).await.ok();
    api.delete(&format!("/v1/environments/{}", id(&environment))).await.ok();
}

#[tokio::test]
async fn what_is_not_built_says_so_and_is_not_retried() {
    let api = Api::new().await;
    for path in ["/v1/skills/x/versions", "/v1/memory_stores"] {
        let answer = api.get(path).await;
        assert_eq!(answer.headers["x-should-retry"], "false");
        assert_eq!(answer.json()["error"]["details"]["error_code"], "not_implemented");
        answer.refused(501, "api_error");
    }
}
