//! What concerns no single run: namespaces, syncing, shutting down.

use super::{Error, Host, wait};
use crate::pb::enums::v1::IndexedValueType;
use crate::store::{self, Batch, Durability, Range, Reads, Space, keys};
use prost::Message;
use std::sync::Arc;
use tokio::sync::oneshot;

/// What is stored of a namespace.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Kept {
    #[prost(string, tag = "1")]
    pub description: String,
    /// How long its runs are kept after their end, in nanoseconds; 0: until somebody deletes them.
    #[prost(int64, tag = "2")]
    pub retention_ns: i64,
}

impl Host {
    /// Stores a namespace.
    pub async fn store_namespace(self: &Arc<Self>, name: &str, kept: &Kept) -> Result<(), Error> {
        let mut batch = Batch::default();
        batch.put(Space::Namespace, name.as_bytes().to_vec(), kept.encode_to_vec());
        self.write(batch).await?;
        self.keeping.look_again();
        Ok(())
    }

    /// Registered namespaces with what is stored of them.
    pub fn stored_namespaces(&self) -> Result<Vec<(String, Kept)>, Error> {
        let entries = self.store.scan(Space::Namespace, Range::prefix(Vec::new()))?;
        let namespace = |(name, bytes): (Vec<u8>, Vec<u8>)| {
            let name = String::from_utf8_lossy(&name).into_owned();
            match Kept::decode(bytes.as_slice()) {
                Ok(kept) => Ok((name, kept)),
                Err(source) => Err(Error::CorruptNamespace { name, source }),
            }
        };
        entries.into_iter().map(namespace).collect()
    }

    /// Stores search attributes of a namespace with their types.
    pub async fn store_attributes(
        self: &Arc<Self>,
        namespace: &str,
        attributes: &[(String, IndexedValueType)],
    ) -> Result<(), Error> {
        let mut batch = Batch::default();
        for (name, kind) in attributes {
            batch.put(Space::Attribute, keys::attribute(namespace, name), vec![*kind as u8]);
        }
        self.write(batch).await
    }

    /// Forgets search attributes; runs keep their values.
    pub async fn remove_attributes(self: &Arc<Self>, namespace: &str, names: &[String]) -> Result<(), Error> {
        let mut batch = Batch::default();
        names.iter().for_each(|name| batch.remove(Space::Attribute, keys::attribute(namespace, name)));
        self.write(batch).await
    }

    /// The search attributes of a namespace.
    pub fn stored_attributes(&self, namespace: &str) -> Result<Vec<(String, IndexedValueType)>, Error> {
        let prefix = keys::named(namespace);
        let entries = self.store.scan(Space::Attribute, Range::prefix(prefix.clone()))?;
        let attribute = |(key, value): (Vec<u8>, Vec<u8>)| {
            let kind = value.first().and_then(|kind| IndexedValueType::try_from(i32::from(*kind)).ok())?;
            Some((String::from_utf8_lossy(&key[prefix.len()..]).into_owned(), kind))
        };
        Ok(entries.into_iter().filter_map(attribute).collect())
    }

    /// Returns when everything that was handed to the store is on disk.
    pub async fn sync(self: &Arc<Self>) -> Result<(), Error> {
        match self.committer {
            Some(_) => self.write(Batch::default()).await,
            None => Ok(()),
        }
    }

    /// The store at one moment.
    pub fn snapshot(&self) -> Result<Box<dyn Reads>, Error> {
        Ok(self.store.snapshot()?)
    }

    /// The store between two writes, and what `beside` finds at that moment.
    pub async fn at_rest<T: Send + 'static>(
        self: &Arc<Self>,
        beside: impl FnOnce() -> T + Send + 'static,
    ) -> Result<(Box<dyn Reads>, T), Error> {
        if self.committer.is_none() {
            let beside = beside();
            return Ok((self.snapshot()?, beside));
        }
        let (done, waits) = oneshot::channel();
        let host = self.clone();
        // The thread that writes runs it: everything before it is written, and nothing behind it.
        let after = move |result: Result<(), Arc<store::Error>>| {
            let beside = beside();
            let moment = result.map_err(Error::Store).and_then(|()| Ok((host.snapshot()?, beside)));
            let _nobody_waits = done.send(moment);
        };
        self.submit(Batch::default(), Durability::Synced, Box::new(after));
        waits.await.unwrap_or_else(|_gone| Err(store::Error::Poisoned.into()))
    }

    /// Closes the store, after which only errors are answered.
    pub fn close_store(&self) {
        self.store.close();
    }

    async fn write(self: &Arc<Self>, batch: Batch) -> Result<(), Error> {
        if self.committer.is_none() {
            return Err(store::Error::ReadOnly.into());
        }
        let (done, waits) = oneshot::channel();
        let host = self.clone();
        let after = move |result: Result<(), Arc<store::Error>>| {
            if result.is_err() {
                host.poison();
            }
            let _nobody_waits = done.send(result);
        };
        self.submit(batch, Durability::Synced, Box::new(after));
        wait(waits).await
    }

    /// Stops polls and timers.
    pub fn close(&self) {
        self.queues.close();
        self.wheel.close();
        self.errands.close();
        self.keeping.close();
        self.closing.send_replace(true);
    }

    /// Resolves when the engine closes.
    pub async fn closing(&self) {
        let mut closing = self.closing.subscribe();
        // The sender lives as long as the host, so this waits for the value.
        let _value = closing.wait_for(|closing| *closing).await;
    }
}
