//! How much a hand's folders hold, looked at from inside, where no disk of its own bounds them.
//!
//! A guard against accidents and no wall: what is written between two looks, or lies where it cannot be listed, is not
//! seen in time. Hands that must not trust it get a disk of their own (`strict`). Looks are only made while something
//! runs, and grow rarer while nothing changes.

use super::processes::Processes;
use crate::limits;
use crate::link::inside;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_secs(1);
const RAREST: Duration = Duration::from_secs(30);
/// A look may take a tenth of the time at most.
const SHARE: u32 = 10;

pub struct Disk {
    max_bytes: u64,
    roots: Vec<&'static Path>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    calls: usize,
    /// A call began or ended since the last look.
    nudged: bool,
    used_bytes: u64,
    /// All was ended at this use; while it only shrinks the agent is clearing up.
    ended_at: Option<u64>,
    /// What the call that was ended has to be told.
    news: Option<String>,
}

impl Disk {
    /// Start looking, if there is a bound to look for. `shelf` is written to as well.
    pub fn watch(
        max_bytes: Option<u64>,
        shelf: Option<&'static str>,
        processes: Arc<Processes>,
    ) -> std::io::Result<Option<Arc<Self>>> {
        let Some(max_bytes) = max_bytes else { return Ok(None) };
        let roots =
            [inside::WORKSPACE, inside::OUTPUTS, inside::HOME].into_iter().chain(shelf).map(Path::new).collect();
        let disk = Arc::new(Self { max_bytes, roots, state: Mutex::default(), changed: Condvar::new() });
        let watched = Arc::clone(&disk);
        std::thread::Builder::new().name("disk".into()).spawn(move || watched.run(&processes))?;
        Ok(Some(disk))
    }

    pub fn call_begins(&self) {
        let mut state = self.lock();
        state.calls += 1;
        state.nudged = true;
        self.changed.notify_all();
    }

    pub fn call_ended(&self) {
        let mut state = self.lock();
        state.calls -= 1;
        state.nudged = true;
        self.changed.notify_all();
    }

    /// Why everything was ended, for the first who asks.
    pub fn news(&self) -> Option<String> {
        self.lock().news.take()
    }

    /// Why nothing more may be written, looked at anew.
    pub fn refuses(&self) -> Option<String> {
        self.lock().ended_at?;
        self.look();
        let used = self.lock().used_bytes;
        (used > self.max_bytes).then(|| self.words(used))
    }

    fn run(&self, processes: &Processes) {
        let mut interval = FIRST;
        loop {
            let state = self.lock();
            let idle = state.calls == 0 && !state.nudged && processes.count() <= 1;
            let mut state = if idle {
                self.changed.wait_while(state, |state| !state.nudged).expect("no holder panics")
            } else {
                self.changed.wait_timeout_while(state, interval, |state| !state.nudged).expect("no holder panics").0
            };
            if std::mem::take(&mut state.nudged) {
                interval = FIRST;
            }
            let before = state.used_bytes;
            drop(state);
            let took = self.look();
            if self.lock().used_bytes == before {
                interval = (interval * 2).min(RAREST);
            }
            interval = interval.max(took * SHARE);
            self.end_if_over(processes);
        }
    }

    fn look(&self) -> Duration {
        let began = Instant::now();
        let used = self.roots.iter().map(|root| used(root)).sum();
        self.lock().used_bytes = used;
        began.elapsed()
    }

    fn end_if_over(&self, processes: &Processes) {
        let mut state = self.lock();
        let used = state.used_bytes;
        if used <= self.max_bytes {
            state.ended_at = None;
            return;
        }
        let grew = state.ended_at.is_none_or(|at| used > at);
        state.ended_at = Some(used);
        if grew {
            state.news = Some(self.words(used));
            drop(state);
            // Who survives this is found out when the call ends, which then loses the hand.
            processes.end_all(limits::END_CONFIRM).ok();
        }
    }

    fn words(&self, used: u64) -> String {
        format!(
            "the disk is full: files hold {used} of {} bytes, so everything that ran was ended. Remove some before you go on",
            self.max_bytes
        )
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

/// What a folder and all below it take on disk. No link is followed; what vanishes meanwhile counts nothing.
fn used(root: &Path) -> u64 {
    let mut folders: Vec<PathBuf> = vec![root.to_owned()];
    let mut total = 0;
    while let Some(folder) = folders.pop() {
        let Ok(entries) = folder.read_dir() else { continue };
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            total += meta.blocks() * 512;
            if meta.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_below_counts_and_links_do_not_lead_out() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("in"), dir.path().join("out"));
        std::fs::create_dir_all(inside.join("a/b")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("large"), vec![1; 1 << 20]).unwrap();
        std::os::unix::fs::symlink(&outside, inside.join("link")).unwrap();
        let empty = used(&inside);
        std::fs::write(inside.join("a/b/file"), vec![1; 300_000]).unwrap();
        let more = used(&inside) - empty;
        assert!(empty < 100_000 && (300_000..400_000).contains(&more), "{empty} {more}");
    }
}
