//! Whether a session has something to do for a worker.

use domain::Status;

use crate::app::App;
use crate::error::Result;
use crate::resources::events::calls::Calls;
use crate::resources::sessions::current::Current;

/// What the log of a session says, read to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Need {
    pub is_there: bool,
    /// One behind its last position.
    pub end: u64,
}

impl Need {
    pub async fn of(app: &App, session_id: &str) -> Result<Self> {
        use log::history::Error as History;
        use log::segment::Error;
        let followed = app.session(session_id);
        let mut log = match followed.fresh().await {
            Ok(log) => log,
            Err(Error::History(History::NotFound { .. })) => return Ok(Self { is_there: false, end: 0 }),
            Err(error) => return Err(error.into()),
        };
        let end = log.end_position();
        let Some(current) = Current::of(&log).filter(|current| !current.is_over()) else {
            return Ok(Self { is_there: false, end });
        };
        let is_there = match current.status {
            // A tool may be called any moment.
            Status::Running | Status::Rescheduling => true,
            Status::RequiresAction => {
                let calls = Calls::read(&mut log, &*app.blobs).await?;
                // The last answer is there and not yet taken up: then the session goes on.
                calls.wait_for_worker() || !calls.wait(true)
            }
            Status::Idle | Status::Terminated => false,
        };
        Ok(Self { is_there, end })
    }
}
