//! How the history of a closed run lies in the store: the batches that it was written in, joined to chunks and compressed.
//! Who reads it sees no difference: a stored batch says by its first bytes what it is.

use super::Error;
use crate::pb::history::v1::{History, HistoryEvent};
use crate::store::keys::{self, RunKey};
use crate::store::{Batch, Range, Reads, Space};
use prost::Message;

/// Bytes of events after which a chunk ends: enough to compress well, and little to unpack for one event.
pub const CHUNK_BYTES: usize = 128 * 1024;
/// Stored batches that are read at a time: each may be as large as a transaction.
const BATCHES: usize = 16;
/// Beyond this it takes much longer, for little.
const LEVEL: i32 = 3;
/// How a compressed chunk begins, and no encoded history: that begins with the tag of its first event.
const MAGIC: [u8; 4] = zstd::zstd_safe::MAGICNUMBER.to_le_bytes();

/// Adds to `batch` what makes one chunk of the batches of a closed run from event `from` on. Gives the event with which
/// the next chunk begins.
pub fn pack(store: &dyn Reads, run: &RunKey, from: i64, batch: &mut Batch) -> Result<Option<i64>, Error> {
    let mut range = Range { from: keys::history(run, from), limit: BATCHES, ..Range::prefix(run.to_vec()) };
    let (mut events, mut bytes, mut joined) = (Vec::new(), 0, Vec::new());
    loop {
        let stored = store.scan(Space::History, range.clone())?;
        let is_last = stored.len() < BATCHES;
        for (key, value) in stored {
            if bytes >= CHUNK_BYTES {
                put(batch, joined, events);
                return Ok(keys::first_event_id(&key));
            }
            let (history, length) = unpack(run, &value)?;
            events.extend(history);
            bytes += length;
            joined.push((key, value.starts_with(&MAGIC)));
        }
        match joined.last() {
            Some((key, _)) if !is_last => range.from = [key.as_slice(), &[0]].concat(),
            _ => break,
        }
    }
    put(batch, joined, events);
    Ok(None)
}

/// One chunk in place of the batches with these keys, each of which may be such a chunk already.
fn put(batch: &mut Batch, joined: Vec<(Vec<u8>, bool)>, events: Vec<HistoryEvent>) {
    let mut joined = joined.into_iter();
    let Some((first, was_packed)) = joined.next() else { return };
    if was_packed && joined.len() == 0 {
        return;
    }
    joined.for_each(|(key, _)| batch.remove(Space::History, key));
    let plain = History { events }.encode_to_vec();
    let packed = zstd::bulk::compress(&plain, LEVEL).ok().filter(|packed| packed.len() < plain.len());
    batch.put(Space::History, first, packed.unwrap_or(plain));
}

/// The events of a stored batch, and how many bytes they have.
pub fn unpack(run: &RunKey, stored: &[u8]) -> Result<(Vec<HistoryEvent>, usize), Error> {
    let decode = |bytes: &[u8]| {
        let history = History::decode(bytes);
        history.map_err(|source| Error::Corrupt { run_id: keys::run_id(run), source })
    };
    if !stored.starts_with(&MAGIC) {
        return Ok((decode(stored)?.events, stored.len()));
    }
    let plain = zstd::stream::decode_all(stored);
    let plain = plain.map_err(|source| Error::Unpack { run_id: keys::run_id(run), source })?;
    Ok((decode(&plain)?.events, plain.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::history::{Most, read};
    use crate::pb::common::v1::{Payload, Payloads};
    use crate::pb::history::v1::WorkflowExecutionSignaledEventAttributes;
    use crate::pb::history::v1::history_event::Attributes;
    use crate::store::{Durability, MemoryStore, Storage};

    const RUN: RunKey = [7; 16];

    /// An event with text that compresses, as much as asked for.
    fn event(event_id: i64, bytes: usize) -> HistoryEvent {
        let data = format!("{event_id} and so on, ").repeat(bytes / 16 + 1).into_bytes();
        let input = Some(Payloads { payloads: vec![Payload { data, ..Default::default() }] });
        let signaled = WorkflowExecutionSignaledEventAttributes { input, ..Default::default() };
        let attributes = Some(Attributes::WorkflowExecutionSignaledEventAttributes(signaled));
        HistoryEvent { event_id, attributes, ..Default::default() }
    }

    /// A history of batches with so many events each.
    fn stored(batches: &[usize], bytes: usize) -> (MemoryStore, Vec<HistoryEvent>) {
        let (store, mut all) = (MemoryStore::default(), Vec::new());
        for &count in batches {
            let next = all.len() as i64 + 1;
            let events: Vec<_> = (next..next + count as i64).map(|id| event(id, bytes)).collect();
            let mut batch = Batch::default();
            batch.put(Space::History, keys::history(&RUN, next), History { events: events.clone() }.encode_to_vec());
            store.write(vec![batch], Durability::Synced).expect("writes");
            all.extend(events);
        }
        (store, all)
    }

    fn pack_all(store: &MemoryStore) {
        let mut from = Some(1);
        while let Some(first) = from {
            let mut batch = Batch::default();
            from = pack(store, &RUN, first, &mut batch).expect("packs");
            store.write(vec![batch], Durability::Journaled).expect("writes");
        }
    }

    fn rows(store: &MemoryStore) -> Vec<(Vec<u8>, Vec<u8>)> {
        store.scan(Space::History, Range::prefix(Vec::new())).expect("scans")
    }

    #[test]
    fn whatever_is_read_of_a_packed_history_is_what_was_written() {
        for (batches, bytes) in [(vec![1], 10), (vec![2, 1, 4, 1, 3], 100), (vec![3; 40], 3_000), (vec![1; 5], 200_000)]
        {
            let (store, all) = stored(&batches, bytes);
            let before: usize = rows(&store).iter().map(|row| row.1.len()).sum();
            pack_all(&store);
            let packed = rows(&store);
            assert!(packed.iter().map(|row| row.1.len()).sum::<usize>() <= before);
            assert!(packed.len() <= before / CHUNK_BYTES + 1, "{} rows", packed.len());
            let end = all.len() as i64 + 1;
            for from in 1..=end {
                for to in [from + 1, (from + end) / 2, end, i64::MAX] {
                    let read = read(&store, &RUN, from, to, Most::events(7)).expect("reads");
                    let wanted = all.iter().filter(|event| event.event_id >= from && event.event_id < to).take(7);
                    assert!(read.iter().eq(wanted), "{from}..{to}");
                }
            }
            pack_all(&store);
            assert!(rows(&store) == packed, "to pack it again changes nothing");
        }
    }

    #[test]
    fn what_was_packed_in_part_is_packed_on_and_damage_is_an_error() {
        let (store, all) = stored(&[3; 40], 3_000);
        let mut batch = Batch::default();
        assert!(pack(&store, &RUN, 1, &mut batch).expect("packs").is_some());
        store.write(vec![batch], Durability::Journaled).expect("writes");
        assert!(read(&store, &RUN, 1, i64::MAX, Most::events(1_000)).expect("reads") == all);
        pack_all(&store);
        assert!(read(&store, &RUN, 1, i64::MAX, Most::events(1_000)).expect("reads") == all);
        let (key, mut value) = rows(&store).swap_remove(0);
        value.truncate(value.len() / 2);
        let mut batch = Batch::default();
        batch.put(Space::History, key, value);
        store.write(vec![batch], Durability::Synced).expect("writes");
        let damaged = read(&store, &RUN, 1, i64::MAX, Most::events(1_000));
        assert!(matches!(damaged, Err(Error::Unpack { .. })), "{damaged:?}");
    }
}
