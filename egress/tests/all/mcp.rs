//! MCP servers as the service calls them, and that nobody else does.

use crate::fixture::{CANARY, SESSION, World, limited};
use crate::servers;
use bytes::Bytes;
use domain::egress::{
    CALLS_SOCKET, ClientAuth, CredentialId, McpServer, Networking, Policy, Refresh, Reply, Request, mcp_path,
};
use http::StatusCode;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use std::sync::{Arc, Mutex};
use tokio::runtime::Runtime;

const FRESH: &str = "CANARY-fresh-token";

struct Answer {
    status: StatusCode,
    challenge: Option<String>,
    text: String,
}

async fn call(socket: std::path::PathBuf, path: String) -> Answer {
    let stream = tokio::net::UnixStream::connect(socket).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post(path)
        .header("host", "egress")
        .header("content-type", "application/json")
        .header("mcp-session-id", "s-1")
        .header("authorization", "Bearer of-the-callers-own")
        .header("cookie", "of-the-callers-own")
        .body(Full::new(Bytes::from("{}")))
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let (status, headers) = (answer.status(), answer.headers().clone());
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    let challenge = headers.get("www-authenticate").map(|value| value.to_str().unwrap().to_owned());
    Answer { status, challenge, text: String::from_utf8(text.to_vec()).unwrap() }
}

fn ask(world: &World, server: &str) -> Answer {
    world.runtime.block_on(call(world.path("sockets").join(CALLS_SOCKET), mcp_path(SESSION, server)))
}

fn server(name: &str, url: String, credential: Option<CredentialId>) -> McpServer {
    McpServer { name: name.into(), url, credential, refresh: None }
}

fn open(mcp_servers: Vec<McpServer>) -> Policy {
    Policy { networking: Networking::Unrestricted, mcp_servers, ..Policy::default() }
}

#[test]
fn the_credential_goes_to_exactly_its_url_and_comes_back_in_nothing() {
    let runtime = Runtime::new().unwrap();
    let (addr, seen) = servers::bearer(&runtime, Arc::new(Mutex::new(CANARY.to_owned())));
    let (private, never) = servers::bearer(&runtime, Arc::default());
    let world = World::new(runtime, &[addr]);
    let credential = || Some(world.put("mcp", CANARY));
    let at = |path: &str| format!("http://mcp.test:{}{path}", addr.port());
    world.policy(open(vec![
        server("docs", at("/mcp?x=1"), credential()),
        server("moved", at("/moved"), credential()),
        server("nobody", at("/mcp"), None),
        server("private", format!("http://other.test:{}/", private.port()), credential()),
    ]));
    let docs = ask(&world, "docs");
    assert_eq!(docs.status, StatusCode::OK);
    assert!(docs.text.contains("POST /mcp?x=1") && docs.text.contains("s-1"), "{}", docs.text);
    assert!(docs.text.contains(&"*".repeat(CANARY.len())) && !docs.text.contains("CANARY"), "{}", docs.text);
    let asked = seen.lock().unwrap().join("");
    assert!(asked.contains(CANARY) && !asked.contains("of-the-callers-own"), "{asked}");

    for (name, status, said) in [
        ("moved", StatusCode::BAD_GATEWAY, "redirects are not followed"),
        ("private", StatusCode::FORBIDDEN, "not public"),
        ("unknown", StatusCode::GONE, "no such MCP server"),
    ] {
        let refused = ask(&world, name);
        assert!(refused.status == status && refused.text.contains(said), "{name}: {} {}", refused.status, refused.text);
        assert!(refused.challenge.is_none(), "{name}");
    }
    let nobody = ask(&world, "nobody");
    assert_eq!(
        (nobody.status, nobody.challenge.as_deref(), &*nobody.text),
        (StatusCode::UNAUTHORIZED, Some("Bearer"), "")
    );
    assert!(never.lock().unwrap().is_empty());

    // Where only some hosts are allowed, servers are reached as the environment says.
    let servers = || vec![server("docs", at("/mcp"), credential())];
    world.policy(Policy { mcp_servers: servers(), ..limited(&[]) });
    assert_eq!(ask(&world, "docs").status, StatusCode::FORBIDDEN);
    let networking =
        Networking::Limited { allowed_hosts: vec![], allow_mcp_servers: true, allow_package_managers: false };
    let mcp_hosts = vec![format!("mcp.test:{}", addr.port())];
    world.policy(Policy { networking, mcp_servers: servers(), mcp_hosts, ..Policy::default() });
    assert_eq!(ask(&world, "docs").status, StatusCode::OK);
    // An agent that has others now.
    let change =
        Request::SetMcpServers { session_id: SESSION.into(), mcp_servers: vec![], mcp_hosts: vec![], web: None };
    assert_eq!(world.egress().answer(change), Reply::Done);
    assert_eq!(ask(&world, "docs").status, StatusCode::GONE);
    assert!(!world.audit().contains("CANARY"));
}

#[test]
fn a_sandbox_cannot_call_them() {
    let runtime = Runtime::new().unwrap();
    let (addr, seen) = servers::bearer(&runtime, Arc::new(Mutex::new(CANARY.to_owned())));
    let world = World::new(runtime, &[addr]);
    world.policy(open(vec![server(
        "docs",
        format!("http://mcp.test:{}/mcp", addr.port()),
        Some(world.put("mcp", CANARY)),
    )]));
    let hand = world.hand();
    let path = mcp_path(SESSION, "docs");
    let said = hand.sh(&format!(
        "curl -s -o /dev/null -w '%{{http_code}} ' --noproxy '*' http://127.0.0.1:3128{path}; \
         curl -s -o /dev/null -w '%{{http_code}} ' --unix-socket /run/egress/proxy.sock http://egress{path}; ls -A /run/egress/.. /run/egress; true"
    ));
    assert!(said.starts_with("403 403 ") && !said.contains(CALLS_SOCKET), "{said}");
    assert!(seen.lock().unwrap().is_empty());
}

#[test]
fn a_token_that_is_refused_is_refreshed_once_whoever_asks() {
    let runtime = Runtime::new().unwrap();
    let asked = Arc::new(Mutex::new("expired since".to_owned()));
    let (addr, seen) = servers::bearer(&runtime, Arc::clone(&asked));
    let (endpoint, forms) = servers::tokens(&runtime, Arc::clone(&asked), "first", FRESH);
    let world = World::new(runtime, &[addr, endpoint]);
    let refresh = Refresh {
        token_endpoint: format!("http://auth.test:{}/token", endpoint.port()),
        client_id: "us&them".into(),
        client: ClientAuth::Basic { secret: world.put("client", "s/cret") },
        refresh_token: world.put("refresh", "first"),
        resource: None,
        scope: Some("a b".into()),
    };
    let url = format!("http://mcp.test:{}/mcp", addr.port());
    let docs = server("docs", url, Some(world.put("access", "CANARY-stale")));
    world.policy(open(vec![McpServer { refresh: Some(refresh), ..docs }]));
    let socket = world.path("sockets").join(CALLS_SOCKET);
    let answers = world.runtime.block_on(async {
        let calls: Vec<_> = (0..8).map(|_| tokio::spawn(call(socket.clone(), mcp_path(SESSION, "docs")))).collect();
        let mut answers = Vec::new();
        for call in calls {
            answers.push(call.await.unwrap());
        }
        answers
    });
    assert!(answers.iter().all(|answer| answer.status == StatusCode::OK && !answer.text.contains("CANARY")));
    let forms = std::mem::take(&mut *forms.lock().unwrap());
    // `us%26them:s%2Fcret`
    let expected = r#"Some("Basic dXMlMjZ0aGVtOnMlMkZjcmV0") grant_type=refresh_token&refresh_token=first&scope=a%20b"#;
    assert_eq!(forms, [expected]);

    // What came with it is used the next time, and where that does not help the caller hears that he is not let in.
    "never".clone_into(&mut asked.lock().unwrap());
    let refused = ask(&world, "docs");
    assert_eq!((refused.status, refused.challenge.as_deref()), (StatusCode::UNAUTHORIZED, Some("Bearer")));
    assert!(seen.lock().unwrap().iter().any(|head| head.contains(FRESH)));
    assert!(!world.audit().contains("CANARY"));
}
