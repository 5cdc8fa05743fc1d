//! Readings that fail or are given up half-way: what they learned is told by the next one, once.

use super::*;
use crate::{
    history::{Page, Run},
    testing::{SESSION, Told as Story},
};
use domain::{Content, EventBody, Take, session::StateHead};
use parking_lot::Mutex as Lock;
use store::MemoryBlobs;
use tokio::sync::broadcast::Receiver;

fn event(id: &str) -> Event {
    let body = EventBody::AgentMessage { content: Content::text(id) };
    Event { id: id.into(), body, processed_at: None }
}

fn take(id: &str) -> Take {
    Take::Inline { event: event(id), private: None }
}

/// A server that breaks off when a certain run is read, for as long as that is asked for.
struct Server {
    story: Story,
    broken: Lock<Option<String>>,
}

impl Server {
    fn reach(&self, run: &Run) -> Result<(), history::Error> {
        if self.broken.lock().as_ref() == Some(&run.run_id) {
            let source = Box::new(tonic::Status::unavailable("broken off"));
            return Err(history::Error::Rpc { session_id: run.session_id.clone(), source });
        }
        Ok(())
    }
}

#[async_trait]
impl HistoryReader for Server {
    async fn page(&self, run: &Run, next: Vec<u8>, wait: bool) -> Result<Page, history::Error> {
        self.reach(run)?;
        self.story.page(run, next, wait).await
    }

    async fn newer(&self, run: &Run, known: i64) -> Result<Page, history::Error> {
        self.reach(run)?;
        self.story.newer(run, known).await
    }

    async fn latest_run(&self, session_id: &str) -> Result<(Run, i64), history::Error> {
        self.story.latest_run(session_id).await
    }
}

/// Rows that take long when they are asked to: whoever waits for them can be given up there.
#[derive(Default)]
struct Slow {
    is_stuck: Lock<bool>,
}

#[async_trait]
impl Rows for Slow {
    async fn referred(&self, _session_id: &str) -> u64 {
        0
    }

    async fn project(&self, _session_id: &str, _log: &SessionLog, _needed: &Needed) -> bool {
        if *self.is_stuck.lock() {
            std::future::pending::<()>().await;
        }
        true
    }

    async fn keep_sealed(&self, _session_id: &str, _manifest: &BlobRef) -> bool {
        true
    }

    async fn sealed(&self, _session_id: &str) -> Option<BlobRef> {
        None
    }
}

struct Bed {
    server: Arc<Server>,
    rows: Arc<Slow>,
    follower: Follower,
}

impl Bed {
    fn new() -> Self {
        let server = Arc::new(Server { story: Story::begun(), broken: Lock::default() });
        let rows = Arc::new(Slow::default());
        let follower = Follower::new(server.clone(), Arc::new(MemoryBlobs::new()), rows.clone());
        Bed { server, rows, follower }
    }

    /// Commit 0 with event `a` is known, and whoever listens has heard of it.
    async fn known() -> (Self, Arc<Followed>, Receiver<Update>) {
        let bed = Bed::new();
        bed.server.story.commit(0, vec![take("a")]);
        let followed = bed.follower.session(SESSION);
        drop(followed.fresh().await.unwrap());
        let updates = followed.subscribe();
        (bed, followed, updates)
    }

    /// The next run, in which `waiting` is accepted.
    async fn goes_on(&self, waiting: &[&str]) {
        let blobs = MemoryBlobs::new();
        let log = SessionLog::open(&self.server.story, &blobs, SESSION).await.unwrap();
        let state = StateHead { summary: log.summary().unwrap().clone() };
        let mails = waiting.iter().map(|id| Mail::Event { event: event(id) }).collect();
        self.server.story.continue_as("r1", state, mails);
    }
}

/// What was told so far, in order: positions and ids.
fn heard(updates: &mut Receiver<Update>) -> Vec<String> {
    let mut heard = Vec::new();
    while let Ok(update) = updates.try_recv() {
        heard.push(match update {
            Update::Accepted(event) => format!("accepted {}", event.id),
            Update::Committed { position, event } => format!("{position} {}", event.id),
            Update::Closed => "closed".to_owned(),
        });
    }
    heard
}

#[tokio::test]
async fn what_a_reading_learned_before_it_failed_is_told_once() {
    let (bed, followed, mut updates) = Bed::known().await;
    bed.server.story.commit(1, vec![take("b")]);
    bed.goes_on(&["m"]).await;
    bed.server.story.commit(2, vec![take("c")]);
    *bed.server.broken.lock() = Some("r1".into());
    assert!(followed.fresh().await.is_err(), "the second run cannot be read");
    assert!(followed.fresh().await.is_err(), "nor again");
    assert_eq!(heard(&mut updates), Vec::<String>::new());

    *bed.server.broken.lock() = None;
    drop(followed.fresh().await.unwrap());
    assert_eq!(heard(&mut updates), ["accepted m", "1 b", "2 c"]);
    drop(followed.fresh().await.unwrap());
    assert_eq!(heard(&mut updates), Vec::<String>::new(), "what was told is told no more");
}

#[tokio::test]
async fn what_a_reading_learned_before_it_was_given_up_is_told_once() {
    let (bed, followed, mut updates) = Bed::known().await;
    bed.server.story.commit(1, vec![take("b")]);
    *bed.rows.is_stuck.lock() = true;
    // The client that asked is gone while the row is written.
    assert!(futures::poll!(std::pin::pin!(followed.fresh())).is_pending());
    assert_eq!(heard(&mut updates), Vec::<String>::new());

    *bed.rows.is_stuck.lock() = false;
    let log = followed.fresh().await.unwrap();
    assert!(log.is_kept(), "the row has what the reading before it had not written");
    drop(log);
    assert_eq!(heard(&mut updates), ["1 b"]);
}

#[tokio::test]
async fn the_end_is_told_though_the_reading_that_saw_it_was_given_up() {
    let (bed, followed, mut updates) = Bed::known().await;
    bed.server.story.commit(1, vec![take("b")]);
    bed.server.story.terminate("the operator said so");
    *bed.rows.is_stuck.lock() = true;
    assert!(futures::poll!(std::pin::pin!(followed.fresh())).is_pending());
    *bed.rows.is_stuck.lock() = false;
    followed.follow();
    let told = [updates.recv().await.unwrap(), updates.recv().await.unwrap()];
    assert!(matches!(told, [Update::Committed { position: 1, .. }, Update::Closed]), "{told:?}");
}
