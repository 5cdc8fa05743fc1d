use super::*;
use serde_json::{Value, json};
use store::MemoryBlobs;

const LONG: u64 = 1_000;
/// Positions of a segment.
const STEP: u64 = 10;

/// Segment `n` of a session that was never sealed by a build without pages.
fn segment(n: u64) -> Segment {
    let blob = BlobRef { blob: store::Digest::of(&n.to_le_bytes()).to_string(), bytes: 8 };
    let state = Some(BlobRef { bytes: 9, ..blob.clone() }).filter(|_| n > 0);
    let (run_id, from, to) = (format!("run-{n}"), n * STEP, (n + 1) * STEP);
    Segment { run_id, blob, key_id: 0, from, to, frames: Vec::new(), index: None, cut: None, state, shared: false }
}

async fn manifest(store: &MemoryBlobs, count: u64) -> Manifest {
    let mut manifest = Manifest { session_id: "s".into(), ..Manifest::default() };
    for n in 0..count {
        manifest.push(store, segment(n)).await.unwrap();
    }
    manifest
}

fn numbers(segments: &[Segment]) -> Vec<u64> {
    segments.iter().map(|segment| segment.from / STEP).collect()
}

async fn within(manifest: &Manifest, store: &MemoryBlobs, from: u64, to: u64) -> Vec<u64> {
    let (mut backwards, mut pages, mut found) = (manifest.within(from, to), Pages::default(), Vec::new());
    while let Some(segment) = backwards.next(store, &mut pages).await.unwrap() {
        found.insert(0, segment);
    }
    numbers(&found)
}

#[tokio::test]
async fn every_segment_is_found_however_many_there_are() {
    let store = MemoryBlobs::new();
    let mut manifest = Manifest::default();
    for n in 0..LONG {
        manifest.push(&store, segment(n)).await.unwrap();
        assert_eq!((manifest.count() as u64, manifest.end_position()), (n + 1, (n + 1) * STEP));
        if n % 97 == 0 {
            assert_eq!(numbers(&manifest.since(&store, 0).await.unwrap()), (0..=n).collect::<Vec<_>>());
        }
    }
    assert!(manifest.pages[0].level > 0, "there are pages of pages");
    assert_eq!(numbers(&manifest.since(&store, 990).await.unwrap()), (990..LONG).collect::<Vec<_>>());
    assert_eq!(manifest.since(&store, 2_000).await.unwrap(), []);
    for n in [0, 1, 63, 64, 511, 512, 985, 999] {
        assert_eq!(within(&manifest, &store, n * STEP + 1, n * STEP + 2).await, [n]);
        assert_eq!(manifest.find(&store, &format!("run-{n}")).await.unwrap(), Some(segment(n)));
    }
    assert_eq!(within(&manifest, &store, 70, 90).await, [6, 7, 8], "commits without events may end the one before");
    assert_eq!(manifest.find(&store, "run-of-another").await.unwrap(), None);
}

#[tokio::test]
async fn what_a_manifest_lists_grows_with_the_logarithm() {
    let store = MemoryBlobs::new();
    let bytes = |manifest: &Manifest| serde_json::to_vec(manifest).unwrap().len();
    let (short, long) = (manifest(&store, 100).await, manifest(&store, LONG).await);
    assert!(bytes(&long) < 2 * bytes(&short), "{} and {}", bytes(&long), bytes(&short));
    assert!(bytes(&long) < 15_000, "{}", bytes(&long));
}

/// So that whoever refers to what each manifest lists refers to everything.
#[tokio::test]
async fn everything_is_listed_by_a_manifest_before_it_is_in_a_page() {
    let store = MemoryBlobs::new();
    let (mut listed, mut manifest) = (std::collections::BTreeSet::new(), Manifest::default());
    // As a build without pages left it.
    manifest.segments = (0..500).map(segment).collect();
    listed.extend(manifest.listed().map(|blob| blob.blob.clone()));
    for n in 500..LONG {
        manifest.push(&store, segment(n)).await.unwrap();
        listed.extend(manifest.listed().map(|blob| blob.blob.clone()));
        if n % 7 > 0 {
            continue;
        }
        let all = manifest.all_listed(&store).await.unwrap();
        let unlisted: Vec<&BlobRef> = all.iter().filter(|blob| !listed.contains(&blob.blob)).collect();
        assert!(unlisted.is_empty(), "at {n}: {unlisted:?}");
    }
    assert_eq!(numbers(&manifest.since(&store, 0).await.unwrap()), (0..LONG).collect::<Vec<_>>());
    assert!(manifest.segments.len() < 2 * FULL && manifest.pages.len() < 10 * FULL, "the old list is gone");
}

#[tokio::test]
async fn a_fork_shares_pages_as_they_are() {
    let store = MemoryBlobs::new();
    let manifest = manifest(&store, LONG).await;
    let known = store.list(None, 10_000).await.unwrap().len();
    for at in [0, 5, STEP, 640, 641, 5_123, 9_985, LONG * STEP, LONG * STEP + 7] {
        let (until, behind) = manifest.until(&store, at).await.unwrap();
        let whole = (at / STEP).min(LONG);
        let shared = until.since(&store, 0).await.unwrap();
        assert_eq!(numbers(&shared), (0..whole).collect::<Vec<_>>(), "until {at}");
        assert!(shared.iter().all(|segment| segment.shared), "until {at}");
        assert_eq!(behind.map(|behind| behind.from), (whole < LONG).then_some(whole * STEP), "until {at}");
        // It goes on as a log of its own.
        let mut forked = until;
        for n in whole..whole + 40 {
            forked.push(&store, segment(n)).await.unwrap();
        }
        let all = forked.since(&store, 0).await.unwrap();
        assert_eq!(numbers(&all), (0..whole + 40).collect::<Vec<_>>(), "after {at}");
        assert_eq!(all.iter().filter(|segment| segment.shared).count() as u64, whole, "after {at}");
    }
    let (until, _) = manifest.until(&store, 5_123).await.unwrap();
    assert!(until.pages.iter().any(|page| page.level >= 1 && page.shared), "{:?}", until.pages);
    assert!(store.list(None, 10_000).await.unwrap().len() < known + 100, "what is shared is not written again");
}

#[test]
fn builds_without_pages_read_what_has_none_and_nothing_else() {
    let plain = Manifest { session_id: "s".into(), segments: vec![segment(0)], ..Manifest::default() };
    let stored = serde_json::to_value(&plain).unwrap();
    assert_eq!(stored, json!({"session_id": "s", "segments": [segment(0)]}), "as ever");
    assert_eq!(serde_json::from_value::<Manifest>(stored).unwrap(), plain);
    let page =
        Page { level: 0, from: 0, to: 80, segments: 8, blob: BlobRef { blob: "b".into(), bytes: 1 }, shared: true };
    let paged = Manifest { pages: vec![page], ..plain };
    let stored = serde_json::to_value(&paged).unwrap();
    assert_eq!(stored.get("segments"), None, "a build that knows no pages must not take these for all: {stored}");
    assert_eq!(serde_json::from_value::<Manifest>(stored).unwrap(), paged);
    let none: Value = json!({"session_id": "s"});
    assert!(serde_json::from_value::<Manifest>(none).is_err());
}
