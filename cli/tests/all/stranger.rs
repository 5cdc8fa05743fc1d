//! Whoever takes over the port of a service that is gone is sent nothing.

use crate::{
    fake::{Answer, Fake},
    program::Place,
};

const HELLO: &str = "version = 1\n[[rules]]\nanswer = [{ text = \"hello\" }]\n";

const COMMANDS: &[&[&str]] = &[
    &["session", "list"],
    &["session", "watch", "sesn_1"],
    &["session", "send", "sesn_1", "secret plans"],
    &["agent", "list"],
    &["file", "list"],
    &["why", "sesn_1"],
];

#[test]
fn a_stranger_at_the_port_is_sent_nothing() {
    let place = Place::new();
    let service = place.serve(HELLO);
    place.run(&["agent", "list"]).ok();
    let url = service.url.clone();
    // It has no time to take its announcement back.
    service.kill();
    let stranger = Fake::start_at(url.strip_prefix("http://").unwrap(), |_| Answer::json(200, r#"{"data": []}"#));
    for place in [&place, &Place::at(&place).with("STEADYHAND_API_KEY", "another-secret")] {
        for command in COMMANDS {
            place.run(command).failed(3, &format!("no service answers at {url}"));
            place.run(&[command, &["--url", &url][..]].concat()).failed(3, &format!("no service answers at {url}"));
        }
    }
    assert!(stranger.asked().is_empty(), "{:?}", stranger.asked());
    // The next service of the folder is found again.
    let service = place.serve(HELLO);
    place.run(&["agent", "list"]).ok();
    service.stop();
}

#[test]
fn the_folder_s_key_goes_to_no_other_service_of_this_machine() {
    let place = Place::new();
    place.write("data/admin.key", "secret\n");
    place.write("data/serve.json", r#"{"addr":"127.0.0.1:1","pid":1}"#);
    let other = Fake::start(|_| Answer::json(200, r#"{"data": []}"#));
    let shot = place.run(&["agent", "list", "--url", &other.url]);
    shot.failed(2, "the admin key of [DIR]/data is only sent to the service that runs from there");
    assert!(other.asked().is_empty());
}
