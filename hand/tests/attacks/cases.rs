//! Where each attack is run, what is looked at beside its output, and what it shows.

use crate::fixture::{Hand, Hands, Process, is_root, parse};
use crate::{Attack, CANARY, naive};
use hand::spec::{FileResource, Limits, Resources, Restore};
use libtest_mimic::Failed;
use serde_json::{Value, json};
use std::path::Path;

pub type Run = fn(&Attack) -> Result<(), Failed>;

pub struct Case {
    pub id: &'static str,
    pub place: Place,
    /// What is missing on this machine, if something is.
    pub needs: Option<fn() -> Option<String>>,
    pub control: Control,
}

pub enum Place {
    Hand(Run),
    /// In the tests of the part that stands against it.
    #[expect(dead_code, reason = "for who reads the list")]
    Elsewhere(&'static str),
}

/// Whether the attack succeeds on a lesser hand.
pub enum Control {
    Succeeds(fn(&Attack) -> bool),
    /// It shows nothing there: it fails anyway, or may not be let loose on the machine.
    #[expect(dead_code, reason = "for who reads the list")]
    None(&'static str),
}

const fn case(id: &'static str, run: Run, control: Control) -> Case {
    Case { id, place: Place::Hand(run), needs: None, control }
}

const fn elsewhere(id: &'static str, place: &'static str) -> Case {
    Case { id, place: Place::Elsewhere(place), needs: None, control: Control::None("as there") }
}

use Control::{None as NoControl, Succeeds};

pub const CASES: &[Case] = &[
    case("S01", said, Succeeds(naive::plain_shell)),
    case("S03", said, NoControl("what a service leaves open is not known to be there")),
    case("S05", said, NoControl("it would search the machine's whole disk")),
    case("S06", in_repo, NoControl("there is no token to find before the proxy adds one")),
    elsewhere("S08", "egress"),
    case("S10", said, NoControl("process 1 is closed by not being dumpable as well; the filter alone: isolation.rs")),
    case("S11", said, Succeeds(naive::namespaces)),
    case("S13", said, Succeeds(naive::plain_shell)),
    case("S14", host_port, Succeeds(reach_host_port)),
    case("S16", abstract_socket, Succeeds(reach_abstract_socket)),
    elsewhere("S18", "egress"),
    elsewhere("S19", "egress"),
    elsewhere("S21", "egress"),
    elsewhere("S23", "egress"),
    case("S24", said, NoControl("it asks the machine's own resolver")),
    case("S26", said, NoControl("without capabilities the kernel refuses these as well")),
    case("S28", said, NoControl("it would search the machine's whole disk")),
    case("S29", said, NoControl("a plain user is refused these everywhere")),
    case("S31", said, Succeeds(naive::namespaces)),
    case("S32", said, Succeeds(naive::namespaces)),
    case("S34", said, NoControl("no shell here has a terminal to type into")),
    case("S36", host_runs_nothing, NoControl("no naive host is part of this")),
    case("S38", file_tools, NoControl("no naive file tool is part of this")),
    case("S39", swapped_links, NoControl("no naive file tool is part of this")),
    case("S41", said, NoControl("what other tenants leave is not known to be there")),
    case("S43", archives, NoControl("no naive import is part of this")),
    Case {
        id: "S45",
        place: Place::Hand(memory_hog),
        needs: Some(needs_cgroups),
        control: NoControl("it would take the machine's memory"),
    },
    case("S46", said, NoControl("it would take the machine's memory")),
    case("S48", flood, NoControl("no naive host is part of this")),
    case("S50", daemons, Succeeds(daemons_outlive)),
    case("S51", held_output, NoControl("it would wait for 300 s")),
    case("S53", said, NoControl("process 1 of the machine is not a plain user's to signal")),
    case("S55", inputs, NoControl("no naive tool is part of this")),
    case("S56", replays, NoControl("no naive journal is part of this")),
    elsewhere("S58", "api"),
    elsewhere("S60", "egress"),
    elsewhere("S62", "api"),
    elsewhere("S63", "egress"),
    case("S64", handed_on, NoControl("no naive snapshot is part of this")),
    case("S65", two_hands, Succeeds(one_shell_sees_another)),
    elsewhere("S66", "egress"),
];

/// The attack's own command in a hand, and nothing else.
fn said(attack: &Attack) -> Result<(), Failed> {
    let hands = Hands::new();
    let said = hands.hand("h").bash(&attack.command).text();
    attack.judge(&said)?;
    check(!said.contains(CANARY), &said)
}

pub fn check(holds: bool, said: &str) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(format!("not with this: {said}").into()) }
}

pub fn needs_cgroups() -> Option<String> {
    let layers = hand::local::probe(&crate::walls::program()).unwrap();
    let memory = layers.into_iter().find(|layer| layer.name == "cgroup_memory").unwrap();
    (!memory.on).then_some(memory.why)
}

fn in_repo(attack: &Attack) -> Result<(), Failed> {
    let hands = Hands::new();
    let hand = hands.hand("h");
    hand.sh("git init -q repo; cd repo; git remote add origin https://github.com/acme/app.git; git commit -q --allow-empty -m a; cd ..");
    attack.judge(&hand.bash(&attack.command).text())
}

/// With a service of ours on the host's loopback among the ports tried.
fn with_host_port<T>(attack: &Attack, run: impl FnOnce(&Attack) -> T) -> T {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let command = attack
        .command
        .replace("in 22 80 443 2375 2376 3000 5432 6379 8080 8123 8801 9001 9090 2024", &format!("in {port}"));
    assert!(command.contains(&port), "the attack names its ports");
    run(&Attack { command, ..attack.clone() })
}

fn host_port(attack: &Attack) -> Result<(), Failed> {
    said(attack)?;
    attack.judge(&with_host_port(attack, |attack| Hands::new().hand("h").bash(&attack.command).text()))
}

fn reach_host_port(attack: &Attack) -> bool {
    with_host_port(attack, naive::plain_shell)
}

/// With an abstract socket of ours among the names tried.
fn with_abstract_socket<T>(attack: &Attack, run: impl FnOnce(&Attack) -> T) -> T {
    use std::os::linux::net::SocketAddrExt;
    let name = format!("steadyhand-test-{}", std::process::id());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    let command = attack.command.replace("'dbus'", &format!("'{name}'"));
    run(&Attack { command, ..attack.clone() })
}

fn abstract_socket(attack: &Attack) -> Result<(), Failed> {
    attack.judge(&with_abstract_socket(attack, |attack| Hands::new().hand("h").bash(&attack.command).text()))
}

fn reach_abstract_socket(attack: &Attack) -> bool {
    with_abstract_socket(attack, naive::plain_shell)
}

fn host_runs_nothing(attack: &Attack) -> Result<(), Failed> {
    let hands = Hands::new();
    let hand = hands.hand("h");
    let marker = hands.path().join("PWNED-host");
    let command = attack.command.replace("/tmp/PWNED-host", marker.to_str().unwrap());
    attack.judge(&hand.bash(&command).text())?;
    let client = &mut hand.client();
    client.collect(Default::default(), 1)?;
    client.snapshot(1)?;
    hand.tool("grep", json!({"pattern": "PWNED"}));
    hand.tool("glob", json!({"pattern": "**/*"}));
    check(!marker.exists(), "the host ran what the workspace asked for")
}

fn file_tools(attack: &Attack) -> Result<(), Failed> {
    let hands = Hands::new();
    let hand = hands.hand("h");
    hand.bash(&attack.command);
    let tries = [
        ("read", json!({"file_path": "rootlink/etc/shadow"})),
        ("read", json!({"file_path": "s"})),
        ("write", json!({"file_path": "rootlink/tmp/PWNED", "content": "x"})),
        ("edit", json!({"file_path": "p/environ", "old_string": "a", "new_string": "b"})),
    ];
    for (tool, input) in tries {
        let result = hand.tool(tool, input);
        attack.judge(&result.text())?;
        check(result.is_error, &result.text())?;
    }
    check(!Path::new("/tmp/PWNED").exists(), "written outside")
}

/// The links are swapped while the tools run over several connections: fewer calls than the catalogue names, as each is
/// journaled to disk; what a swap can hit it hits within some hundreds.
fn swapped_links(attack: &Attack) -> Result<(), Failed> {
    const CALLS: usize = 1200;
    let hands = Hands::new();
    let hand = hands.hand("h");
    hand.sh("printf 'host:x:0' >/tmp/marker; mkfifo /workspace/started");
    let command = attack.command.replace("sleep 20; kill $P;", "echo >started; read line <stop; kill $P;");
    hand.sh("mkfifo /workspace/stop");
    std::thread::scope(|scope| {
        let swapping = scope.spawn(|| hand.call("swap", "bash", json!({"command": command, "timeout_ms": 600_000})));
        crate::fixture::wait_line(&hand.file("workspace/started"));
        let tools: Vec<_> = (0..4)
            .map(|thread| {
                let hand = &hand;
                scope.spawn(move || -> Result<usize, Failed> {
                    let mut client = hand.client();
                    let mut done = 0;
                    for n in 0..CALLS / 4 {
                        let (tool, input) = match n % 3 {
                            0 => ("read", json!({"file_path": "d/passwd"})),
                            1 => ("write", json!({"file_path": "d/f", "content": "safe"})),
                            _ => ("edit", json!({"file_path": "d/group", "old_string": "root", "new_string": "PWNED"})),
                        };
                        let settled = client.execute(format!("c{thread}.{n}"), tool, input, None, 1)?;
                        let result = parse(&settled);
                        attack.judge(&format!("done\n{}", result.text()))?;
                        done += usize::from(!result.is_error);
                    }
                    Ok(done)
                })
            })
            .collect();
        let done: Result<Vec<_>, _> = tools.into_iter().map(|thread| thread.join().unwrap()).collect();
        std::fs::write(hand.file("workspace/stop"), "stop\n")?;
        swapping.join().unwrap();
        check(done?.iter().sum::<usize>() > 0, "no call found the folder in place, so nothing was tried")?;
        let etc = hand.sh("cat /etc/group; ls /etc");
        check(!etc.contains("PWNED") && !etc.contains("\nf\n"), &etc)
    })
}

/// An archive that leads out, as a snapshot to restore from and as a file that is uploaded.
fn archives(attack: &Attack) -> Result<(), Failed> {
    let hands = Hands::new();
    let hand = hands.hand("a");
    attack.judge(&hand.bash(&attack.command).text())?;
    for name in ["t.tar", "b.zip"] {
        std::fs::copy(hand.file("workspace").join(name), hands.path().join(name))?;
    }
    let escaped = || Path::new("/tmp/PWNED").exists();
    let restore = Some(Restore { archive: hands.path().join("t.tar"), start: None });
    let spec = hand::spec::Spec { resources: Resources { restore, ..Resources::default() }, ..hands.spec("b") };
    let said = match hand::local::provision(&spec) {
        Ok(_) => "restored".to_owned(),
        Err(e) => hand::error_chain(&e),
    };
    check(!escaped() && said.contains("unpack the snapshot"), &said)?;
    // An uploaded archive is a file like any other: nothing unpacks it but the agent, inside.
    let files = vec![FileResource { source: hands.path().join("b.zip"), path: "b.zip".into() }];
    let hand = hands.hand_with("c", Resources { files, ..Resources::default() });
    check(hand.sh("ls /mnt/session/uploads") == "b.zip\n" && !escaped(), "unpacked")
}

fn memory_hog(attack: &Attack) -> Result<(), Failed> {
    let hands = Hands::new();
    let hand = hands.hand_within("h", Limits { memory_bytes: 128 << 20, ..Limits::default() });
    let result = hand.bash(&attack.command);
    check(result.is_error && result.text().contains("137"), &result.text())?;
    check(hand.sh("echo fine") == "fine\n", "the next call")
}

fn flood(attack: &Attack) -> Result<(), Failed> {
    let hands = Hands::new();
    let (hand, other) = (hands.hand("h"), hands.hand("other"));
    // A tenth of it is past every bound as well.
    let result = hand.bash(&attack.command.replace("5000000000", "500000000"));
    check(result.truncated && result.text().len() <= hand::limits::RESULT_TEXT_BYTES, "the result's size")?;
    check(result.text().contains("500000000 bytes"), "what was dropped is counted")?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", hand.client().status()?.pid))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse()?;
    check(peak < 64 * 1024, &format!("the shim took {peak} KiB"))?;
    check(other.sh("echo fine") == "fine\n", "the other hand")
}

fn daemons(attack: &Attack) -> Result<(), Failed> {
    let hands = Hands::new();
    let hand = hands.hand("h");
    let result = parse(&hand.call("d", "bash", json!({"command": attack.command, "timeout_ms": 3000})));
    check(result.is_error && result.text().contains("timed out"), &result.text())?;
    check(hand.sh("set -- /proc/[0-9]*; echo $#") == "2\n", "what is left")
}

/// Killing the command's own process, as is done first, leaves its daemons.
fn daemons_outlive(attack: &Attack) -> bool {
    naive::run_plain(attack).left > 0
}

fn held_output(attack: &Attack) -> Result<(), Failed> {
    let hands = Hands::new();
    let hand = hands.hand("h");
    let began = std::time::Instant::now();
    attack.judge(&hand.bash(&attack.command).text())?;
    check(began.elapsed().as_secs() < 60, "it waited for the job")
}

fn inputs(attack: &Attack) -> Result<(), Failed> {
    let hands = Hands::new();
    let hand = hands.hand("h");
    let tries: [(&str, Value); 5] = [
        (
            "bash",
            json!({"command": "echo ok; #\n\0--unshare-none", "timeout_ms": "1;id", "cwd": "/workspace/$(touch /tmp/PWNED)",
                "env": {"LD_PRELOAD": "/workspace/x.so", "BASH_ENV": "/workspace/x", "PATH": "/workspace"}}),
        ),
        ("bash", json!({"command": "echo ok; #\n\0--unshare-none"})),
        ("../../bash", json!({})),
        ("bash", json!({"__proto__": {}})),
        ("--ro-bind", json!({})),
    ];
    for (name, input) in tries {
        let result = hand.tool(name, input.clone());
        attack.judge(&result.text())?;
        check(result.is_error, &format!("{name} {input}: {}", result.text()))?;
    }
    check(!Path::new("/tmp/PWNED").exists(), "run outside")
}

fn replays(_: &Attack) -> Result<(), Failed> {
    let hands = Hands::new();
    let hand = hands.hand("h");
    let input = json!({"command": "echo run >>counter"});
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..100).map(|_| scope.spawn(|| hand.call("same", "bash", input.clone()))).collect();
        all.into_iter().for_each(|call| drop(call.join().unwrap()));
    });
    check(hand.sh("cat counter") == "run\n", "run more than once")?;
    for (id, input) in [
        ("same".to_owned(), json!({"command": "echo other >>counter"})),
        ("../../x".to_owned(), input.clone()),
        ("x".repeat(1 << 20), input.clone()),
    ] {
        let refused = hand.client().execute(id, "bash", input, None, 1);
        check(matches!(refused, Err(hand::client::Error::Refused { .. })), &format!("{refused:?}"))?;
    }
    // Another hand knows nothing of it, and runs it as its own.
    let other = hands.hand("other");
    other.call("same", "bash", input);
    check(hand.sh("cat counter") == "run\n" && other.sh("cat counter") == "run\n", "mixed up")
}

fn handed_on(attack: &Attack) -> Result<(), Failed> {
    let hands = Hands::new();
    let hand = hands.hand("a");
    hand.sh("echo planted >file; echo CANARY >/tmp/t; echo CANARY >/run/t; export X=CANARY; sleep 1000 & true");
    let client = &mut hand.client();
    let snapshot = client.snapshot(1)?;
    let archive = hands.path().join("archive");
    client.blob(&snapshot.sha256, &mut std::fs::File::create(&archive)?)?;
    let restore = Some(Restore { archive, start: snapshot.start });
    let other = hands.hand_with("b", Resources { restore, ..Resources::default() });
    let said = other.sh("cat file; cat /tmp/t /run/t 2>&1; env; cat /proc/[0-9]*/cmdline | tr '\\0' ' '");
    attack.judge(&said)?;
    check(said.starts_with("planted\n") && !said.contains("sleep 1000"), &said)?;
    // The old brain is fenced.
    client.fence(1, 2)?;
    let refused = client.execute("late", "bash", json!({"command": "touch late"}), None, 1);
    let fenced = matches!(refused, Err(hand::client::Error::Refused { code: hand::protocol::Refusal::Fenced, .. }));
    check(fenced && !hand.file("workspace/late").exists(), &format!("{refused:?}"))
}

/// What one leaves wherever it can be left; the other looks at all of them.
const LEAVE: &str = "echo PLANTED >/dev/shm/steadyhand-s; echo PLANTED >/tmp/steadyhand-s; \
    ipcmk -M 4096 -p 0666 >/dev/null; exec 7< <(exec python3 -c \"import socket, time
s = socket.socket(1); s.bind(chr(0) + 'steadyhand-planted'); print(flush=True); time.sleep(60)\"); read <&7;";
const LOOK: &str = "cat /dev/shm/steadyhand-s /tmp/steadyhand-s 2>&1; grep planted /proc/net/unix; \
    cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -o 'plante[d]'; ls /dev/mqueue 2>/dev/null; \
    ipcs -m | grep -c 0x";

fn two_hands(_: &Attack) -> Result<(), Failed> {
    let hands = Hands::new();
    let (one, other) = (hands.hand("one"), hands.hand("other"));
    one.sh(LEAVE);
    let said = other.bash(LOOK).text();
    check(sees_nothing(&said) && said.contains("\n0\n"), &said)?;
    let uid = |hand: &Hand| std::os::unix::fs::MetadataExt::uid(&hand.file("workspace").metadata().unwrap());
    check(!is_root() || uid(&one) != uid(&other), "one uid for both")?;
    // The end of one is nothing to the other.
    let shim = Process::new(one.client().status()?.pid);
    shim.kill();
    shim.wait();
    check(other.sh("echo alive") == "alive\n", "the other hand")
}

fn sees_nothing(said: &str) -> bool {
    !said.contains("PLANTED") && !said.contains("planted")
}

fn one_shell_sees_another(attack: &Attack) -> bool {
    let command = format!("{LEAVE} {LOOK}; rm -f /dev/shm/steadyhand-s /tmp/steadyhand-s");
    !sees_nothing(&naive::run_plain(&Attack { command, ..attack.clone() }).said)
}
