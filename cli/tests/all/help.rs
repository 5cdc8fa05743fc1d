//! Every command explains itself.

use crate::program::Place;

/// The commands that a help text lists.
fn commands(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| line.split_whitespace().next().filter(|_| !line.starts_with("   ")));
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

fn check(place: &Place, path: &[&str], seen: &mut Vec<String>) {
    for flag in ["--help", "-h"] {
        let shot = place.run(&[path, &[flag]].concat());
        assert!(
            shot.code == 0 && shot.stderr.is_empty() && shot.stdout.contains("Usage: steadyhand"),
            "{path:?}: {shot}"
        );
    }
    seen.push(path.join(" "));
    let help = place.run(&[path, &["-h"]].concat()).stdout;
    for name in commands(&help) {
        check(place, &[path, &[&name]].concat(), seen);
    }
}

#[test]
fn every_command_has_a_help_text() {
    let mut seen = Vec::new();
    check(&Place::new(), &[], &mut seen);
    for known in ["serve", "run", "session watch", "agent create", "env delete", "file download", "key create", "why"] {
        assert!(seen.iter().any(|path| path == known), "{known} is not among {seen:?}");
    }
}

/// What people who write and operate harnesses type.
#[test]
fn every_command_about_harnesses_shows_an_example_and_prints_json() {
    let place = Place::new();
    let commands = [
        "harness list",
        "harness show",
        "harness add",
        "harness remove",
        "session swap",
        "session fork",
        "session strategy",
        "replay",
        "context",
        "whatif",
        "rollout create",
        "rollout list",
        "rollout status",
        "rollout pause",
        "rollout resume",
        "rollout promote",
        "rollout rollback",
        "ablate",
    ];
    for command in commands {
        let path: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let help = place.run(&path).ok();
        let example = help.split("Example").nth(1).unwrap_or_default();
        assert!(example.contains(&format!("steadyhand {command}")), "{command} shows no example:\n{help}");
        assert!(help.contains("--json"), "{command} prints no JSON:\n{help}");
    }
}

#[test]
fn the_version_is_printed() {
    let version = concat!("steadyhand ", env!("CARGO_PKG_VERSION"), "\n");
    Place::new().run(&["--version"]).expect(0, version, "");
}

#[test]
fn completions_for_every_shell() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(place.run(&["completions", shell]).ok().contains("steadyhand"), "{shell}");
    }
}
