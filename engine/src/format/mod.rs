//! Which format a store has: a number in the store itself, from its creation on. A newer one is refused before anything of
//! it is touched; an older one is brought up, one format after the other. A store that says nothing is of the first format:
//! that one had no number.

mod from_1;

use crate::store::{self, Batch, Durability, Reads, Space, Storage};
use tracing::info;

/// What this build writes.
pub const FORMAT: u32 = 1 + MIGRATIONS.len() as u32;

/// What makes of each format the next one, from the first on. It may write what is harmless to write twice, as it may have
/// been cut off when it was last tried; what it gives back is written with the new number, in one write.
type Migration = fn(&dyn Storage) -> Result<Batch, Error>;

const MIGRATIONS: &[Migration] = &[from_1::migrate];

const KEY: &[u8] = b"format";

/// Why a store is not opened as it is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("open the database: it has format {found}, and this build knows formats up to {FORMAT}")]
    Newer { found: u32 },
    #[error(
        "open the database to be read: it has format {found}, and this build reads {FORMAT}; a service that starts brings it up"
    )]
    Older { found: u32 },
    #[error("open the database: what it says of its format is not a number")]
    NoNumber,
    #[error("bring the database to format {to}")]
    Migrate {
        to: u32,
        #[source]
        source: store::Error,
    },
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Brings a store to this build's format; one that is new gets it.
pub fn bring_up(store: &dyn Storage) -> Result<(), Error> {
    let said = said(store)?;
    let found = said.unwrap_or(1);
    if found > FORMAT {
        return Err(Error::Newer { found });
    }
    for (migrate, to) in MIGRATIONS.iter().zip(2..).skip(found as usize - 1) {
        let last = migrate(store)?;
        say(store, last, to).map_err(|source| Error::Migrate { to, source })?;
        info!(format = to, "the store was brought to another format");
    }
    if said.is_none() { Ok(say(store, Batch::default(), FORMAT)?) } else { Ok(()) }
}

/// Whether a store that must not be changed can be read as it is.
pub fn must_be_current(store: &dyn Reads) -> Result<(), Error> {
    match said(store)?.unwrap_or(1) {
        FORMAT => Ok(()),
        found if found > FORMAT => Err(Error::Newer { found }),
        found => Err(Error::Older { found }),
    }
}

fn said(store: &dyn Reads) -> Result<Option<u32>, Error> {
    let number = |bytes: Vec<u8>| bytes.try_into().map(u32::from_be_bytes).ok().filter(|format| *format > 0);
    let said = store.get(Space::About, KEY)?;
    said.map(|bytes| number(bytes).ok_or(Error::NoNumber)).transpose()
}

fn say(store: &dyn Storage, mut batch: Batch, format: u32) -> Result<(), store::Error> {
    batch.put(Space::About, KEY.to_vec(), format.to_be_bytes().to_vec());
    store.write(vec![batch], Durability::Synced)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::core::terminate::Terminate;
    use crate::host::{Host, Kept, Settings, Start};
    use crate::options::Limits;
    use crate::pb::history::v1::WorkflowExecutionStartedEventAttributes;
    use crate::store::committer::Committer;
    use crate::store::{MemoryStore, Range};
    use prost::Message;
    use std::sync::Arc;

    /// A store of the first format with an open run, a closed one and a namespace.
    async fn first_format() -> Arc<MemoryStore> {
        let store = Arc::new(MemoryStore::default());
        let committer = Committer::start(store.clone()).expect("a committer");
        let settings =
            Settings { clock: Arc::new(SystemClock), limits: Limits::default(), cached_runs_max: 10, seed: 7 };
        let host = Arc::new(Host::new(store.clone(), Some(committer), settings));
        for workflow_id in ["open", "closed"] {
            let started =
                WorkflowExecutionStartedEventAttributes { workflow_id: workflow_id.into(), ..Default::default() };
            let start = Start {
                namespace: "default".into(),
                request_id: workflow_id.into(),
                started,
                user_metadata: None,
                reuse: Default::default(),
                conflict: Default::default(),
                signal: None,
            };
            host.start(start).await.expect("starts");
        }
        let slot = host.newest("default", "closed").expect("reads").expect("is there");
        host.transact(&slot, Terminate::default(), Durability::Synced).await.expect("ends");
        let mut batch = Batch::default();
        for space in [Space::Closed, Space::Loose, Space::About] {
            for (key, _) in store.scan(space, Range::prefix(Vec::new())).expect("scans") {
                batch.remove(space, key);
            }
        }
        batch.put(Space::Namespace, b"other".to_vec(), b"what it is for".to_vec());
        store.write(vec![batch], Durability::Synced).expect("writes");
        store
    }

    #[tokio::test]
    async fn a_store_of_the_first_format_is_brought_up_and_read_only_when_it_was() {
        let store = first_format().await;
        assert!(matches!(must_be_current(&*store), Err(Error::Older { found: 1 })));
        bring_up(&*store).expect("brought up");
        must_be_current(&*store).expect("current");
        let report = crate::verify::verify(&*store).expect("reads");
        assert_eq!((report.runs, report.open_runs, report.problems), (2, 1, vec![]));
        assert_eq!(store.scan(Space::Loose, Range::prefix(Vec::new())).expect("scans").len(), 1, "is packed one day");
        let other = store.get(Space::Namespace, b"other").expect("reads").expect("is there");
        let kept = Kept { description: "what it is for".into(), retention_ns: 0 };
        assert_eq!(Kept::decode(other.as_slice()).expect("decodes"), kept);
        bring_up(&*store).expect("nothing to do");
        assert_eq!(store.get(Space::Namespace, b"other").expect("reads"), Some(other), "it is not wrapped twice");
    }

    #[test]
    fn a_new_store_says_its_format_and_is_opened_again() {
        let store = MemoryStore::default();
        bring_up(&store).expect("a new one");
        assert_eq!(said(&store).expect("reads"), Some(FORMAT));
        bring_up(&store).expect("its own");
        must_be_current(&store).expect("its own");
    }

    #[test]
    fn a_newer_store_and_one_that_cannot_be_understood_are_refused_and_stay_as_they_are() {
        let store = MemoryStore::default();
        say(&store, Batch::default(), FORMAT + 1).expect("writes");
        assert!(matches!(bring_up(&store), Err(Error::Newer { found }) if found == FORMAT + 1));
        assert!(matches!(must_be_current(&store), Err(Error::Newer { .. })));
        assert_eq!(said(&store).expect("reads"), Some(FORMAT + 1));
        let mut batch = Batch::default();
        batch.put(Space::About, KEY.to_vec(), b"two".to_vec());
        store.write(vec![batch], Durability::Synced).expect("writes");
        assert!(matches!(bring_up(&store), Err(Error::NoNumber)));
    }
}
