//! Decoded session logs, kept between the model requests of a session: a request reads only what is new.

use domain::limits::CACHED_LOG_BYTES_MAX;
use log::{HistoryReader, SessionLog, recent::Recent, segment};
use std::sync::Arc;
use store::Blobs;
use tokio::sync::Mutex;

pub struct LogCache {
    reader: Arc<dyn HistoryReader>,
    blobs: Arc<dyn Blobs>,
    logs: parking_lot::Mutex<Recent<Slot>>,
}

/// Filled by whoever needs it first; the others wait for that reading.
type Slot = Arc<Mutex<Option<SessionLog>>>;

impl LogCache {
    pub fn new(reader: Arc<dyn HistoryReader>, blobs: Arc<dyn Blobs>) -> Self {
        LogCache { reader, blobs, logs: parking_lot::Mutex::new(Recent::new(CACHED_LOG_BYTES_MAX)) }
    }

    /// The positional slice `[from, to)` of a session's log as it is now.
    pub async fn slice(
        &self,
        session_id: &str,
        from: u64,
        to: u64,
    ) -> Result<Vec<domain::session::LogEntry>, segment::Error> {
        let (slot, _) = self.logs.lock().get_or_insert(session_id, Slot::default);
        let mut guard = slot.lock().await;
        let log = match guard.as_mut() {
            Some(log) => {
                if log.end_position() < to {
                    log.read_to_end(&*self.reader, &*self.blobs).await?;
                }
                log
            }
            None => guard.insert(SessionLog::open(&*self.reader, &*self.blobs, session_id).await?),
        };
        let entries = log.slice(&*self.blobs, from, to).await?;
        let _gone = self.logs.lock().weigh(session_id, log.bytes());
        Ok(entries)
    }
}
