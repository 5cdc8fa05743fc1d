//! One session's log, whole: sealed segments, then the runs not yet sealed; nobody can tell where one ends.
//!
//! A `SessionLog` keeps the unsealed tail decoded and reads on from where it stopped.

mod fork;

pub use fork::{Base, ForkPoint};

use crate::{
    blobs,
    history::{self, HistoryReader, Page, Run},
    manifest::{End, Manifest, Pages},
    projection::{Projection, RunEnd},
    segment::{self, Error, Frame, Segment},
};
use bytes::Bytes;
use domain::{
    Committed, Summary,
    committed::{ActivityResult, Genesis, Recording},
    content::BlobRef,
    session::{LogEntry, Mail},
};
use serde::Serialize;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};
use store::Blobs;
use temporalio_common::protos::temporal::api::history::v1::HistoryEvent;

/// Reads a session's log and follows it.
pub struct SessionLog {
    session_id: String,
    manifest: Manifest,
    manifest_blob: Option<BlobRef>,
    /// What the session began with, if the manifest does not say it yet.
    genesis: Option<Genesis>,
    /// Commits of the runs after the manifest, oldest first.
    tail: Vec<Unsealed>,
    /// Of the tail, as JSON.
    tail_bytes: u64,
    projection: Projection,
    run: Run,
    next: Vec<u8>,
    /// Blobs that payloads were claims to, found when the log was opened.
    claimed: Vec<BlobRef>,
    /// What runs of the tail before the current one began with.
    states: BTreeMap<String, Value>,
    /// Where the segments read last are listed.
    pages: Pages,
    /// The segment read last: slices are usually read in order.
    open: Option<(String, Bytes)>,
    /// Where the parts of the segments read last are, by index.
    indexes: VecDeque<(String, Arc<[Frame]>)>,
    /// Frames read last, taken apart: what a session is about is read for every request, wherever its log is by now.
    unpacked: VecDeque<Unpacked>,
}

const INDEXES_KEPT: usize = 4;
const FRAMES_KEPT: usize = 2;

struct Unpacked {
    segment: String,
    offset: u64,
    commits: Vec<Arc<Committed>>,
    /// As JSON.
    bytes: u64,
}

/// A commit, and the run whose segment will hold it.
struct Unsealed {
    run_id: Arc<str>,
    committed: Arc<Committed>,
    /// As JSON.
    bytes: u64,
}

impl Unsealed {
    fn new(run_id: Arc<str>, committed: Arc<Committed>) -> Self {
        Unsealed { run_id, bytes: json_bytes(&*committed), committed }
    }
}

/// The length of a value as JSON, which is not kept.
fn json_bytes(value: &impl Serialize) -> u64 {
    struct Counter(u64);
    impl std::io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len() as u64;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    serde_json::to_writer(&mut counter, value).expect("what was read as JSON can be written as JSON");
    counter.0
}

/// What reading on found.
#[derive(Debug, Default)]
pub struct News {
    pub commits: Vec<Arc<Committed>>,
    /// Accepted since the last time and not committed.
    pub accepted: Vec<Mail>,
    /// Blobs that payloads of this history were claims to.
    pub claimed: Vec<BlobRef>,
    /// The session is over: no further history can come.
    pub closed: bool,
}

impl SessionLog {
    /// Reads the log to its present end.
    pub async fn open(reader: &dyn HistoryReader, store: &dyn Blobs, session_id: &str) -> Result<Self, Error> {
        let (run, history_events) = reader.latest_run(session_id).await?;
        let mut log = SessionLog {
            session_id: session_id.to_owned(),
            manifest: Manifest::default(),
            manifest_blob: None,
            genesis: None,
            tail: Vec::new(),
            tail_bytes: 0,
            projection: Projection::default(),
            run,
            next: Vec::new(),
            claimed: Vec::new(),
            states: BTreeMap::new(),
            pages: Pages::default(),
            open: None,
            indexes: VecDeque::new(),
            unpacked: VecDeque::new(),
        };
        // Waiting pages leave a token behind that can be waited on; they do not wait before the present end.
        while log.projection.event_id < history_events {
            let page = reader.page(&log.run, std::mem::take(&mut log.next), true).await?;
            log.next = page.next;
            log.claimed.extend(page.claimed);
            log.absorb_into(&mut News::default(), page.events)?;
            if log.next.is_empty() {
                break;
            }
        }
        log.use_newest_manifest(store).await?;
        log.read_before(reader).await?;
        let news = log.read_to_end(reader, store).await?;
        log.claimed.extend(news.claimed);
        Ok(log)
    }

    /// A log whose histories are gone: everything is in the manifest.
    pub async fn sealed(store: &dyn Blobs, session_id: &str, blob: &BlobRef) -> Result<Self, Error> {
        let manifest: Manifest = blobs::get_json(store, blob).await?;
        let (summary, cut, waiting) = match manifest.end.clone() {
            Some(End { summary, cut, waiting }) => (Some(summary), cut, waiting),
            None => (None, None, Vec::new()),
        };
        let how = cut.map_or(RunEnd::Completed, |reason| RunEnd::Cut { reason });
        let projection = Projection::of_the_past(session_id, summary, how, waiting);
        Ok(SessionLog {
            session_id: session_id.to_owned(),
            manifest,
            manifest_blob: Some(blob.clone()),
            genesis: None,
            tail: Vec::new(),
            tail_bytes: 0,
            projection,
            run: Run { session_id: session_id.to_owned(), run_id: String::new() },
            next: Vec::new(),
            claimed: Vec::new(),
            states: BTreeMap::new(),
            pages: Pages::default(),
            open: None,
            indexes: VecDeque::new(),
            unpacked: VecDeque::new(),
        })
    }

    /// Seals a log that is over, whole.
    pub async fn seal(&self, reader: &dyn HistoryReader, store: &dyn Blobs) -> Result<Option<BlobRef>, Error> {
        let Some(summary) = self.summary().filter(|_| self.is_closed() && self.manifest.end.is_none()) else {
            return Ok(None);
        };
        let summary = Summary { unsealed: Vec::new(), ..summary.clone() };
        let waiting = self.uncommitted().cloned().collect();
        let end = End { summary, cut: self.cut().map(str::to_owned), waiting };
        let (before, runs) = (self.manifest_blob.as_ref(), self.unsealed_runs());
        segment::seal_whole(reader, store, &self.session_id, before, &runs, end).await.map(Some)
    }

    /// The runs before the current one that are not sealed. Others may be gone.
    async fn read_before(&mut self, reader: &dyn HistoryReader) -> Result<(), Error> {
        let unsealed = self.summary().map(|summary| summary.unsealed.clone()).unwrap_or_default();
        let mut before = Vec::new();
        for run_id in unsealed {
            let run = Run { session_id: self.session_id.clone(), run_id };
            let segment::ClosedRun { commits, genesis, claimed, state, .. } = segment::read_run(reader, &run).await?;
            self.claimed.extend(claimed);
            self.states.extend(state.map(|state| (run.run_id.clone(), state)));
            self.genesis = self.genesis.take().or(genesis);
            let run_id: Arc<str> = run.run_id.into();
            before.extend(commits.into_iter().map(|committed| Unsealed::new(run_id.clone(), committed.into())));
        }
        self.tail_bytes += before.iter().map(|unsealed| unsealed.bytes).sum::<u64>();
        self.tail.splice(0..0, before);
        Ok(())
    }

    /// Uses a newer manifest: what it covers leaves the tail.
    async fn use_manifest(&mut self, store: &dyn Blobs, blob: Option<&BlobRef>) -> Result<(), Error> {
        if blob.is_none() || blob == self.manifest_blob.as_ref() {
            return Ok(());
        }
        if let Some(blob) = blob {
            self.manifest = blobs::get_json(store, blob).await?;
            self.manifest_blob = Some(blob.clone());
            // Runs are sealed in order, and a log that is read on has the newest of them.
            let newest: BTreeSet<&str> = self.manifest.segments.iter().map(|segment| segment.run_id.as_str()).collect();
            let sealed = self.tail.iter().rposition(|unsealed| newest.contains(&*unsealed.run_id));
            let sealed = self.tail.drain(..sealed.map_or(0, |last| last + 1));
            let dropped: BTreeSet<Arc<str>> = sealed.map(|unsealed| unsealed.run_id).collect();
            self.states.retain(|run_id, _| !newest.contains(run_id.as_str()) && !dropped.contains(run_id.as_str()));
            self.tail_bytes = self.tail.iter().map(|unsealed| unsealed.bytes).sum();
        }
        Ok(())
    }

    /// Reads what is there, without waiting.
    pub async fn read_to_end(&mut self, reader: &dyn HistoryReader, store: &dyn Blobs) -> Result<News, Error> {
        let mut news = News::default();
        if self.is_closed() {
            news.closed = true;
            return Ok(news);
        }
        loop {
            let fresh = match reader.newer(&self.run, self.projection.event_id).await {
                // Sealed and gone since it was read: the log went on in other runs.
                Err(history::Error::NotFound { .. }) => return self.read_again(reader, store, news).await,
                fresh => fresh?,
            };
            news.claimed.extend(fresh.claimed);
            self.absorb_into(&mut news, fresh.events)?;
            if !self.enter_next_run() {
                break;
            }
        }
        news.closed = self.is_closed();
        self.use_newest_manifest(store).await?;
        Ok(news)
    }

    /// Reads the log from nothing; what was not known before comes after `news`.
    async fn read_again(
        &mut self,
        reader: &dyn HistoryReader,
        store: &dyn Blobs,
        mut news: News,
    ) -> Result<News, Error> {
        let known = self.summary().map_or(0, |summary| summary.n);
        let mail: BTreeSet<String> = self.uncommitted().map(|mail| mail.id().to_owned()).collect();
        *self = Box::pin(Self::open(reader, store, &self.session_id)).await?;
        let mut commits = Vec::new();
        self.each_since(store, known, |committed| commits.push(Arc::new(committed.clone()))).await?;
        commits.sort_by_key(|committed| committed.commit.n);
        news.commits.extend(commits);
        news.accepted.extend(self.uncommitted().filter(|waiting| !mail.contains(waiting.id())).cloned());
        news.claimed.extend(self.take_claimed());
        news.closed = self.is_closed();
        Ok(news)
    }

    /// Takes in a page that somebody else waited for. `None` if it does not fit what was read so far: read to
    /// the end instead.
    pub async fn ingest(&mut self, store: &dyn Blobs, run: &Run, page: Page) -> Result<Option<News>, Error> {
        let known = self.projection.event_id;
        let fits = *run == self.run && page.events.first().is_none_or(|first| first.event_id <= known + 1);
        if !fits {
            return Ok(None);
        }
        let mut news = News { claimed: page.claimed, ..News::default() };
        self.absorb_into(&mut news, page.events.into_iter().filter(|event| event.event_id > known))?;
        self.next = page.next;
        self.enter_next_run();
        news.closed = self.is_closed();
        self.use_newest_manifest(store).await?;
        Ok(Some(news))
    }

    fn enter_next_run(&mut self) -> bool {
        let Some(RunEnd::Continued { run_id }) = &self.projection.end else { return false };
        let run_id = run_id.clone();
        let ended = std::mem::replace(&mut self.run.run_id, run_id);
        self.states.extend(self.projection.began_with.take().map(|state| (ended, state)));
        self.next = Vec::new();
        self.genesis = self.genesis.take().or_else(|| self.projection.genesis.take());
        self.projection = std::mem::take(&mut self.projection).next_run();
        true
    }

    async fn use_newest_manifest(&mut self, store: &dyn Blobs) -> Result<(), Error> {
        let manifest = self.summary().and_then(|summary| summary.manifest.clone());
        self.use_manifest(store, manifest.as_ref()).await
    }

    fn absorb_into(&mut self, news: &mut News, events: impl IntoIterator<Item = HistoryEvent>) -> Result<(), Error> {
        for event in events {
            let known = self.projection.mail.len();
            let is_start = self.projection.event_id == 0;
            if let Some(committed) = self.projection.feed(&event)? {
                let committed = Arc::new(committed);
                let unsealed = Unsealed::new(self.run.run_id.as_str().into(), committed.clone());
                self.tail_bytes += unsealed.bytes;
                self.tail.push(unsealed);
                news.commits.push(committed);
            } else if !is_start {
                // The mailbox of a run's start was told when it was accepted.
                news.accepted.extend(self.projection.mail.iter().skip(known).cloned());
            }
        }
        Ok(())
    }

    /// Blobs that payloads in the unsealed histories were claims to, as they were when the log was opened; once.
    pub fn take_claimed(&mut self) -> Vec<BlobRef> {
        std::mem::take(&mut self.claimed)
    }

    /// The run that was read last, and how many history events of it.
    pub fn read_to(&self) -> (&str, i64) {
        (&self.run.run_id, self.projection.event_id)
    }

    /// Where to wait for more: the current run, and the token of its end if there is one.
    pub fn cursor(&self) -> (Run, Vec<u8>) {
        (self.run.clone(), self.next.clone())
    }

    /// What this keeps in memory, as the bytes that it was read from.
    pub fn bytes(&self) -> u64 {
        let unpacked: u64 = self.unpacked.iter().map(|unpacked| unpacked.bytes).sum();
        self.tail_bytes + unpacked + self.open.as_ref().map_or(0, |(_, segment)| segment.len() as u64)
    }

    pub fn session_id(&self) -> &str {
        &self.session_id
    }

    /// After everything read so far; `None` only before the first history event.
    pub fn summary(&self) -> Option<&Summary> {
        self.projection.summary.as_ref()
    }

    pub fn is_closed(&self) -> bool {
        matches!(self.projection.end, Some(RunEnd::Completed | RunEnd::Cut { .. }))
    }

    /// How the last run ended, when it did not by its own will.
    pub fn cut(&self) -> Option<&str> {
        match &self.projection.end {
            Some(RunEnd::Cut { reason }) => Some(reason),
            _ => None,
        }
    }

    /// Accepted and not committed: events without a position.
    pub fn uncommitted(&self) -> impl Iterator<Item = &Mail> {
        self.projection.mail.iter()
    }

    /// What activities of the current run left and no commit names yet.
    pub fn unnamed_results(&self) -> impl Iterator<Item = &ActivityResult> {
        self.projection.unnamed_results()
    }

    /// POSTs of the current run by fingerprint.
    pub fn posts(&self) -> &[(String, Vec<String>)] {
        &self.projection.posts
    }

    pub fn end_position(&self) -> u64 {
        self.summary().map_or(0, |summary| summary.position)
    }

    /// The runs that the manifest does not cover, oldest first, the current one last.
    pub fn unsealed_runs(&self) -> Vec<String> {
        let mut runs = self.summary().map(|summary| summary.unsealed.clone()).unwrap_or_default();
        // A log that was read out of its manifest has no run.
        runs.extend(Some(self.run.run_id.clone()).filter(|run_id| !run_id.is_empty()));
        runs
    }

    /// What the session began with.
    pub fn genesis(&self) -> Option<&Genesis> {
        self.manifest.genesis.as_ref().or(self.genesis.as_ref()).or(self.projection.genesis.as_ref())
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Commits that touch positions `[from, to)`, oldest first. One without public events touches the position of the
    /// next event.
    pub async fn commits(&mut self, store: &dyn Blobs, from: u64, to: u64) -> Result<Vec<Arc<Committed>>, Error> {
        let mut commits = Vec::new();
        let mut sealed = self.manifest.within(from, to);
        let mut segments = Vec::new();
        while let Some(segment) = sealed.next(store, &mut self.pages).await? {
            segments.push(segment);
        }
        for segment in segments.into_iter().rev() {
            let frames = self.frames(store, &segment).await?;
            let wanted = || frames.iter().filter(|frame| frame.from < to && frame.to >= from);
            if wanted().count() > FRAMES_KEPT {
                let blob = self.segment_blob(store, &segment).await?;
                for part in segment::unpack_all(&segment, wanted().cloned().collect(), &blob).await {
                    commits.extend(part?.into_iter().map(Arc::new));
                }
            } else {
                for frame in wanted() {
                    commits.extend(self.frame(store, &segment, frame).await?.iter().cloned());
                }
            }
        }
        let is_before = |committed: &Committed| committed.position + committed.public_events().max(1) <= from;
        commits.retain(|committed| committed.position < to && !is_before(committed));
        let first = self.tail.partition_point(|unsealed| is_before(&unsealed.committed));
        let wanted = self.tail[first..].iter().take_while(|unsealed| unsealed.committed.position < to);
        commits.extend(wanted.map(|unsealed| unsealed.committed.clone()));
        Ok(commits)
    }

    /// Shows every commit from number `n` on, not in order: a frame at a time, so that a long log is never whole in
    /// memory.
    pub async fn each_since(
        &mut self,
        store: &dyn Blobs,
        n: u64,
        mut see: impl FnMut(&Committed),
    ) -> Result<(), Error> {
        let next = self.summary().map_or(0, |summary| summary.n);
        let mut oldest = self.tail.first().map_or(next, |unsealed| unsealed.committed.commit.n);
        let unsealed = self.tail.iter().map(|unsealed| &*unsealed.committed);
        unsealed.filter(|committed| committed.commit.n >= n).for_each(&mut see);
        let mut sealed = self.manifest.backwards();
        while oldest > n
            && let Some(segment) = sealed.next(store, &mut self.pages).await?
        {
            let blob = self.segment_blob(store, &segment).await?;
            for frame in self.frames(store, &segment).await?.iter().rev() {
                let commits = segment::unpack(&segment, frame, &blob)?;
                commits.iter().filter(|committed| committed.commit.n >= n).for_each(&mut see);
                oldest = commits.first().map_or(oldest, |first| first.commit.n);
                if oldest <= n {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The whole log, as replay takes it. `None` for a log whose first run was sealed by a build that did not keep
    /// what the session began with.
    pub async fn recording(&mut self, store: &dyn Blobs) -> Result<Option<Recording>, Error> {
        let Some(genesis) = self.genesis().cloned() else { return Ok(None) };
        let commits = self.commits(store, 0, u64::MAX).await?;
        Ok(Some(Recording {
            session_id: self.session_id.clone(),
            genesis,
            commits: commits.into_iter().map(Arc::unwrap_or_clone).collect(),
            waiting: self.uncommitted().cloned().collect(),
        }))
    }

    async fn frames(&mut self, store: &dyn Blobs, segment: &Segment) -> Result<Arc<[Frame]>, Error> {
        let Some(index) = &segment.index else { return Ok(segment.frames.as_slice().into()) };
        if let Some((_, frames)) = self.indexes.iter().find(|(known, _)| *known == index.blob) {
            return Ok(frames.clone());
        }
        let frames: Arc<[Frame]> = segment::frames(store, segment).await?.into();
        self.indexes.truncate(INDEXES_KEPT - 1);
        self.indexes.push_front((index.blob.clone(), frames.clone()));
        Ok(frames)
    }

    /// The commits of one frame, read by itself if it can be.
    async fn frame(&mut self, store: &dyn Blobs, segment: &Segment, frame: &Frame) -> Result<&[Arc<Committed>], Error> {
        let hash = &segment.blob.blob;
        let known = self.unpacked.iter().position(|known| known.segment == *hash && known.offset == frame.offset);
        let unpacked = match known.and_then(|known| self.unpacked.remove(known)) {
            Some(known) => known,
            None => {
                let packed = match segment::packed(store, segment, frame).await? {
                    Some(packed) => packed,
                    None => segment::part(segment, frame, &self.segment_blob(store, segment).await?)?,
                };
                let (commits, bytes) = segment::decode(segment, &packed)?;
                let commits = commits.into_iter().map(Arc::new).collect();
                Unpacked { segment: hash.clone(), offset: frame.offset, commits, bytes }
            }
        };
        self.unpacked.truncate(FRAMES_KEPT - 1);
        self.unpacked.push_front(unpacked);
        Ok(&self.unpacked[0].commits)
    }

    async fn segment_blob(&mut self, store: &dyn Blobs, segment: &Segment) -> Result<Bytes, Error> {
        if let Some((hash, bytes)) = &self.open
            && *hash == segment.blob.blob
        {
            return Ok(bytes.clone());
        }
        let bytes = blobs::get(store, &segment.blob).await?;
        self.open = Some((segment.blob.blob.clone(), bytes.clone()));
        Ok(bytes)
    }

    /// The positional slice `[from, to)`: committed events only.
    pub async fn slice(&mut self, store: &dyn Blobs, from: u64, to: u64) -> Result<Vec<LogEntry>, Error> {
        let commits = self.commits(store, from, to).await?;
        let entries = commits.iter().flat_map(|committed| committed.entries());
        Ok(entries.filter(|entry| (from..to).contains(&entry.position)).collect())
    }
}

#[cfg(test)]
mod tests;
