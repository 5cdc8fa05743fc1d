//! A service that cannot start says why, and what to do.

use crate::program::Place;
use std::net::TcpListener;

const HELLO: &str = "version = 1\n[[rules]]\nanswer = [{ text = \"You said: {{user}}\" }]\n";

#[test]
fn a_bad_configuration_file() {
    let place = Place::new();
    let file = place.write("c.toml", "[serve]\nlisten = \"127.0.0.1:0\"\nlistn = 1\n");
    let shot = place.run(&["serve", "--config", file.to_str().unwrap()]);
    shot.failed(2, "[DIR]/c.toml: TOML parse error at line 3");
    shot.failed(2, "unknown field `listn`");
    shot.failed(2, "hint: docs/operations.md lists every key");
    place.run(&["serve", "--config", "none.toml"]).failed(2, "read the configuration none.toml");
    place.write("data/steadyhand.toml", "serve = 1");
    place.run(&["serve"]).failed(2, "[DIR]/data/steadyhand.toml");
}

#[test]
fn no_model_and_no_script() {
    let shot = Place::new().run(&["serve", "--listen", "127.0.0.1:0"]);
    shot.failed(
        2,
        "hint: set STEADYHAND_MODEL_KEY or ANTHROPIC_API_KEY; to try without a key, give --model-script FILE",
    );
}

#[test]
fn the_data_folder_is_in_use() {
    let place = Place::new();
    let service = place.serve(HELLO);
    let script = place.path().join("script.toml");
    let second = place.run(&["serve", "--listen", "127.0.0.1:0", "--model-script", script.to_str().unwrap()]);
    second.failed(6, "error: the data folder [DIR]/data is in use by another service (process ");
    second.failed(6, &service.url);
    second.failed(6, "hint: stop that one, or choose another folder with --data");
    place.run(&["verify"]).failed(6, "is in use by another service");
    service.stop();
    place.serve(HELLO).stop();
}

#[test]
fn the_port_is_in_use() {
    let place = Place::new();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = holder.local_addr().unwrap().to_string();
    let script = place.write("script.toml", HELLO);
    let shot = place.run(&["serve", "--listen", &addr, "--model-script", script.to_str().unwrap()]);
    shot.failed(1, &format!("error: listen on {addr}: "));
    shot.failed(1, "hint: another program has that port: choose another with --listen; port 0 picks a free one");
}

#[test]
fn a_temporal_that_cannot_be_reached() {
    let place = Place::new();
    let script = place.write("script.toml", HELLO);
    // Bound and closed again: nobody listens there.
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let shot = place.run(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--temporal",
        &addr,
        "--model-script",
        script.to_str().unwrap(),
    ]);
    shot.failed(3, &format!("error: reach Temporal at {addr}: "));
    shot.failed(3, "hint: is it running, and is HOST:PORT that of its frontend (usually port 7233)?");
}

#[test]
fn the_api_role_never_sees_a_model_key() {
    let place = Place::new().with("ANTHROPIC_API_KEY", "sk-secret");
    let shot = place.run(&["serve", "--role", "api", "--listen", "127.0.0.1:0"]);
    shot.failed(2, "--role api was started with a model key in ANTHROPIC_API_KEY");
    assert!(!shot.stderr.contains("sk-secret"), "{shot}");
}

#[test]
fn run_says_why_the_service_that_it_started_did_not_start() {
    let place = Place::new();
    let shot = place.run(&["run", "hello"]);
    shot.failed(3, "error: the service did not start: ");
    shot.failed(3, "hint: set STEADYHAND_MODEL_KEY or ANTHROPIC_API_KEY");
}
