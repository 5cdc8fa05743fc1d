//! `run` as a person at a terminal sees it.

use crate::program::Place;
use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::{FromRawFd as _, OwnedFd},
    process::{Child, Stdio},
};

const SCRIPT: &str = r#"
version = 1
[[rules]]
when = { results = 0 }
answer = [{ text = "First I look." }, { tool = "bash", input = { command = "ls; echo \u001b[2Jhidden" } }]
[[rules]]
answer = [{ text = "I was told: {{result}}" }]
"#;

const ASKING: &str = r#"{"name": "asks", "model": "m", "tools": [
    {"type": "agent_toolset_20260401", "default_config": {"permission_policy": {"type": "always_ask"}}}]}"#;

/// The near end of a pseudo terminal with a program at the far end.
struct Terminal {
    near: File,
    child: Child,
    seen: String,
}

#[expect(unsafe_code, reason = "only libc opens pseudo terminals, and it gives bare descriptors")]
impl Terminal {
    fn run(place: &Place, args: &[&str]) -> Self {
        let (mut near, mut far) = (-1, -1);
        let size = libc::winsize { ws_row: 24, ws_col: 70, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: both descriptors are written before they are used, and the unused pointers may be null.
        let made = unsafe {
            libc::openpty(&raw mut near, &raw mut far, std::ptr::null_mut(), std::ptr::null(), &raw const size)
        };
        assert_eq!(made, 0);
        // SAFETY: nobody else has these descriptors.
        let (near, far) = unsafe { (File::from_raw_fd(near), OwnedFd::from_raw_fd(far)) };
        let mut command = place.command(args);
        command.stdin(Stdio::from(far.try_clone().unwrap())).stderr(Stdio::from(far));
        Terminal { near, child: command.spawn().unwrap(), seen: String::new() }
    }

    /// Reads until the screen has shown `text`.
    fn wait_for(&mut self, text: &str) {
        let mut bytes = [0; 4096];
        while !self.seen.contains(text) {
            let count =
                self.near.read(&mut bytes).unwrap_or_else(|_| panic!("{text:?} was never shown: {}", self.seen));
            self.seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    }

    fn type_line(&mut self, line: &str) {
        self.near.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Exit code and stdout, once the program has ended.
    fn end(mut self) -> (i32, String) {
        let mut bytes = [0; 4096];
        // The far end is closed: Linux says so by an error.
        while self.near.read(&mut bytes).is_ok_and(|count| count > 0) {}
        let mut stdout = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        (self.child.wait().unwrap().code().unwrap_or(-1), stdout)
    }
}

#[test]
fn a_person_sees_what_happens_and_answers() {
    let place = Place::new();
    let _service = place.serve(SCRIPT);
    place.write("asks.json", ASKING);
    let mut terminal = Terminal::run(&place, &["run", "look", "--agent", "asks.json"]);
    terminal.wait_for("waiting for the model | ");
    terminal.wait_for("the agent wants to run bash\r\n  command: ls; echo [2Jhidden\r\nallow? [y, n, or n and why] ");
    assert!(terminal.seen.contains("\r\u{1b}[KFirst I look.\r\n"), "{}", terminal.seen);
    assert!(!terminal.seen.contains("\u{1b}[2J"), "{}", terminal.seen);
    terminal.type_line("perhaps");
    terminal.wait_for("why] perhaps\r\nallow? ");
    terminal.type_line("n not now");
    terminal.wait_for(": not now\r\n");
    let (code, stdout) = terminal.end();
    assert_eq!(code, 0);
    assert!(stdout.starts_with("I was told: ") && stdout.contains("not now"), "{stdout}");
}

#[test]
fn ctrl_c_at_a_question_interrupts_the_agent() {
    let place = Place::new();
    let _service = place.serve(SCRIPT);
    place.write("asks.json", ASKING);
    let mut terminal = Terminal::run(&place, &["run", "look", "--agent", "asks.json"]);
    terminal.wait_for("allow? ");
    let pid = rustix::process::Pid::from_child(&terminal.child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    terminal.wait_for("error: the task was interrupted\r\nhint: go on with: steadyhand session send sesn_");
    assert_eq!(terminal.end().0, 5);
}
