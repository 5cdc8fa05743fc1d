//! Pages that the service fetches for a session: which, from where, and how often a page may lead on.

use crate::fixture::{SESSION, World};
use crate::servers;
use domain::egress::{CALLS_SOCKET, Domains, Networking, Policy, WEB_REFUSED, WEB_URL, web_path};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use tokio::runtime::Runtime;

/// What egress says: why it did not fetch a page, or where the page was; and the text.
struct Answer {
    status: u16,
    refused: Option<String>,
    url: Option<String>,
    text: String,
    headers: String,
}

fn fetch(world: &World, url: &str) -> Answer {
    let (socket, path) = (world.path("sockets").join(CALLS_SOCKET), web_path(SESSION, url));
    world.runtime.block_on(async move {
        let stream = tokio::net::UnixStream::connect(socket).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::get(path).header("host", "egress").header("cookie", "of-the-caller");
        let answer = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
        let header = |name: &str| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let (refused, url, headers) = (header(WEB_REFUSED), header(WEB_URL), format!("{:?}", answer.headers()));
        let status = answer.status().as_u16();
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        Answer { status, refused, url, text: String::from_utf8(text.to_vec()).unwrap(), headers }
    })
}

fn policy(web: Option<Domains>) -> Policy {
    Policy { web, ..Policy::default() }
}

#[test]
fn pages_are_fetched_from_domains_that_the_agent_names_wherever_they_lead() {
    let runtime = Runtime::new().unwrap();
    let (addr, seen) = servers::pages(&runtime);
    let (private, never) = servers::pages(&runtime);
    let world = World::new(runtime, &[addr]);
    let at = |host: &str, path: &str| format!("http://{host}:{}{path}", addr.port());
    // The network of sandboxes is another matter.
    world.policy(policy(Some(Domains::Only(vec!["docs.test".into()]))));
    let page = fetch(&world, &at("docs.test", "/a?b=1#c"));
    assert_eq!((page.status, page.refused), (200, None));
    assert!(page.text.contains("GET /a?b=1 ") && !page.text.contains("of-the-caller"), "{}", page.text);
    assert!(!page.headers.contains("of=the-site") && page.headers.contains("text/plain"), "{}", page.headers);
    assert_eq!(page.url, Some(at("docs.test", "/a?b=1#c")));

    let moved = fetch(&world, &at("docs.test", &format!("/to?{}", at("sub.docs.test", "/there"))));
    assert_eq!((moved.status, moved.url), (200, Some(at("sub.docs.test", "/there"))));
    let moved = fetch(&world, &at("docs.test", "/to?/here"));
    assert_eq!((moved.status, moved.url), (200, Some(at("docs.test", "/here"))));

    let asked = seen.lock().unwrap().len();
    for (url, refused) in [
        (at("other.test", "/"), "url_not_allowed"),
        (at("docs.test.evil.test", "/"), "url_not_allowed"),
        (at("127.0.0.1", "/"), "url_not_allowed"),
        (format!("http://docs.test:{}/", private.port()), "url_not_allowed"),
        (at("user@docs.test", "/"), "invalid_tool_input"),
        ("ftp://docs.test/".to_owned(), "invalid_tool_input"),
        ("file:///etc/passwd".to_owned(), "invalid_tool_input"),
        ("docs.test".to_owned(), "invalid_tool_input"),
    ] {
        let answer = fetch(&world, &url);
        assert_eq!(answer.refused.as_deref(), Some(refused), "{url}: {}", answer.text);
    }
    assert_eq!(seen.lock().unwrap().len(), asked, "nobody was asked for those");
    // What a page leads to is judged as if it had been asked for.
    for to in [
        at("other.test", "/"),
        format!("http://docs.test:{}/", private.port()),
        format!("http://127.0.0.1:{}/", private.port()),
        "http://169.254.169.254/latest/".to_owned(),
    ] {
        let answer = fetch(&world, &at("docs.test", &format!("/to?{to}")));
        assert_eq!(answer.refused.as_deref(), Some("url_not_allowed"), "{to}");
    }
    assert!(never.lock().unwrap().is_empty());
    let endless = fetch(&world, &at("docs.test", "/to?/to"));
    assert_eq!(endless.refused.as_deref(), Some("url_not_accessible"), "{}", endless.text);

    world.policy(policy(Some(Domains::Except(vec!["docs.test".into()]))));
    assert_eq!(fetch(&world, &at("sub.docs.test", "/")).refused.as_deref(), Some("url_not_allowed"));
    assert_eq!(fetch(&world, &at("other.test", "/")).refused, None);
    let audit = world.audit();
    assert!(audit.contains("not among the domains") && audit.contains("opened") && !audit.contains("/a?b"), "{audit}");
}

#[test]
fn without_the_tool_nothing_is_fetched_and_sandboxes_never_do() {
    let runtime = Runtime::new().unwrap();
    let (addr, seen) = servers::pages(&runtime);
    let world = World::new(runtime, &[addr]);
    let url = format!("http://docs.test:{}/", addr.port());
    world.policy(Policy { networking: Networking::Unrestricted, ..policy(None) });
    assert_eq!(fetch(&world, &url).refused.as_deref(), Some("url_not_allowed"));
    world.policy(policy(Some(Domains::Any)));
    assert_eq!(fetch(&world, &url).refused, None);
    // The domains are the tool's, and open nothing to a sandbox.
    let hand = world.hand();
    let path = web_path(SESSION, &url);
    let said = hand.sh(&format!(
        "curl -s -o /dev/null -w '%{{http_code}} ' --noproxy '*' http://127.0.0.1:3128{path}; \
         curl -s -o /dev/null -w '%{{http_code}} ' {url}; true"
    ));
    assert_eq!(said, "403 403 ");
    assert_eq!(seen.lock().unwrap().len(), 1);
}
