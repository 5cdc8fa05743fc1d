//! What is said to an MCP server and what it says, a JSON-RPC message a line. Pure: no process, no clock.
//!
//! Nobody is there whom a server could ask anything, so nothing that it may ask of clients is offered, and what it asks all the
//! same is refused.

mod outline;

use outline::Outline;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Asked for; a server may answer with an older one.
const NEWEST: &str = "2025-11-25";
/// Versions whose handshake, lists and calls are these.
const SPOKEN: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", NEWEST];
/// The id of `initialize`; calls have greater ones.
pub const HANDSHAKE: u64 = 0;
/// What is repeated of a server's own words.
const SAID_CHARS: usize = 300;
/// Ids of a server's own requests are repeated to it; longer ones are nobody's.
const ID_BYTES: usize = 256;

/// How a server answers a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Result(Value),
    Refused { code: i64, message: String },
}

/// What one line of a server comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    Reply(u64, Reply),
    /// It replied to that, and this is why nobody knows what.
    Unreadable(u64, String),
    /// It asked something; this is to be said to it.
    Asked(Vec<u8>),
    /// A notification, or nothing of the protocol: many a program greets whoever starts it.
    Nothing,
}

pub fn hello() -> Vec<u8> {
    let client = json!({"name": "steadyhand", "version": env!("CARGO_PKG_VERSION")});
    request(HANDSHAKE, "initialize", json!({"protocolVersion": NEWEST, "capabilities": {}, "clientInfo": client}))
}

/// What is said once the server has introduced itself, or why there is nothing to say to it.
pub fn agreed(hello: &Reply) -> Result<Vec<u8>, String> {
    match hello {
        Reply::Refused { message, .. } => Err(format!("it refused to begin: {}", cut(message))),
        Reply::Result(result) => match result["protocolVersion"].as_str() {
            Some(version) if SPOKEN.contains(&version) => {
                Ok(line(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})))
            }
            Some(version) => {
                Err(format!("it speaks version {} of the protocol, which is not known here", cut(version)))
            }
            None => Err("it did not say which version of the protocol it speaks".to_owned()),
        },
    }
}

pub fn request(id: u64, method: &str, params: Value) -> Vec<u8> {
    line(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
}

/// Nobody waits for the request's answer any more.
pub fn cancelled(id: u64, reason: &str) -> Vec<u8> {
    let params = json!({"requestId": id, "reason": reason});
    line(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}))
}

pub fn heard(said: &[u8]) -> Heard {
    // Much of what is no message is known by its first letter.
    if said.trim_ascii_start().first() != Some(&b'{') {
        return Heard::Nothing;
    }
    let Message { id, method, result, error } = match serde_json::from_slice(said) {
        Ok(message) => message,
        // What it replied to was done all the same, and whoever waits for it is not to wait for more.
        Err(e) => {
            let unreadable = |id| Heard::Unreadable(id, cut(&e.to_string()));
            return Outline::of(said).replies_to().map_or(Heard::Nothing, unreadable);
        }
    };
    match (method, id) {
        (Some(method), Some(id)) if can_be_repeated(&id) => Heard::Asked(line(&answer(&method, &id))),
        (None, Some(id)) => match (id.as_u64(), result, error) {
            (None, ..) => Heard::Nothing,
            (Some(id), _, Some(error)) => Heard::Reply(id, refused(&error)),
            (Some(id), Some(result), None) => Heard::Reply(id, Reply::Result(result)),
            (Some(id), None, None) => Heard::Unreadable(id, "it has neither a result nor an error".to_owned()),
        },
        _ => Heard::Nothing,
    }
}

fn can_be_repeated(id: &Value) -> bool {
    match id {
        Value::Number(_) => true,
        Value::String(id) => id.len() <= ID_BYTES,
        _ => false,
    }
}

/// One that is not as the protocol has errors is shown as it came.
fn refused(error: &Value) -> Reply {
    match Error::deserialize(error) {
        Ok(Error { code, message }) => Reply::Refused { code, message },
        Err(_) => Reply::Refused { code: 0, message: cut(&error.to_string()) },
    }
}

fn answer(method: &str, id: &Value) -> Value {
    match method {
        "ping" => json!({"jsonrpc": "2.0", "id": id, "result": {}}),
        _ => {
            json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "this client has no such method"}})
        }
    }
}

/// Fields of a later version of the protocol are none of ours.
#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    id: Option<Value>,
    #[serde(default)]
    method: Option<String>,
    #[serde(default, deserialize_with = "present")]
    result: Option<Value>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Error {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
}

/// A result that is null is one.
fn present<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

fn line(message: &Value) -> Vec<u8> {
    let mut line = message.to_string().into_bytes();
    line.push(b'\n');
    line
}

fn cut(text: &str) -> String {
    text.chars().take(SAID_CHARS).collect()
}

/// The tools on one page of a list, and where the next one begins.
pub fn page(result: Value) -> Result<(Vec<Value>, Option<String>), String> {
    let Value::Object(mut result) = result else { return Err("its list of tools is no object".to_owned()) };
    let mut field = |name: &str| Map::remove(&mut result, name);
    let Some(Value::Array(tools)) = field("tools") else { return Err("its list of tools has no tools".to_owned()) };
    let next = field("nextCursor").and_then(|cursor| cursor.as_str().map(str::to_owned));
    Ok((tools, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: Vec<u8>) -> Value {
        assert!(bytes.ends_with(b"\n") && bytes.iter().filter(|byte| **byte == b'\n').count() == 1);
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn a_line_is_a_reply_a_question_or_nothing() {
        let refused = |code, message: &str| Heard::Reply(3, Reply::Refused { code, message: message.to_owned() });
        for (said, expected) in [
            (r#"{"jsonrpc":"2.0","id":3,"result":{"a":1}}"#, Heard::Reply(3, Reply::Result(json!({"a": 1})))),
            (r#"{"jsonrpc":"2.0","id":3,"result":null}"#, Heard::Reply(3, Reply::Result(Value::Null))),
            (r#"{"jsonrpc":"2.0","id":3,"error":{"code":-32602,"message":"no"}}"#, refused(-32602, "no")),
            (r#"{"jsonrpc":"2.0","id":3,"result":{},"error":{}}"#, refused(0, "")),
            (r#"{"jsonrpc":"2.0","id":3,"result":{},"later":{"x":1}}"#, Heard::Reply(3, Reply::Result(json!({})))),
            (r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"hi"}}"#, Heard::Nothing),
            (r#"{"jsonrpc":"2.0","id":"3","result":{}}"#, Heard::Nothing),
            (r#"{"jsonrpc":"2.0","id":-1,"result":{}}"#, Heard::Nothing),
            (r#"{"jsonrpc":"2.0","id":3,"result":{},"error":null}"#, Heard::Reply(3, Reply::Result(json!({})))),
            (r#"{"jsonrpc":"2.0","id":3,"error":{"code":"E1"}}"#, refused(0, r#"{"code":"E1"}"#)),
            (r#"{"jsonrpc":"2.0","id":3,"error":{"message":null}}"#, refused(0, r#"{"message":null}"#)),
            (r#"{"jsonrpc":"2.0","id":3,"error":"no"}"#, refused(0, r#""no""#)),
            (r#"[{"jsonrpc":"2.0","id":3,"result":{}}]"#, Heard::Nothing),
            ("Server running on stdio", Heard::Nothing),
            ("3", Heard::Nothing),
            ("", Heard::Nothing),
        ] {
            assert_eq!(heard(said.as_bytes()), expected, "{said}");
        }
        assert_eq!(heard(b"\xff\xfe{}"), Heard::Nothing);
    }

    #[test]
    fn a_reply_that_cannot_be_read_is_one() {
        let deep = format!(r#"{{"result":{}{},"id":3}}"#, "[".repeat(1000), "]".repeat(1000));
        for said in [
            deep.as_bytes(),
            br#"{"jsonrpc":"2.0","id":3}"#,
            br#"{"jsonrpc":"2.0","id":3,"error":null}"#,
            // Half a surrogate pair, a number that is none, bytes that are no text, a line that breaks off.
            br#"{"result":"\ud800","id":3}"#,
            br#"{"jsonrpc":"2.0","id":3,"result":{"mean":NaN}}"#,
            b"{\"id\":3,\"result\":\"\xff\"}",
            br#"{"jsonrpc":"2.0","id":3,"result":{"#,
        ] {
            let said_as = String::from_utf8_lossy(said);
            assert!(matches!(heard(said), Heard::Unreadable(3, _)), "{said_as}: {:?}", heard(said));
        }
        for said in [
            // Its own request of that number, and what says neither.
            r#"{"id":3,"method":"x","params":NaN}"#,
            r#"{"id":3,"result":1,"method":"x","params":NaN}"#,
            r#"{"id":3,"half": "#,
            r#"{"result":{"id":3,"x":NaN}}"#,
            r#"{"id":"3","result":NaN}"#,
        ] {
            assert_eq!(heard(said.as_bytes()), Heard::Nothing, "{said}");
        }
    }

    #[test]
    fn an_id_that_is_none_is_not_repeated() {
        let asked = |id: Value| heard(json!({"id": id, "method": "ping"}).to_string().as_bytes());
        for id in [json!(7), json!(-1.5), json!("x".repeat(ID_BYTES))] {
            assert!(matches!(asked(id.clone()), Heard::Asked(_)), "{id}");
        }
        for id in [json!("x".repeat(ID_BYTES + 1)), json!([1]), json!({"a": 1}), json!(true), json!(null)] {
            assert_eq!(asked(id.clone()), Heard::Nothing, "{id}");
        }
    }

    #[test]
    fn what_a_server_asks_is_answered_and_nothing_is_done_for_it() {
        let asked = |method: &str| {
            let said = json!({"jsonrpc": "2.0", "id": "theirs", "method": method, "params": {}}).to_string();
            let Heard::Asked(answer) = heard(said.as_bytes()) else { panic!("{method}") };
            text(answer)
        };
        assert_eq!(asked("ping"), json!({"jsonrpc": "2.0", "id": "theirs", "result": {}}));
        for method in ["roots/list", "sampling/createMessage", "elicitation/create", "tools/call"] {
            assert_eq!(asked(method)["error"]["code"], -32601, "{method}");
        }
    }

    #[test]
    fn versions_are_agreed_on() {
        assert_eq!(text(hello())["params"]["protocolVersion"], NEWEST);
        for version in SPOKEN {
            let said = agreed(&Reply::Result(json!({"protocolVersion": version}))).unwrap();
            assert_eq!(text(said)["method"], "notifications/initialized");
        }
        for wrong in [json!({"protocolVersion": "2099-01-01"}), json!({}), json!(null)] {
            assert!(agreed(&Reply::Result(wrong.clone())).is_err(), "{wrong}");
        }
        let refused = agreed(&Reply::Refused { code: 1, message: "not today".into() });
        assert_eq!(refused.unwrap_err(), "it refused to begin: not today");
    }

    #[test]
    fn a_page_is_tools_and_a_place_to_go_on() {
        assert_eq!(page(json!({"tools": [1], "nextCursor": "a"})), Ok((vec![json!(1)], Some("a".to_owned()))));
        assert_eq!(page(json!({"tools": [], "nextCursor": null})), Ok((vec![], None)));
        for wrong in [json!({}), json!({"tools": {}}), json!([1]), json!(null)] {
            assert!(page(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
