//! Requests that make no sense, sent to a real service: each gets the API's envelope and a status, and the service goes on.

use crate::program::Place;
use serde_json::{Value, json};

const HELLO: &str = "version = 1\n[[rules]]\nanswer = [{ text = \"hello\" }]\n";

struct Case {
    method: reqwest::Method,
    path: &'static str,
    key: Option<&'static str>,
    body: Vec<u8>,
    status: u16,
    kind: &'static str,
}

fn case(method: &str, path: &'static str, body: impl Into<Vec<u8>>, status: u16, kind: &'static str) -> Case {
    let method = method.parse().unwrap();
    Case { method, path, key: Some("sk-test"), body: body.into(), status, kind }
}

#[test]
fn each_gets_an_envelope() {
    const INVALID: &str = "invalid_request_error";
    const MISSING: &str = "not_found_error";
    let place = Place::new().with("STEADYHAND_API_KEY", "sk-test");
    let service = place.serve(HELLO);
    let wrong_type = json!({"name": 7, "model": "m"}).to_string();
    let cases = [
        case("POST", "/v1/agents", "{\"name\": ", 400, INVALID),
        case("POST", "/v1/agents", "[]", 400, INVALID),
        case("POST", "/v1/agents", wrong_type, 400, INVALID),
        case("POST", "/v1/agents", "", 400, INVALID),
        case("POST", "/v1/agents", [0xff, 0xfe], 400, INVALID),
        case("POST", "/v1/agents", vec![b' '; 33_000_000], 413, "request_too_large"),
        case("POST", "/v1/sessions/sesn_none/events", json!({"events": []}).to_string(), 404, MISSING),
        case(
            "POST",
            "/v1/sessions",
            json!({"agent": "agent_none", "environment_id": "env_none"}).to_string(),
            404,
            MISSING,
        ),
        case("GET", "/v1/agents/agent_none", "", 404, MISSING),
        case("GET", "/v1/sessions/..%2F..%2Fetc", "", 404, MISSING),
        case("GET", "/v1/nothing", "", 404, MISSING),
        case("GET", "/v1/agents?page=nonsense", "", 400, INVALID),
        case("GET", "/v1/agents?limit=-1", "", 400, INVALID),
        case("GET", "/v1/sessions?limit=many", "", 400, INVALID),
        Case { key: None, ..case("GET", "/v1/agents", "", 401, "authentication_error") },
        Case { key: Some("sk-other"), ..case("GET", "/v1/agents", "", 401, "authentication_error") },
    ];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        for Case { method, path, key, body, status, kind } in cases {
            let size = body.len();
            let mut request = http.request(method.clone(), format!("{}{path}", service.url)).body(body);
            if let Some(key) = key {
                request = request.header("x-api-key", key);
            }
            let answer = request.send().await.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
            let found = answer.status().as_u16();
            let id = answer.headers()["request-id"].to_str().unwrap().to_owned();
            let envelope: Value = answer.json().await.unwrap();
            let told =
                (found, envelope["type"].as_str(), envelope["error"]["type"].as_str(), envelope["request_id"].as_str());
            assert_eq!(
                told,
                (status, Some("error"), Some(kind), Some(&*id)),
                "{method} {path} with {size} bytes: {envelope}"
            );
            assert!(envelope["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{envelope}");
        }
    });
    place.run(&["run", "still there"]).ok();
    service.stop();
}
