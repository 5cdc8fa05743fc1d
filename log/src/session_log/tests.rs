use super::*;
use crate::testing::{SESSION, Told};
use domain::{Content, Event, EventBody, PrivateEntry, Take, session::StateHead};
use store::MemoryBlobs;

fn event(id: &str) -> Take {
    let body = EventBody::AgentMessage { content: Content::text(id) };
    Take::Inline { event: Event { id: id.into(), body, processed_at: None }, private: None }
}

fn private() -> Take {
    Take::Private { entry: PrivateEntry::Resumed {} }
}

async fn read(told: &Told, blobs: &MemoryBlobs) -> SessionLog {
    SessionLog::open(told, blobs, SESSION).await.unwrap()
}

async fn numbers(log: &mut SessionLog, blobs: &MemoryBlobs, from: u64, to: u64) -> Vec<u64> {
    log.commits(blobs, from, to).await.unwrap().iter().map(|committed| committed.commit.n).collect()
}

/// Two runs: commits 0 to 3, of which 1 alone has events, at positions 0 and 1; and 4 to 6, with position 2 in 5. The
/// first run is sealed by commit 4.
async fn sealed_once(blobs: &MemoryBlobs) -> Told {
    let told = Told::begun();
    told.commit(0, vec![private()]);
    told.commit(1, vec![event("a"), event("b")]);
    told.commit(2, vec![private()]);
    told.commit(3, vec![private()]);
    let summary = read(&told, blobs).await.summary().unwrap().clone();
    told.continue_as("r1", StateHead { summary }, Vec::new());
    let run = Run { session_id: SESSION.into(), run_id: "r0".into() };
    let manifest = segment::seal(&told, blobs, &run, None).await.unwrap();
    told.commit(4, vec![Take::Private { entry: PrivateEntry::RunSealed { run_id: "r0".into(), manifest } }]);
    told.commit(5, vec![event("c")]);
    told.commit(6, vec![private()]);
    told
}

#[tokio::test]
async fn commits_without_events_are_read_wherever_they_stand() {
    let blobs = MemoryBlobs::new();
    let told = sealed_once(&blobs).await;
    let mut log = read(&told, &blobs).await;
    assert_eq!(log.manifest().count(), 1);
    assert_eq!(numbers(&mut log, &blobs, 0, u64::MAX).await, [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(numbers(&mut log, &blobs, 0, 1).await, [0, 1]);
    assert_eq!(numbers(&mut log, &blobs, 1, 2).await, [1]);
    assert_eq!(numbers(&mut log, &blobs, 2, 3).await, [2, 3, 4, 5]);
    assert_eq!(numbers(&mut log, &blobs, 3, u64::MAX).await, [6]);
}

#[tokio::test]
async fn a_log_shows_every_commit_from_a_number_on() {
    let blobs = MemoryBlobs::new();
    let told = sealed_once(&blobs).await;
    let mut log = read(&told, &blobs).await;
    for n in 0..=7 {
        let mut seen = Vec::new();
        log.each_since(&blobs, n, |committed| seen.push(committed.commit.n)).await.unwrap();
        seen.sort_unstable();
        assert_eq!(seen, (n..7).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_sealed_run_may_go_before_and_while_its_log_is_read() {
    let blobs = MemoryBlobs::new();
    let told = Told::begun();
    told.commit(0, vec![event("a")]);
    let mut known = read(&told, &blobs).await;
    told.commit(1, vec![event("b")]);
    let summary = read(&told, &blobs).await.summary().unwrap().clone();
    told.continue_as("r1", StateHead { summary }, Vec::new());
    let run = Run { session_id: SESSION.into(), run_id: "r0".into() };
    let manifest = segment::seal(&told, &blobs, &run, None).await.unwrap();
    told.commit(2, vec![Take::Private { entry: PrivateEntry::RunSealed { run_id: "r0".into(), manifest } }]);
    told.commit(3, vec![event("c")]);
    let whole = read(&told, &blobs).await.slice(&blobs, 0, u64::MAX).await.unwrap();
    told.drop_run("r0");

    assert_eq!(read(&told, &blobs).await.slice(&blobs, 0, u64::MAX).await.unwrap(), whole);
    let news = known.read_to_end(&told, &blobs).await.unwrap();
    let numbers: Vec<u64> = news.commits.iter().map(|committed| committed.commit.n).collect();
    assert_eq!(numbers, [1, 2, 3], "what was new is told, though the run that it was in is gone");
    assert_eq!(known.slice(&blobs, 0, u64::MAX).await.unwrap(), whole);
    told.commit(4, vec![event("d")]);
    assert_eq!(known.read_to_end(&told, &blobs).await.unwrap().commits.len(), 1, "it goes on in the run it found");
}

#[tokio::test]
async fn a_log_weighs_what_is_not_sealed_of_it() {
    let blobs = MemoryBlobs::new();
    let told = Told::begun();
    told.commit(0, vec![event(&"a".repeat(100_000))]);
    let log = read(&told, &blobs).await;
    assert!((200_000..210_000).contains(&log.bytes()), "{}", log.bytes());
    told.continue_as("r1", StateHead { summary: log.summary().unwrap().clone() }, Vec::new());
    told.commit(1, vec![event("b")]);
    let mut log = read(&told, &blobs).await;
    assert!(log.bytes() > 200_000, "the run before is not sealed");
    let run = Run { session_id: SESSION.into(), run_id: "r0".into() };
    let manifest = segment::seal(&told, &blobs, &run, None).await.unwrap();
    told.commit(2, vec![Take::Private { entry: PrivateEntry::RunSealed { run_id: "r0".into(), manifest } }]);
    log.read_to_end(&told, &blobs).await.unwrap();
    assert!(log.bytes() < 10_000, "{}", log.bytes());
}

#[tokio::test]
async fn what_was_accepted_and_never_committed_outlives_the_histories() {
    let blobs = MemoryBlobs::new();
    let told = Told::begun();
    told.commit(0, vec![event("a")]);
    let body = EventBody::UserMessage { content: Content::text("are you there?") };
    let waiting = Mail::Event { event: Event { id: "m".into(), body, processed_at: None } };
    let summary = read(&told, &blobs).await.summary().unwrap().clone();
    told.continue_as("r1", StateHead { summary }, vec![waiting.clone()]);
    told.terminate("the operator said so");
    let log = read(&told, &blobs).await;
    let manifest = log.seal(&told, &blobs).await.unwrap().expect("it is over");
    let sealed = SessionLog::sealed(&blobs, SESSION, &manifest).await.unwrap();
    assert_eq!(sealed.uncommitted().collect::<Vec<_>>(), [&waiting]);
    assert_eq!((sealed.cut(), sealed.end_position()), (log.cut(), 1));
}
