//! Reading the history of a session's runs, whatever server keeps it.

use async_trait::async_trait;
use domain::content::BlobRef;
use temporalio_common::{data_converters::PayloadConversionError, protos::temporal::api::history::v1::HistoryEvent};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("session {session_id} has no history")]
    NotFound { session_id: String },
    #[error("read the history of session {session_id}")]
    Rpc {
        session_id: String,
        #[source]
        source: Box<tonic::Status>,
    },
    #[error("redeem a payload in the history of session {session_id}")]
    Claim {
        session_id: String,
        #[source]
        source: PayloadConversionError,
    },
}

/// One page of a run's history.
#[derive(Debug, Default)]
pub struct Page {
    pub events: Vec<HistoryEvent>,
    /// Where the next page begins; empty at the end of a history that is read to its end.
    pub next: Vec<u8>,
    /// Blobs that payloads of these events were claims to. The events are whole.
    pub claimed: Vec<BlobRef>,
}

/// Where a run is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    pub session_id: String,
    /// Empty: whichever run is the latest.
    pub run_id: String,
}

#[async_trait]
pub trait HistoryReader: Send + Sync {
    /// The page that `next` points to; the first one for an empty `next`.
    ///
    /// With `wait`, the answer comes when there is something new, or empty after the server's patience
    /// (20 s); `next` then stays usable until the run is closed.
    async fn page(&self, run: &Run, next: Vec<u8>, wait: bool) -> Result<Page, Error>;

    /// The history events of a run after `known`, oldest first; read backwards, so that it costs what is new.
    async fn newer(&self, run: &Run, known: i64) -> Result<Page, Error>;

    /// The latest run, and how many history events it has.
    async fn latest_run(&self, session_id: &str) -> Result<(Run, i64), Error>;
}
