//! Nobody answers: exit code 3, and how to start somebody.

use crate::program::Place;
use std::net::TcpListener;

const COMMANDS: &[&[&str]] = &[
    &["session", "list"],
    &["session", "show", "sesn_1"],
    &["session", "events", "sesn_1"],
    &["session", "watch", "sesn_1"],
    &["session", "send", "sesn_1", "hello"],
    &["session", "interrupt", "sesn_1"],
    &["session", "confirm", "sesn_1", "--allow"],
    &["session", "diff", "sesn_1"],
    &["session", "archive", "sesn_1"],
    &["session", "delete", "sesn_1"],
    &["agent", "create", "--name", "a"],
    &["agent", "list"],
    &["agent", "show", "agent_1"],
    &["agent", "update", "agent_1", "--name", "b"],
    &["agent", "archive", "agent_1"],
    &["env", "create", "--name", "e"],
    &["env", "list"],
    &["env", "show", "env_1"],
    &["env", "archive", "env_1"],
    &["env", "delete", "env_1"],
    &["file", "upload", "x"],
    &["file", "list"],
    &["file", "download", "file_1"],
    &["file", "delete", "file_1"],
    &["key", "create", "laptop"],
    &["why", "sesn_1"],
];

#[test]
fn no_service_ever_ran() {
    let place = Place::new();
    place.run(&["session", "list"]).expect(
        3,
        "",
        "error: no service runs from [DIR]/data\n\
         hint: start it with `steadyhand serve`, or name another with --url or --data\n",
    );
    for command in COMMANDS {
        place.run(command).failed(3, "hint: start");
    }
    assert!(!place.data().exists(), "asking leaves nothing behind");
}

/// A port at which nobody listens any more.
fn dead_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn the_service_that_announced_itself_is_gone() {
    let place = Place::new();
    let port = dead_port();
    place.write("data/serve.json", &format!(r#"{{"addr":"127.0.0.1:{port}","pid":1}}"#));
    place.write("data/admin.key", "k\n");
    place.write("x", "");
    let shot = place.run(&["session", "list"]);
    shot.failed(3, &format!("error: no service answers at http://127.0.0.1:{port}"));
    shot.failed(3, "hint: start the service with `steadyhand serve`");
    // A key can also be made while nothing runs, where something ran before.
    for command in COMMANDS.iter().filter(|command| command[0] != "key") {
        place.run(command).failed(3, "no service answers");
    }
}

#[test]
fn a_service_named_by_its_url_is_not_started() {
    let place = Place::new().with("STEADYHAND_API_KEY", "k");
    let url = format!("http://127.0.0.1:{}", dead_port());
    let shot = place.run(&["run", "hello", "--url", &url]);
    shot.expect(
        3,
        "",
        &format!(
            "error: no service answers at {url}\n\
             hint: start it there, or leave --url out to use a service on this machine\n"
        ),
    );
    assert!(!place.data().exists());
}
