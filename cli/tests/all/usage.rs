//! A command line that makes no sense: exit code 2, and what is wrong with it.

use crate::program::Place;

#[test]
fn wrong_command_lines_are_refused() {
    let place = Place::new().with("STEADYHAND_API_KEY", "k");
    for (args, says) in [
        (&["fly"][..], "unrecognized subcommand 'fly'"),
        (&["run"], "<TASK>"),
        (&["run", " "], "error: the task is empty\nhint: say what is to be done"),
        (&["run", "--url", "http://127.0.0.1:1", "--repo"], "a value is required for '--repo <DIR|URL>'"),
        (&["session", "show"], "<ID>"),
        (&["session", "show", "../agents"], "an id has letters, digits, _ and - only"),
        (&["session", "show", ""], "an id has letters"),
        (&["session", "confirm", "sesn_1"], "<--allow|--deny>"),
        (&["session", "confirm", "sesn_1", "--allow", "--deny"], "cannot be used with"),
        (&["session", "confirm", "sesn_1", "--allow", "--reason", "x"], "cannot be used with"),
        (&["session", "list", "--status", "asleep"], "invalid value 'asleep'"),
        (&["session", "events", "sesn_1", "--from", "-1"], "unexpected argument"),
        (&["session", "list", "--url", "localhost:8280"], "is not the URL of a service"),
        (&["session", "list", "--url", "not a url"], "understand the URL not a url"),
        (&["session", "send", "sesn_1", "  ", "--url", "http://127.0.0.1:1"], "the message is empty"),
        (&["agent", "create", "--ask", "bash", "--no-tools"], "cannot be used with"),
        (&["agent", "create", "missing.json"], "read missing.json"),
        (&["completions", "cmd"], "invalid value 'cmd'"),
        (&["serve", "--listen", "here"], "invalid value 'here'"),
    ] {
        place.run(args).failed(2, says);
    }
}

#[test]
fn a_file_that_is_no_agent_is_refused_before_anything_is_asked() {
    let place = Place::new();
    for (name, text, says) in [
        ("a.json", "{", "understand a.json: EOF"),
        ("a.json", "[]", "a.json holds no object"),
        ("a.toml", "name = ", "understand a.toml"),
    ] {
        place.write(name, text);
        place.run(&["agent", "create", name]).failed(2, says);
    }
}
