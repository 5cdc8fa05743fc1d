//! What the service keeps beside the session logs: the [`Catalog`] (small rows, conditional atomic batches) and
//! [`Blobs`] (immutable bytes, named by their sha-256).
//!
//! Both are traits with more than one implementation, all under one suite of tests, so that a fleet can put a database
//! and an object store in their place. Nothing here knows what a session, an agent or an event is.

pub mod blobs;
pub mod catalog;
pub mod remote;

pub use blobs::{BlobInfo, BlobWriter, Blobs, Digest, FolderBlobs, Hold, MemoryBlobs, Reader, Stored};
pub use catalog::{
    Batch, Catalog, CatalogSnapshot, Condition, Direction, Durability, FjallCatalog, KeyRange, MemoryCatalog, Record,
    Row, Table, Versioned,
};
pub use remote::RemoteBlobs;
