//! Which format a store has: a number in the store itself, from its creation on. A newer one is refused before anything of
//! it is touched; an older one is brought up, one format after the other. A store that says nothing is of the first format:
//! that one had no number.

use crate::store::{self, Batch, Durability, Reads, Space, Storage};
use tracing::info;

/// What this build writes.
pub const FORMAT: u32 = 1 + MIGRATIONS.len() as u32;

/// What makes of each format the next one, from the first on. It may write what is harmless to write twice, as it may have
/// been cut off when it was last tried; what it gives back is written with the new number, in one write.
type Migration = fn(&dyn Storage) -> Result<Batch, Error>;

const MIGRATIONS: &[Migration] = &[];

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
    use crate::store::MemoryStore;

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
