//! Running `steadyhand` in an environment of its own, and services of it.

use std::{
    fmt,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::Arc,
};
use tempfile::TempDir;

/// A folder that stands for a home, with the data folder in it. Nothing of the caller's environment gets through.
pub struct Place {
    dir: Arc<TempDir>,
    env: Vec<(String, String)>,
}

/// What a program did, with the folder written as [DIR].
#[derive(Clone, PartialEq, Eq)]
pub struct Shot {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Place {
    pub fn new() -> Self {
        Place { dir: Arc::new(tempfile::tempdir().unwrap()), env: Vec::new() }
    }

    /// The same folder, for another environment.
    pub fn at(other: &Place) -> Self {
        Place { dir: other.dir.clone(), env: other.env.clone() }
    }

    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_steadyhand"));
        command.args(args).env_clear().env("HOME", self.path()).env("STEADYHAND_DATA", self.data());
        command.env("PATH", std::env::var_os("PATH").unwrap()).current_dir(self.path());
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub fn run(&self, args: &[&str]) -> Shot {
        self.shot(self.command(args).output().unwrap())
    }

    pub fn shot(&self, output: Output) -> Shot {
        let dir = self.path().to_string_lossy().into_owned();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace(&dir, "[DIR]");
        Shot { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// A service without hands, with a model that answers from a script; up when this returns.
    pub fn serve(&self, script: &str) -> Service {
        self.serve_with(script, &[])
    }

    pub fn serve_with(&self, script: &str, more: &[&str]) -> Service {
        self.start(script, &[&["--hands", "false"], more].concat())
    }

    /// A service with hands in that folder.
    pub fn serve_with_hands(&self, script: &str, dir: &Path, more: &[&str]) -> Service {
        self.start(script, &[&["--hands-dir", dir.to_str().unwrap()], more].concat())
    }

    fn start(&self, script: &str, more: &[&str]) -> Service {
        let script = self.write("script.toml", script);
        let args = ["serve", "--listen", "127.0.0.1:0", "--model-script", script.to_str().unwrap()];
        let mut command = self.command(&[&args, more].concat());
        let log = self.path().join("service.log");
        let stderr = std::fs::File::options().create(true).append(true).open(&log).unwrap();
        let mut child = command.stderr(stderr).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ");
        let url = url.unwrap_or_else(|| panic!("{line:?}: {}", self.read("service.log"))).to_owned();
        Service { child, url, log }
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path().join(name)).unwrap_or_default()
    }
}

pub struct Service {
    child: Child,
    log: PathBuf,
    pub url: String,
}

impl Service {
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let ended = self.child.wait().unwrap();
        assert!(ended.success(), "{ended}: {}", std::fs::read_to_string(&self.log).unwrap());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // One that was stopped or killed before is not there any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Shot {
    #[track_caller]
    pub fn expect(&self, code: i32, stdout: &str, stderr: &str) {
        let expect = Shot { code, stdout: stdout.to_owned(), stderr: stderr.to_owned() };
        assert!(*self == expect, "{self}\n======== expected\n{expect}");
    }

    /// Exit code, and a part of stderr.
    #[track_caller]
    pub fn failed(&self, code: i32, stderr: &str) {
        assert!(self.code == code && self.stderr.contains(stderr), "{self}\n======== expected {code}, {stderr:?}");
    }

    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self}");
        self.stdout
    }
}

impl fmt::Display for Shot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit {}\n--- stdout\n{}\n--- stderr\n{}", self.code, self.stdout, self.stderr)
    }
}

/// Waits for a line on a child's stderr that contains `text`, and gives the rest of the stream.
pub fn wait_for(child: &mut Child, text: &str) -> BufReader<std::process::ChildStderr> {
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut seen = String::new();
    while !seen.contains(text) {
        let from = seen.len();
        assert!(stderr.read_line(&mut seen).unwrap() > 0, "{text:?} never came: {seen}");
        if seen[from..].contains(text) {
            break;
        }
    }
    stderr
}

/// Waits until a child ends; gives its exit code and what else it said on `stderr`.
pub fn end(child: &mut Child, mut stderr: BufReader<std::process::ChildStderr>) -> (i32, String) {
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    (child.wait().unwrap().code().unwrap_or(-1), rest)
}
