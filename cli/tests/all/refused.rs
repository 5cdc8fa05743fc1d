//! The service says no: its words, a hint, and the exit code.

use crate::{
    fake::{Answer, Fake},
    program::Place,
};
use serde_json::{Value, json};

fn place() -> Place {
    Place::new().with("STEADYHAND_API_KEY", "sk-test")
}

#[test]
fn an_envelope_becomes_message_hint_and_code() {
    for (status, kind, code, hint) in [
        (400, "invalid_request_error", 4, "see --help for what the command takes"),
        (401, "authentication_error", 4, "check STEADYHAND_API_KEY, or whether --data is the folder of that service"),
        (403, "permission_error", 4, "the key may not do this"),
        (404, "not_found_error", 4, "the id may be mistyped: the `list` commands show what there is"),
        (409, "conflict_error", 4, "somebody else changed it: look at it again, then repeat"),
        (413, "request_too_large", 4, "see --help for what the command takes"),
        (429, "rate_limit_error", 4, "wait until the session has taken up what was sent"),
        (500, "api_error", 1, "the service's log says more"),
        (501, "api_error", 4, "this version of the service cannot do that yet"),
        (503, "api_error", 3, "try again; `steadyhand doctor` says what is wrong"),
    ] {
        let fake = Fake::start(move |_| Answer::error(status, kind, "it was so"));
        let shot = place().run(&["session", "show", "sesn_1", "--url", &fake.url]);
        shot.expect(code, "", &format!("error: it was so\nhint: {hint} (req_1)\n"));
    }
}

#[test]
fn an_answer_of_something_else_is_told_apart() {
    let fake = Fake::start(|_| Answer::json(200, "<html>hello</html>"));
    place().run(&["agent", "list", "--url", &fake.url]).failed(3, "did not answer as a Steadyhand service does");
    let fake = Fake::start(|_| Answer::json(418, "short and stout"));
    place().run(&["agent", "list", "--url", &fake.url]).failed(4, "error: the service answered 418");
}

#[test]
fn the_key_is_sent_as_the_sdks_send_it() {
    let fake = Fake::start(|_| Answer::json(200, r#"{"data": [], "next_page": null}"#));
    place().run(&["agent", "list", "--url", &fake.url]).ok();
    let asked = fake.asked();
    assert_eq!(asked[0].headers()["authorization"], "Bearer sk-test");
    assert_eq!(asked[0].headers()["anthropic-beta"], "managed-agents-2026-04-01");
}

#[test]
fn without_a_key_nothing_is_asked() {
    let place = Place::new();
    place.write("data/admin.key", "secret\n");
    let shot = place.run(&["agent", "list", "--url", "http://steadyhand.invalid"]);
    shot.failed(2, "the admin key of [DIR]/data is only sent to the service that runs from there");
}

#[test]
fn lists_go_on_to_the_last_page() {
    let fake = Fake::start(|asked| {
        let query = asked.uri().query().unwrap_or_default();
        let (ids, next): (&[&str], _) = match query.split("page=").nth(1) {
            None => (&["agent_1", "agent_2"], json!("p2")),
            Some(_) => (&["agent_3"], Value::Null),
        };
        let data: Vec<_> =
            ids.iter().map(|id| json!({"id": id, "name": "n", "version": 1, "model": {"id": "m"}})).collect();
        Answer::json(200, &json!({"data": data, "next_page": next}).to_string())
    });
    let listed = place().run(&["agent", "list", "--json", "--url", &fake.url]).ok();
    let ids: Vec<Value> =
        listed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].clone()).collect();
    assert_eq!(ids, ["agent_1", "agent_2", "agent_3"]);
    assert_eq!(fake.asked().len(), 2);
    let table = place().run(&["agent", "list", "--limit", "2", "--url", &fake.url]);
    table.expect(
        0,
        "ID       VERSION  UPDATED  MODEL  NAME\nagent_1  1                 m      n\nagent_2  1                 m      n\n",
        "",
    );
}

#[test]
fn events_are_sent_again_under_the_same_key_when_nobody_knows_what_became_of_them() {
    use std::sync::atomic::{AtomicU32, Ordering};
    let count = AtomicU32::new(0);
    let fake = Fake::start(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        0 | 1 => Answer::error(503, "api_error", "the engine cannot be reached"),
        _ => Answer::json(200, r#"{"data": [{"id": "sevt_1", "type": "user.message"}]}"#),
    });
    place().run(&["session", "send", "sesn_1", "hi", "--url", &fake.url]).expect(0, "sevt_1\n", "");
    let asked = fake.asked();
    assert_eq!(asked.len(), 3);
    assert!(asked.iter().all(|asked| asked.headers()["idempotency-key"] == asked.headers()["idempotency-key"]));
    assert!(asked.windows(2).all(|two| two[0].headers()["idempotency-key"] == two[1].headers()["idempotency-key"]));
    let body: Value = serde_json::from_slice(asked[0].body()).unwrap();
    assert_eq!(body, json!({"events": [{"type": "user.message", "content": [{"type": "text", "text": "hi"}]}]}));
}

#[test]
fn an_upload_is_one_part_with_the_file_s_name() {
    let fake = Fake::start(|_| Answer::json(200, r#"{"id": "file_1"}"#));
    let place = place();
    let path = place.write("a \"b\".txt", "hello\r\n--world");
    place.run(&["file", "upload", path.to_str().unwrap(), "--url", &fake.url]).expect(0, "file_1\n", "");
    let asked = &fake.asked()[0];
    let kind = asked.headers()["content-type"].to_str().unwrap();
    let boundary = kind.strip_prefix("multipart/form-data; boundary=").unwrap();
    let expect = format!(
        "--{boundary}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a %22b%22.txt\"\r\n\
         content-type: application/octet-stream\r\n\r\nhello\r\n--world\r\n--{boundary}--\r\n"
    );
    assert_eq!(asked.body(), &expect);
}

#[test]
fn a_download_never_overwrites_and_never_leaves_this_folder() {
    let place = place();
    let fake = Fake::start(|asked| match asked.uri().path() {
        "/v1/files/file_1" => Answer::json(200, r#"{"filename": "../../evil/out.txt"}"#),
        _ => Answer::json(200, "bytes"),
    });
    let args = ["file", "download", "file_1", "--url", &fake.url];
    place.run(&args).expect(0, "", "wrote out.txt\n");
    assert_eq!(place.read("out.txt"), "bytes");
    place.run(&args).failed(1, "write out.txt");
    place.run(&["file", "download", "file_1", "-o", "-", "--url", &fake.url]).expect(0, "bytes", "");
}
