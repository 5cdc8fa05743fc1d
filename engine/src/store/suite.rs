//! What every store must do, run over each of them.

use super::committer::Committer;
use super::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

/// Runs a check on a fresh memory store and on a fresh fjall store.
fn on_every_store(check: impl Fn(Arc<dyn Storage>)) {
    check(Arc::new(MemoryStore::default()));
    let folder = tempfile::tempdir().expect("temporary folder");
    check(Arc::new(FjallStore::open(folder.path()).expect("opens")));
}

fn put(pairs: &[(&str, &str)]) -> Batch {
    let mut batch = Batch::default();
    for (key, value) in pairs {
        batch.put(Space::Run, key.as_bytes().to_vec(), value.as_bytes().to_vec());
    }
    batch
}

fn keys(entries: Vec<Entry>) -> Vec<String> {
    entries.into_iter().map(|entry| String::from_utf8(entry.0).expect("utf-8")).collect()
}

#[test]
fn batches_apply_in_order_and_the_last_change_of_a_key_wins() {
    on_every_store(|store| {
        let mut twice = put(&[("a", "1"), ("a", "2"), ("b", "3")]);
        twice.remove(Space::Run, b"b".to_vec());
        store.write(vec![put(&[("a", "0"), ("c", "0")]), twice], Durability::Synced).expect("writes");
        assert_eq!(store.get(Space::Run, b"a").expect("reads").as_deref(), Some(&b"2"[..]));
        assert_eq!(store.get(Space::Run, b"b").expect("reads"), None);
        assert_eq!(store.get(Space::Run, b"c").expect("reads").as_deref(), Some(&b"0"[..]));
        assert_eq!(store.get(Space::Timer, b"a").expect("reads"), None, "spaces are apart");
    });
}

#[test]
fn scans_are_ordered_bounded_and_go_both_ways() {
    on_every_store(|store| {
        store
            .write(vec![put(&[("a1", ""), ("a2", ""), ("a3", ""), ("b1", "")])], Durability::Journaled)
            .expect("writes");
        let all = Range::prefix(b"a".to_vec());
        assert_eq!(keys(store.scan(Space::Run, all.clone()).expect("scans")), ["a1", "a2", "a3"]);
        let last_two = Range { order: Order::Descending, limit: 2, ..all };
        assert_eq!(keys(store.scan(Space::Run, last_two).expect("scans")), ["a3", "a2"]);
        let middle = Range { from: b"a2".to_vec(), to: b"b1".to_vec(), order: Order::Ascending, limit: 9 };
        assert_eq!(keys(store.scan(Space::Run, middle).expect("scans")), ["a2", "a3"]);
        let nothing = Range { from: b"b".to_vec(), to: b"a".to_vec(), order: Order::Ascending, limit: 9 };
        assert!(store.scan(Space::Run, nothing).expect("scans").is_empty());
    });
}

#[test]
fn a_prefix_of_highest_bytes_is_bounded_too() {
    let range = Range::prefix(vec![1, 255, 255]);
    assert_eq!(range.to, vec![2]);
    assert!(Range::prefix(vec![255]).to > vec![255, 255]);
}

#[test]
fn the_committer_keeps_order_and_tells_everyone() {
    on_every_store(|store| {
        let committer = Committer::start(store.clone()).expect("starts");
        let told = Arc::new(AtomicUsize::new(0));
        let (done, finished) = mpsc::channel();
        for n in 0..200 {
            let (told, done) = (told.clone(), done.clone());
            let after = Box::new(move |result: Result<(), Arc<Error>>| {
                assert!(result.is_ok());
                assert_eq!(told.fetch_add(1, Ordering::SeqCst), n, "in order");
                done.send(()).expect("the test listens");
            });
            committer.submit(put(&[("key", &n.to_string())]), Durability::Synced, after);
        }
        for _ in 0..200 {
            finished.recv().expect("an answer for each");
        }
        assert_eq!(store.get(Space::Run, b"key").expect("reads").as_deref(), Some(&b"199"[..]));
    });
}

/// A store whose second write fails, like a device that went away.
#[derive(Default)]
pub struct Breaking {
    inner: MemoryStore,
    writes: AtomicUsize,
}

impl Storage for Breaking {
    fn write(&self, batches: Vec<Batch>, durability: Durability) -> Result<(), Error> {
        if self.writes.fetch_add(1, Ordering::SeqCst) == 1 {
            return Err(Error::Write(::fjall::Error::Io(std::io::Error::other("no such device"))));
        }
        self.inner.write(batches, durability)
    }

    fn snapshot(&self) -> Result<Box<dyn Reads>, Error> {
        self.inner.snapshot()
    }

    fn close(&self) {
        self.inner.close();
    }
}

impl Reads for Breaking {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.inner.get(space, key)
    }

    fn scan(&self, space: Space, range: Range) -> Result<Vec<Entry>, Error> {
        self.inner.scan(space, range)
    }
}

#[test]
fn a_snapshot_shows_nothing_of_what_is_written_after_it() {
    on_every_store(|store| {
        store.write(vec![put(&[("a", "1"), ("b", "1")])], Durability::Synced).expect("writes");
        let before = store.snapshot().expect("a snapshot");
        let mut later = put(&[("a", "2"), ("c", "2")]);
        later.remove(Space::Run, b"b".to_vec());
        store.write(vec![later], Durability::Synced).expect("writes");
        assert_eq!(before.get(Space::Run, b"a").expect("reads").as_deref(), Some(&b"1"[..]));
        assert_eq!(keys(before.scan(Space::Run, Range::prefix(Vec::new())).expect("scans")), ["a", "b"]);
        let after = store.snapshot().expect("another");
        assert_eq!(keys(after.scan(Space::Run, Range::prefix(Vec::new())).expect("scans")), ["a", "c"]);
    });
}

#[test]
fn a_database_that_is_to_be_read_must_be_there() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let nothing = FjallStore::open_existing(folder.path()).err().expect("is refused");
    assert!(matches!(nothing, Error::Missing { .. }), "{nothing:?}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("reads").count(), 0, "and is not made");
}

#[test]
fn after_one_failed_write_nothing_is_written_any_more() {
    let store = Arc::new(Breaking::default());
    let committer = Committer::start(store.clone()).expect("starts");
    let write = |value: &str| {
        let (done, finished) = mpsc::channel();
        let after =
            Box::new(move |result: Result<(), Arc<Error>>| done.send(result.is_ok()).expect("the test listens"));
        committer.submit(put(&[("key", value)]), Durability::Synced, after);
        finished.recv().expect("an answer")
    };
    assert!(write("first"));
    assert!(!write("second"));
    assert!(!write("third"));
    assert_eq!(store.writes.load(Ordering::SeqCst), 2, "the store is not even asked");
    assert_eq!(store.get(Space::Run, b"key").expect("reads").as_deref(), Some(&b"first"[..]));
}

/// MiB of journal in a store with this bound, after 224 MiB of incompressible values were written to it: as soon as it is at
/// most `until`, or half a minute later, as fjall writes out in its own time.
fn journal_after(journal_mib: u64, until: u64) -> u64 {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = FjallStore::open_with(folder.path(), journal_mib << 20).expect("opens");
    let mut noise = 88_172_645_463_325_252_u64;
    let mut value: Vec<u8> = Vec::with_capacity(1 << 20);
    while value.len() < 1 << 20 {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        value.extend(noise.to_le_bytes());
    }
    for n in 0..224_u64 {
        let mut batch = Batch::default();
        batch.put(Space::History, n.to_be_bytes().to_vec(), value.clone());
        batch.put(Space::Run, (n % 3).to_be_bytes().to_vec(), n.to_be_bytes().to_vec());
        store.write(vec![batch], Durability::Journaled).expect("writes");
    }
    let written = std::time::Instant::now();
    loop {
        let files = std::fs::read_dir(folder.path()).expect("a folder").map(|entry| entry.expect("an entry"));
        let journals = files.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "jnl"));
        // One that was written out goes while this looks.
        let mib = journals.filter_map(|entry| entry.metadata().ok()).map(|file| file.len()).sum::<u64>() >> 20;
        if mib <= until || written.elapsed() > std::time::Duration::from_secs(30) {
            return mib;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn the_journal_that_a_start_reads_is_bounded_by_what_was_chosen_and_not_by_what_is_stored() {
    // What was chosen, and the file that is being written.
    let little = journal_after(64, 128);
    assert!(little <= 128, "{little} MiB with a bound of 64");
    let much = journal_after(1_024, 1_024);
    assert!(much >= 200, "{much} MiB with a bound of 1024");
}

#[test]
fn a_second_open_of_the_same_folder_is_a_clear_error_and_a_later_one_sees_the_data() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = FjallStore::open(folder.path()).expect("opens");
    store.write(vec![put(&[("kept", "yes")])], Durability::Synced).expect("writes");
    let second = FjallStore::open(folder.path()).err().expect("is refused");
    assert!(matches!(second, Error::Locked { .. }), "{second:?}");
    store.close();
    assert!(matches!(store.get(Space::Run, b"kept"), Err(Error::Closed)));
    let again = FjallStore::open(folder.path()).expect("opens again");
    assert_eq!(again.get(Space::Run, b"kept").expect("reads").as_deref(), Some(&b"yes"[..]));
}
