use super::*;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// What each of these servers does before anything else, in sh.
const BEGINS: &str = r#"
reply() { printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$1" "$2"; }
read hello; reply 0 '{"protocolVersion":"2025-06-18","capabilities":{}}'; read initialized
"#;

struct Bench {
    dir: tempfile::TempDir,
    servers: Arc<Servers>,
}

impl Bench {
    fn new() -> Self {
        // Whoever reaps, reaps all children of this process.
        static PROCESSES: OnceLock<Arc<Processes>> = OnceLock::new();
        let processes = Arc::clone(PROCESSES.get_or_init(|| Processes::start().unwrap()));
        let dir = tempfile::tempdir().unwrap();
        let servers = Servers::new(processes, dir.path().to_owned(), Arc::new(FirstToGo::open()));
        Self { dir, servers: Arc::new(servers) }
    }

    fn asked(script: &str, request: Request) -> Asked {
        let args = vec!["-c".to_owned(), script.to_owned()];
        let program = Program { command: "sh".to_owned(), args, env: [("WORD".to_owned(), "w".to_owned())].into() };
        Asked { server: "docs".to_owned(), program, request }
    }

    /// A call of a server that goes on like this once it has introduced itself.
    fn call(&self, goes_on: &str) -> ToolResult {
        self.call_within(goes_on, Duration::from_secs(60))
    }

    fn call_within(&self, goes_on: &str, within: Duration) -> ToolResult {
        let request = Request::Call { tool: "t".to_owned(), arguments: json!({"a": 1}) };
        let stop = Stop::new(Some(Instant::now() + within));
        self.servers.ask(Self::asked(&format!("{BEGINS}{goes_on}"), request), &stop)
    }

    fn wrong(&self, goes_on: &str) -> String {
        let result = self.call(goes_on);
        assert!(result.is_error, "{result:?}");
        result.text()
    }

    /// One whose whole script is this.
    fn never_starts(&self, script: &str) -> String {
        let stop = Stop::new(Some(Instant::now() + Duration::from_secs(60)));
        let result = self.servers.ask(Self::asked(script, Request::List {}), &stop);
        assert!(result.is_error, "{result:?}");
        result.text()
    }

    fn list(&self, goes_on: &str) -> Answer {
        let stop = Stop::new(Some(Instant::now() + Duration::from_secs(60)));
        answer(&self.servers.ask(Self::asked(&format!("{BEGINS}{goes_on}"), Request::List {}), &stop))
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap()
    }

    fn is_alive(&self, pid_file: &str) -> bool {
        let pid = self.read(pid_file);
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    }
}

fn answer(result: &ToolResult) -> Answer {
    assert!(!result.is_error, "{result:?}");
    serde_json::from_str(&result.text()).unwrap()
}

fn ok() -> Answer {
    Answer::Result(json!({"ok": true}))
}

#[test]
fn a_call_is_answered_whatever_else_is_said_and_however_it_is_cut() {
    let bench = Bench::new();
    let said = bench.call(
        r#"read request; echo "$request" > request; echo "$WORD" > word; echo 'Listening ...'; echo '{"half": '; echo
        printf '{"jsonrpc":"2.0","method":"notifications/message","params":{"data":"x"}}\n{"jsonrpc":"2.0",'
        echo log >&2; reply 77 '{"nobody": "asked"}' >/dev/null; printf '"id":1,"res'; printf 'ult":{"ok":true}}\r\n'; read more"#,
    );
    assert_eq!(answer(&said), ok());
    let request: Value = serde_json::from_str(&bench.read("request")).unwrap();
    assert_eq!((&request["method"], &request["id"]), (&json!("tools/call"), &json!(1)));
    assert_eq!(request["params"], json!({"name": "t", "arguments": {"a": 1}}));
    assert_eq!(bench.read("word"), "w\n");
}

#[test]
fn a_server_is_kept_and_started_again_once_it_has_ended() {
    let bench = Bench::new();
    let counts = r#"echo started >> starts; n=0; while read request; do n=$((n + 1)); reply $n '{"ok":true}'
        if [ $n = 2 ]; then exit 3; fi; done"#;
    for starts in [1, 1, 2, 2, 3] {
        // The one that has ended may not be known to have ended yet, and then its end is what is told.
        let mut said = bench.call(counts);
        while said.is_error {
            assert!(said.text().contains("it ended (exit code 3)"), "{said:?}");
            said = bench.call(counts);
        }
        assert_eq!(answer(&said), ok());
        assert_eq!(bench.read("starts").lines().count(), starts);
    }
    // Another program under its name takes its place.
    let other = r#"echo $$ > other; while read request; do reply 1 '{"ok":true}'; done"#;
    assert_eq!(answer(&bench.call(other)), ok());
    assert!(bench.is_alive("other"));
    assert_eq!(answer(&bench.call(counts)), ok());
    assert!(!bench.is_alive("other"));
}

#[test]
fn a_server_that_dies_in_the_middle_of_a_call_is_told_with_its_last_words() {
    let bench = Bench::new();
    let said = bench.wrong("read request; echo 'Traceback: boom' >&2; exit 3");
    assert!(said.contains("it ended (exit code 3)") && said.contains("Traceback: boom"), "{said}");
    assert!(said.contains("may or may not have taken effect"), "{said}");
    let said = bench.wrong("read request; kill -9 $$");
    assert!(said.contains("it ended (ended by signal 9)"), "{said}");
    // Its children do not hold anybody up.
    let said = bench.wrong("read request; sleep 1000 & echo $! > child; exit 1");
    assert!(said.contains("it ended (exit code 1)") && !bench.is_alive("child"), "{said}");
    let said = bench.wrong("read request; echo $$ > pid; exec 1>&-; sleep 1000");
    assert!(said.contains("it closed its output") && !bench.is_alive("pid"), "{said}");
    // What it said at last counts.
    assert_eq!(answer(&bench.call(r#"read request; reply 1 '{"ok":true}'; exit 1"#)), ok());
}

#[test]
fn one_that_does_not_start_was_never_called() {
    let bench = Bench::new();
    let said = bench.never_starts("echo 'no module named x' >&2; exit 7");
    assert!(
        said.contains("nothing was called: it ended (exit code 7)") && said.contains("no module named x"),
        "{said}"
    );
    let old = r#"read hello; echo '{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"1999-01-01"}}'; read x"#;
    let said = bench.never_starts(old);
    assert!(said.contains("it speaks version 1999-01-01 of the protocol"), "{said}");
    let said =
        bench.never_starts(r#"read hello; echo '{"jsonrpc":"2.0","id":0,"error":{"code":1,"message":"no"}}'; read x"#);
    assert!(said.contains("it refused to begin: no"), "{said}");
    let stop = Stop::new(None);
    let mut asked = Bench::asked("", Request::List {});
    asked.program.command = "no-such-program".to_owned();
    let said = bench.servers.ask(asked, &stop);
    assert!(said.is_error && said.text().contains("could not be started: no-such-program: No such file"), "{said:?}");
}

#[test]
fn a_server_that_never_answers_is_ended_with_all_that_it_started() {
    let bench = Bench::new();
    let hangs =
        "read request; echo $$ > pid; sleep 1000 & echo $! > child; setsid sleep 1000 & echo $! > session; cat > told";
    let said = bench.call_within(hangs, Duration::from_secs(2));
    assert!(
        said.is_error && said.text().starts_with("timed out; the MCP server docs was told so and ended"),
        "{said:?}"
    );
    for pid in ["pid", "child", "session"] {
        assert!(!bench.is_alive(pid), "{pid}");
    }
    let told: Value = serde_json::from_str(&bench.read("told")).unwrap();
    assert_eq!((&told["method"], &told["params"]["requestId"]), (&json!("notifications/cancelled"), &json!(1)));
    // One that does not even read is, too.
    let request = Request::Call { tool: "t".to_owned(), arguments: json!({"a": "x".repeat(1024 * 1024)}) };
    let stop = Stop::new(Some(Instant::now() + Duration::from_secs(2)));
    let said = bench.servers.ask(Bench::asked(&format!("{BEGINS}echo $$ > deaf; sleep 1000"), request), &stop);
    assert!(said.is_error && said.text().starts_with("timed out") && !bench.is_alive("deaf"), "{said:?}");
}

#[test]
fn who_waits_for_a_server_hears_that_it_is_cancelled() {
    let bench = Bench::new();
    let fifo = bench.dir.path().join("go");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let (stop, servers) = (Arc::new(Stop::new(None)), Arc::clone(&bench.servers));
    let waits = std::thread::spawn({
        let stop = Arc::clone(&stop);
        let script = format!("{BEGINS}read request; cat go > /dev/null");
        let request = Request::Call { tool: "t".to_owned(), arguments: json!({}) };
        move || servers.ask(Bench::asked(&script, request), &stop)
    });
    // Opened once the server, which has the request, opens it too.
    let _held = std::fs::File::options().write(true).open(&fifo).unwrap();
    stop.cancel();
    bench.servers.wake();
    let said = waits.join().unwrap();
    assert!(
        said.is_error && said.text().starts_with("interrupted; the MCP server docs was told so and ended"),
        "{said:?}"
    );
}

#[test]
fn a_server_that_says_too_much_is_ended() {
    let bench = Bench::new();
    // In long lines, so that not much has to be done for each.
    let begins = r"read request; echo $$ > pid; pad=$(head -c 60000 /dev/zero | tr '\0' x)";
    let said = bench.wrong(&format!("{begins}; exec yes \"junk $pad\""));
    assert!(said.contains("it said 64 MiB and no answer among them") && !bench.is_alive("pid"), "{said}");
    let ping = r#"{\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"ping\",\"params\":\"$pad\"}"#;
    let said = bench.wrong(&format!("{begins}; exec yes \"{ping}\""));
    assert!(said.contains("it said 64 MiB and no answer among them"), "{said}");
    let said = bench.wrong("read request; head -c 8000000 /dev/zero | tr '\\0' x; sleep 1000");
    assert!(said.contains("it said a message of more than 7 MiB"), "{said}");
    // A flood of errors holds nobody up, and its end is kept.
    let said = bench.wrong("read request; head -c 8000000 /dev/zero | tr '\\0' x >&2; echo THE END >&2; exit 1");
    assert!(said.ends_with("THE END The next call starts it again.") || said.contains("THE END\n"), "{said}");
    assert!(said.len() < 2 * limits::MCP_STDERR_BYTES, "{}", said.len());
}

#[test]
fn several_at_once_get_each_their_own() {
    let bench = Bench::new();
    // Answered in the other order, and not before both are there.
    let script = r#"read one; read two; reply 2 2; reply 1 1; read more"#;
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let asked = [(); 2].map(|()| scope.spawn(|| answer(&bench.call(script))));
        asked.map(|asked| asked.join().unwrap()).into()
    });
    let sum: i64 =
        answers.iter().map(|answer| if let Answer::Result(n) = answer { n.as_i64().unwrap() } else { 0 }).sum();
    assert!(sum == 3 && answers[0] != answers[1], "{answers:?}");
}

#[test]
fn what_a_server_asks_meanwhile_is_answered() {
    let bench = Bench::new();
    let said = bench.call(
        r#"read request; echo '{"jsonrpc":"2.0","id":"p","method":"ping"}'; read -r ponged; echo "$ponged" > ponged
        reply 1 '{"ok":true}'; read more"#,
    );
    assert_eq!(answer(&said), ok());
    let ponged: Value = serde_json::from_str(&bench.read("ponged")).unwrap();
    assert_eq!((&ponged["id"], &ponged["result"]), (&json!("p"), &json!({})));
}

#[test]
fn a_reply_that_cannot_be_read_is_waited_for_no_longer() {
    let bench = Bench::new();
    let script =
        r#"echo started >> starts; read one; reply 1 '{"mean":NaN}'; read two; reply 2 '{"ok":true}'; read more"#;
    let said = bench.wrong(script);
    assert!(
        said.starts_with("The MCP server docs replied what cannot be read: ") && said.contains("taken effect"),
        "{said}"
    );
    assert_eq!(answer(&bench.call(script)), ok());
    assert_eq!(bench.read("starts"), "started\n", "it goes on");
    let hello = r#"read hello; echo '{"id":0,"result":NaN}'; read more"#;
    let said = Bench::new().never_starts(hello);
    assert!(said.contains("nothing was called: how it introduced itself cannot be read: "), "{said}");
}

#[test]
fn a_list_is_read_page_by_page() {
    let bench = Bench::new();
    let pages = r#"read one; reply 1 '{"tools":[{"name":"a"}],"nextCursor":"2"}'; read two; echo "$two" > two
        reply 2 '{"tools":[{"name":"b"}]}'; read more"#;
    assert_eq!(bench.list(pages), Answer::Tools(vec![json!({"name": "a"}), json!({"name": "b"})]));
    let second: Value = serde_json::from_str(&bench.read("two")).unwrap();
    assert_eq!(second["params"]["cursor"], "2");
    // One without an end, or that is none.
    let endless = r#"n=0; while read request; do n=$((n + 1)); reply $n "{\"tools\":[{\"name\":\"$(head -c 2000000 /dev/zero |
        tr '\0' x)\"}],\"nextCursor\":\"$n\"}"; done"#;
    assert!(matches!(bench.list(endless), Answer::Tools(tools) if tools.len() == 3));
    let none = "read one; reply 1 7; read more";
    assert!(matches!(bench.list(none), Answer::Refused { .. }));
}
