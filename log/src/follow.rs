//! Follows sessions: the only code that reads on and pushes. What it tells, it has put into the row first, so
//! that whatever a client saw on a stream is what a GET returns.
//!
//! A session is followed from the moment something is sent to it, or a stream opens, until it rests and nobody
//! listens. A resting session costs nothing.

mod expected;

pub use expected::Awaited;

use crate::{
    history::{self, HistoryReader},
    recent::Recent,
    references::Needed,
    segment::Error,
    session_log::{News, SessionLog},
};
use async_trait::async_trait;
use domain::{Event, Status, Summary, content::BlobRef, limits::CACHED_LOG_BYTES_MAX, session::Mail};
use expected::Expected;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Weak},
    time::Duration,
};
use store::Blobs;
use tokio::sync::{Mutex, MutexGuard, broadcast};
use tracing::{Instrument, debug, info_span, warn};

/// Events that a slow listener may be behind before it has to read the log instead.
const BACKLOG_EVENTS: usize = 4096;
/// Pause after the server could not be read.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Where the follower puts what it reads, before anybody is told.
#[async_trait]
pub trait Rows: Send + Sync {
    /// The number of the first commit whose blobs the row does not refer to yet.
    async fn referred(&self, session_id: &str) -> u64;

    /// The summary of a session after some commits, and, not without it, the blobs that they need. Rebuildable: need
    /// not be on disk when this returns. True if it is written.
    async fn project(&self, session_id: &str, log: &SessionLog, needed: &Needed) -> bool;

    /// Keeps the whole manifest of a session that is over; on disk when this returns. True if it is kept.
    async fn keep_sealed(&self, session_id: &str, manifest: &BlobRef) -> bool;

    /// What [`Rows::keep_sealed`] kept.
    async fn sealed(&self, session_id: &str) -> Option<BlobRef>;
}

/// What listeners are told, in order.
#[derive(Clone, Debug)]
pub enum Update {
    /// Accepted: `processed_at` is null and there is no position yet.
    Accepted(Arc<Event>),
    /// Committed.
    Committed { position: u64, event: Arc<Event> },
    /// Nothing comes after this.
    Closed,
}

#[derive(Clone)]
pub struct Follower {
    inner: Arc<Inner>,
    /// Used lately: kept decoded for whoever asks next.
    recent: Arc<Kept>,
}

type Kept = parking_lot::Mutex<Recent<Arc<Followed>>>;

struct Inner {
    reader: Arc<dyn HistoryReader>,
    blobs: Arc<dyn Blobs>,
    rows: Arc<dyn Rows>,
    sessions: parking_lot::Mutex<HashMap<String, Weak<Followed>>>,
    /// [`Follower::recent`]; what it keeps must not keep it.
    recent: Weak<Kept>,
}

/// One session being read. Dropped when nobody holds it.
pub struct Followed {
    session_id: String,
    log: Mutex<Option<Reading>>,
    /// `None` until it is read for the first time: nobody can listen before.
    told: parking_lot::Mutex<Option<Told>>,
    updates: broadcast::Sender<Update>,
    following: parking_lot::Mutex<Following>,
    expected: Expected,
    changing: Mutex<()>,
    inner: Arc<Inner>,
}

/// What listeners know of.
#[derive(Clone)]
struct Told {
    /// Every position before this one.
    end: u64,
    /// What is accepted and not committed, by id.
    accepted: BTreeSet<String>,
}

impl Told {
    fn all(log: &SessionLog) -> Self {
        Told { end: log.end_position(), accepted: log.uncommitted().map(|mail| mail.id().to_owned()).collect() }
    }
}

/// A log, and what of it the row does not refer to yet.
struct Reading {
    log: SessionLog,
    unreferred: Needed,
    /// Whether the row shows everything that was read.
    is_written: bool,
}

impl Reading {
    fn note(&mut self, news: &News) {
        self.is_written &= is_nothing(news);
        news.commits.iter().for_each(|committed| self.unreferred.commit(committed));
        news.accepted.iter().for_each(|mail| self.unreferred.mail(mail));
        news.claimed.iter().for_each(|blob| self.unreferred.blob(blob));
    }

    fn is_kept(&self) -> bool {
        self.is_written && self.unreferred.is_empty()
    }
}

/// Nothing that a row or a listener has to know.
fn is_nothing(news: &News) -> bool {
    news.commits.is_empty() && news.accepted.is_empty() && !news.closed
}

/// Whether a task is reading on, and how often that was asked for.
#[derive(Default)]
struct Following {
    is_on: bool,
    asked: u64,
}

impl Follower {
    pub fn new(reader: Arc<dyn HistoryReader>, blobs: Arc<dyn Blobs>, rows: Arc<dyn Rows>) -> Self {
        let recent = Arc::new(parking_lot::Mutex::new(Recent::new(CACHED_LOG_BYTES_MAX)));
        let sessions = parking_lot::Mutex::default();
        let inner = Inner { reader, blobs, rows, sessions, recent: Arc::downgrade(&recent) };
        Follower { inner: Arc::new(inner), recent }
    }

    /// The session, read or not. Costs nothing until it is used.
    pub fn session(&self, session_id: &str) -> Arc<Followed> {
        // What this pushes out is dropped when no lock is held: its end takes the sessions' one.
        let (followed, _gone) = self.recent.lock().get_or_insert(session_id, || self.known_or_new(session_id));
        followed
    }

    /// Lets go of a session that nobody will ask for any more.
    pub fn forget(&self, session_id: &str) {
        let _gone = self.recent.lock().remove(session_id);
    }

    fn known_or_new(&self, session_id: &str) -> Arc<Followed> {
        let mut sessions = self.inner.sessions.lock();
        if let Some(known) = sessions.get(session_id).and_then(Weak::upgrade) {
            return known;
        }
        let followed = Arc::new(Followed {
            session_id: session_id.to_owned(),
            log: Mutex::new(None),
            told: parking_lot::Mutex::default(),
            updates: broadcast::channel(BACKLOG_EVENTS).0,
            following: parking_lot::Mutex::default(),
            expected: Expected::default(),
            changing: Mutex::default(),
            inner: self.inner.clone(),
        });
        sessions.insert(session_id.to_owned(), Arc::downgrade(&followed));
        followed
    }

    /// Reads on until the session rests and nobody listens.
    pub fn follow(&self, session_id: &str) -> Arc<Followed> {
        let followed = self.session(session_id);
        followed.follow();
        followed
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        let mut sessions = self.inner.sessions.lock();
        if sessions.get(&self.session_id).is_some_and(|known| known.strong_count() == 0) {
            sessions.remove(&self.session_id);
        }
    }
}

/// A session's log, read to its end and locked.
pub struct Fresh<'a>(MutexGuard<'a, Option<Reading>>);

impl Fresh<'_> {
    /// Whether everything that was read is in the row, and the row refers to every blob of it.
    fn is_kept(&self) -> bool {
        self.0.as_ref().is_some_and(Reading::is_kept)
    }
}

impl std::ops::Deref for Fresh<'_> {
    type Target = SessionLog;
    fn deref(&self) -> &SessionLog {
        &self.0.as_ref().expect("it was read before it was handed out").log
    }
}

impl std::ops::DerefMut for Fresh<'_> {
    fn deref_mut(&mut self) -> &mut SessionLog {
        &mut self.0.as_mut().expect("it was read before it was handed out").log
    }
}

impl Followed {
    /// Listens from now on. Call it before reading the log and nothing is missed.
    pub fn subscribe(&self) -> broadcast::Receiver<Update> {
        self.updates.subscribe()
    }

    /// Whoever sends what follows from the log as it is takes turns with others who do, and keeps his until the log shows it.
    pub async fn turn(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    /// Mail that is about to be sent.
    pub fn expect(&self, mail_id: &str) -> Awaited<'_> {
        self.expected.expect(mail_id)
    }

    /// The log, read to its end. What was new is told to listeners on the way.
    pub async fn fresh(&self) -> Result<Fresh<'_>, Error> {
        let mut guard = self.log.lock().await;
        let (reader, blobs) = (&*self.inner.reader, &*self.inner.blobs);
        // Put back when it was read and told to the end. If this fails or is given up half-way, what it learned is
        // in no row and told to nobody: then the log is opened anew.
        let reading = match guard.take() {
            Some(mut reading) => {
                let news = reading.log.read_to_end(reader, blobs).await?;
                self.publish(&mut reading, &news).await;
                reading
            }
            None => self.begin().await?,
        };
        self.weigh(&reading);
        *guard = Some(reading);
        Ok(Fresh(guard))
    }

    /// Reads to the end and refers to all that the history holds, also to what activities left and no commit names
    /// yet. Whether the row has all of it now.
    pub async fn keep(&self) -> Result<bool, Error> {
        let mut fresh = self.fresh().await?;
        let Some(reading) = fresh.0.as_mut() else { return Ok(false) };
        let Reading { log, unreferred, .. } = reading;
        log.unnamed_results().for_each(|result| unreferred.result(result));
        if !reading.is_kept() {
            self.project(reading).await;
        }
        Ok(reading.is_kept())
    }

    /// Reads the log from nothing and brings the row up to it.
    async fn begin(&self) -> Result<Reading, Error> {
        let mut log = self.open().await?;
        let mut unreferred = Needed::default();
        let referred = self.inner.rows.referred(&self.session_id).await;
        log.each_since(&*self.inner.blobs, referred, |committed| unreferred.commit(committed)).await?;
        log.summary().into_iter().for_each(|summary| unreferred.summary(summary));
        log.uncommitted().for_each(|mail| unreferred.mail(mail));
        self.expected.waits(log.uncommitted());
        log.take_claimed().iter().for_each(|blob| unreferred.blob(blob));
        let mut reading = Reading { log, unreferred, is_written: false };
        self.project(&mut reading).await;
        self.tell_missed(&mut reading.log).await?;
        Ok(reading)
    }

    /// What the reading before this one learned and did not come to tell.
    async fn tell_missed(&self, log: &mut SessionLog) -> Result<(), Error> {
        let told = self.told.lock().clone();
        let Some(Told { end, accepted }) = told else {
            *self.told.lock() = Some(Told::all(log));
            return Ok(());
        };
        let committed = log.slice(&*self.inner.blobs, end, log.end_position()).await?;
        self.tell_accepted(log.uncommitted().filter(|mail| !accepted.contains(mail.id())));
        for entry in committed {
            self.tell(Update::Committed { position: entry.position, event: Arc::new(entry.event) });
        }
        self.told_all(log);
        Ok(())
    }

    fn tell(&self, update: Update) {
        // Nobody listens: then nobody misses it.
        let _ = self.updates.send(update);
    }

    fn tell_accepted<'a>(&self, mails: impl IntoIterator<Item = &'a Mail>) {
        for mail in mails {
            if let Mail::Event { event } = mail {
                self.tell(Update::Accepted(Arc::new(event.clone())));
            }
        }
    }

    /// Listeners know of everything in the log, and, if it is over, that nothing comes after it.
    fn told_all(&self, log: &SessionLog) {
        *self.told.lock() = Some(Told::all(log));
        if log.is_closed() {
            self.tell(Update::Closed);
        }
    }

    /// Into the row. What could not be written is written with what comes next.
    async fn project(&self, reading: &mut Reading) {
        if let Err(error) = reading.unreferred.resolve(&*self.inner.blobs).await {
            warn!(error = &error as &dyn std::error::Error, "blobs of a session cannot be looked at");
            return;
        }
        if self.inner.rows.project(&self.session_id, &reading.log, &reading.unreferred).await {
            reading.unreferred.clear();
            reading.is_written = true;
        }
    }

    /// From history; once that is gone, from what was sealed.
    async fn open(&self) -> Result<SessionLog, Error> {
        let (reader, blobs) = (&*self.inner.reader, &*self.inner.blobs);
        match SessionLog::open(reader, blobs, &self.session_id).await {
            Err(Error::History(history::Error::NotFound { session_id })) => {
                match self.inner.rows.sealed(&session_id).await {
                    Some(manifest) => SessionLog::sealed(blobs, &session_id, &manifest).await,
                    None => Err(Error::History(history::Error::NotFound { session_id })),
                }
            }
            opened => opened,
        }
    }

    /// Makes a log that is over independent of its histories, which a server may forget.
    async fn seal(&self) -> Result<(), Error> {
        let (reader, blobs) = (&*self.inner.reader, &*self.inner.blobs);
        if self.inner.rows.sealed(&self.session_id).await.is_some() {
            return Ok(());
        }
        let log = self.fresh().await?;
        if !log.is_kept() {
            // What is sealed is not read again: first the row has to know all of it.
            return Ok(());
        }
        if let Some(manifest) = log.seal(reader, blobs).await?
            && self.inner.rows.keep_sealed(&self.session_id, &manifest).await
        {
            debug!("sealed");
        }
        Ok(())
    }

    pub fn follow(self: &Arc<Self>) {
        let mut following = self.following.lock();
        following.asked += 1;
        if !std::mem::replace(&mut following.is_on, true) {
            let followed = self.clone();
            // It outlives the request that it began with.
            let span = info_span!(parent: None, "follow", session_id = self.session_id);
            tokio::spawn(async move { followed.read_on().await }.instrument(span));
        }
    }

    async fn read_on(self: Arc<Self>) {
        debug!("following");
        loop {
            let asked = self.following.lock().asked;
            match self.step().await {
                Ok(true) => {}
                Ok(false) => {
                    // Whoever asked since this step began may know of something it did not see.
                    let mut following = self.following.lock();
                    if following.asked == asked {
                        following.is_on = false;
                        debug!("resting");
                        return;
                    }
                }
                Err(Error::History(history::Error::NotFound { .. })) => {
                    self.following.lock().is_on = false;
                    self.tell(Update::Closed);
                    return;
                }
                // The follower is gone, and whatever it was part of: nobody can ask any more.
                Err(_) if self.inner.recent.strong_count() == 0 => return,
                Err(error) => {
                    warn!(error = &error as &dyn std::error::Error, "session cannot be read");
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    /// Waits for something new and tells it. False when the session rests.
    async fn step(&self) -> Result<bool, Error> {
        let cursor = {
            let log = self.fresh().await?;
            let is_wanted = !rests(&log) || self.updates.receiver_count() > 0;
            (is_wanted && !log.is_closed()).then(|| log.cursor())
        };
        let Some((run, next)) = cursor else {
            self.seal().await?;
            return Ok(false);
        };
        let page = self.inner.reader.page(&run, next, true).await?;
        let mut guard = self.log.lock().await;
        if let Some(mut reading) = guard.take() {
            if let Some(news) = reading.log.ingest(&*self.inner.blobs, &run, page).await? {
                self.publish(&mut reading, &news).await;
            }
            self.weigh(&reading);
            *guard = Some(reading);
        }
        Ok(true)
    }

    fn weigh(&self, reading: &Reading) {
        let bytes = reading.log.bytes();
        if let Some(recent) = self.inner.recent.upgrade() {
            // Dropped when the lock is free again.
            let _gone = recent.lock().weigh(&self.session_id, bytes);
        }
    }

    async fn publish(&self, reading: &mut Reading, news: &News) {
        reading.note(news);
        self.expected.read(news);
        if is_nothing(news) && reading.is_kept() {
            return;
        }
        self.project(reading).await;
        self.tell_accepted(&news.accepted);
        for entry in news.commits.iter().flat_map(|committed| committed.entries()) {
            self.tell(Update::Committed { position: entry.position, event: Arc::new(entry.event) });
        }
        self.told_all(&reading.log);
    }
}

/// Nothing will happen until somebody sends something.
fn rests(log: &SessionLog) -> bool {
    let is_at_rest = |summary: &Summary| {
        let works = !(summary.status.is_idle() || summary.status == Status::Terminated);
        // What a turn left behind is collected when it is over, and its hand parked; both are told in the log as everything else.
        !works && !summary.is_asking_hands()
    };
    log.uncommitted().next().is_none() && log.summary().is_none_or(is_at_rest)
}

#[cfg(test)]
mod tests;
