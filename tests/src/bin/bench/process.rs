//! A child process: what it says, what it uses, and its end.
//!
//! It ends in good order when its standard input does.

use crate::clock;
use anyhow::{Context as _, bail};
use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};
use tokio::sync::watch;

/// How long anything awaited of a child may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// Clock ticks of /proc/PID/stat in a second: the same on every Linux.
const TICKS_PER_S: f64 = 100.0;

pub struct Process {
    child: Child,
    /// Closed to ask it to end.
    input: Option<ChildStdin>,
    said: watch::Receiver<Said>,
}

#[derive(Default)]
struct Said {
    lines: Vec<String>,
    /// The first of each name: code that is replayed leaves its marks again.
    marks: BTreeMap<String, Duration>,
    ended: bool,
}

impl Process {
    pub fn start(command: &mut Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", command.get_program().display()))?;
        let (input, output) = (child.stdin.take(), child.stdout.take().context("its output is piped")?);
        let (tell, said) = watch::channel(Said::default());
        std::thread::Builder::new().name("listener".to_owned()).spawn(move || listen(output, &tell))?;
        Ok(Process { child, input, said })
    }

    /// What follows `start` in the first line that begins with it.
    pub async fn line(&self, start: &str) -> anyhow::Result<String> {
        self.heard(start, |said| said.lines.iter().find_map(|line| line.strip_prefix(start)).map(str::to_owned)).await
    }

    /// When the line with this mark was reached.
    pub async fn mark(&self, name: &str) -> anyhow::Result<Duration> {
        self.heard(name, |said| said.marks.get(name).copied()).await
    }

    /// Until that many different marks were left.
    pub async fn marks(&self, count: usize) -> anyhow::Result<()> {
        self.heard("marks", |said| (said.marks.len() >= count).then_some(())).await
    }

    async fn heard<T>(&self, what: &str, find: impl Fn(&Said) -> Option<T>) -> anyhow::Result<T> {
        let mut said = self.said.clone();
        let heard = said.wait_for(|said| said.ended || find(said).is_some());
        let Ok(heard) = tokio::time::timeout(PATIENCE, heard).await else {
            bail!("no {what:?} from a child within {} s", PATIENCE.as_secs());
        };
        find(&*heard.context("the listener is gone")?).with_context(|| format!("a child ended before {what:?}"))
    }

    /// `kill -9`. Returns when it is gone.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Lets it end in good order, and waits until it has.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.input = None;
        self.ended().await
    }

    async fn ended(mut self) -> anyhow::Result<()> {
        self.heard("end", |said| said.ended.then_some(())).await?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("a child ended with {status}");
        }
        Ok(())
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended is as good.
        let _ = self.kill();
    }
}

fn listen(output: ChildStdout, tell: &watch::Sender<Said>) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        tell.send_modify(|said| match clock::read(&line) {
            Some((name, at)) => {
                said.marks.entry(name).or_insert(at);
            }
            None => said.lines.push(line),
        });
    }
    tell.send_modify(|said| said.ended = true);
}

/// Processor time that a process has used so far.
pub fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, after_name) = stat.rsplit_once(") ").context("/proc/PID/stat has a name in it")?;
    // utime and stime: the 14th and 15th field of all, the 12th and 13th after the name.
    let ticks: u32 = after_name.split(' ').skip(11).take(2).map(|field| field.parse().unwrap_or(0_u32)).sum();
    Ok(Duration::from_secs_f64(f64::from(ticks) / TICKS_PER_S))
}

/// A process's share of memory, in KiB: pages that others use too count in part.
pub fn pss_kib(pid: u32) -> anyhow::Result<u64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).context("smaps_rollup has a Pss line")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
