use super::*;
use crate::testing::{SESSION, Told};
use domain::{Content, EventBody, PrivateEntry, Take, session::StateHead};
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
    assert_eq!(log.manifest().segments.len(), 1);
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
