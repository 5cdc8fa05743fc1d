//! The sandboxes of a service: in which mode they are made, and what operators see of them.

use crate::program::{Place, Shot};
use hand::protocol::Need;
use serde_json::Value;
use std::{os::unix::fs::PermissionsExt as _, path::Path};

const SCRIPT: &str = r#"
version = 1
[[rules]]
when = { results = 0 }
answer = [{ tool = "bash", input = { command = "echo from inside" } }]
[[rules]]
answer = [{ text = "Done." }]
"#;

/// What the tool said.
fn result(shot: Shot) -> String {
    let events: Vec<Value> = shot.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let result = events.iter().find(|event| event["type"] == "agent.tool_result");
    result.unwrap_or_else(|| panic!("{shot}"))["content"][0]["text"].as_str().unwrap().to_owned()
}

fn listed(place: &Place) -> Vec<Value> {
    let list = place.run(&["hand", "list", "--json"]).ok();
    list.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A folder that every user can pass through.
fn hands_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    dir
}

#[test]
fn a_service_that_is_told_no_mode_makes_strict_sandboxes_or_none() {
    let program = Path::new(env!("CARGO_BIN_EXE_steadyhand")).with_file_name("steadyhand-hand");
    assert!(program.is_file(), "build it first: cargo build -p steadyhand-hand");
    let layers = hand::local::probe(&program).unwrap();
    let off: Vec<_> = layers.iter().filter(|layer| !layer.on && layer.need != Need::Advice).collect();
    let (place, dir) = (Place::new(), hands_dir());
    let service = place.serve_with_hands(SCRIPT, dir.path(), &[]);
    let said = result(place.run(&["run", "look", "--json"]));
    if off.is_empty() {
        assert_eq!(said, "from inside\n");
        let hands = listed(&place);
        assert_eq!((hands.len(), &hands[0]["mode"]), (1, &Value::from("strict")));
        place.run(&["hand", "end", hands[0]["id"].as_str().unwrap()]).ok();
    } else {
        assert!(!said.contains("from inside"), "{said}");
        for layer in off {
            assert!(said.contains(&layer.name) && said.contains(&layer.fix), "{said}");
        }
        assert!(listed(&place).is_empty());
    }
    service.stop();
}

#[test]
fn a_weaker_mode_is_taken_when_it_is_named_and_called_weaker_wherever_it_shows() {
    let (place, dir) = (Place::new().with("STEADYHAND_HANDS_MODE", "dev"), hands_dir());
    let service = place.serve_with_hands(SCRIPT, dir.path(), &[]);
    assert!(place.read("service.log").contains("weaker"), "{}", place.read("service.log"));
    assert!(place.run(&["doctor"]).stdout.contains("WEAKER"));
    assert_eq!(result(place.run(&["run", "look", "--json"])), "from inside\n");
    let table = place.run(&["hand", "list"]).ok();
    assert!(table.starts_with("HAND ") && table.contains("dev (weaker)"), "{table}");
    let id = listed(&place)[0]["id"].as_str().unwrap().to_owned();
    let shown = place.run(&["hand", "show", &id]).ok();
    assert!(shown.contains("mode     dev (weaker)") && shown.contains("without  disk_quota: "), "{shown}");
    place.run(&["hand", "end", &id]).ok();
    assert!(listed(&place).is_empty() && !dir.path().join(&id).exists());
    place.run(&["hand", "show", &id]).failed(4, &format!("hand {id} not found"));
    service.stop();
}
