//! How much of requests may be in memory at a time, whoever sends them: a large message waits for its place before the rest
//! of it is taken in, and keeps it until it is answered, so that a client is slowed down by its own connection. The engine
//! has places of its own, which no sender of blobs can take.

use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

/// A message up to this size needs no place.
pub const SMALL_BYTES_MAX: usize = 256 * 1024;
/// The largest message that is taken in.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The largest message to the engine, compressed or not: as on a Temporal server.
const ENGINE_MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What all large ones may be together: those to the engine, and again those to others.
const LARGE_BYTES_MAX: usize = 128 * 1024 * 1024;
/// How long a large one waits for its place.
const WAIT: Duration = Duration::from_secs(10);
/// In which a place is counted.
const UNIT: usize = 1024;

/// Those of each kind of service.
#[derive(Clone)]
pub struct Intakes {
    engine: Intake,
    others: Intake,
}

/// Memory is the process's, and so are the places: whatever listens shares them.
static OF_THE_PROCESS: LazyLock<Intakes> = LazyLock::new(|| Intakes::new(LARGE_BYTES_MAX, WAIT));

impl Intakes {
    pub fn of_the_process() -> Intakes {
        OF_THE_PROCESS.clone()
    }

    pub fn new(bytes: usize, wait: Duration) -> Intakes {
        Intakes {
            engine: Intake::new(ENGINE_MESSAGE_BYTES_MAX, bytes, wait),
            others: Intake::new(MESSAGE_BYTES_MAX, bytes, wait),
        }
    }

    pub fn of(&self, service: &str) -> &Intake {
        if service.starts_with("temporal.") { &self.engine } else { &self.others }
    }
}

/// How large a message may be, and the places of large ones.
#[derive(Clone)]
pub struct Intake {
    pub message_bytes_max: usize,
    places: Arc<Semaphore>,
    wait: Duration,
}

/// Held as long as the message is.
pub struct Place(#[expect(dead_code, reason = "it is given back when it is dropped")] OwnedSemaphorePermit);

impl Intake {
    pub fn new(message_bytes_max: usize, bytes: usize, wait: Duration) -> Intake {
        Intake { message_bytes_max, places: Arc::new(Semaphore::new(bytes / UNIT)), wait }
    }

    /// A place for a message of that many bytes. All of it at once: of two that each had a part of what they need, neither
    /// would go on.
    pub async fn place(&self, bytes: usize) -> Result<Place, Status> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let full = || Status::resource_exhausted("too many large messages are taken in");
        let place = tokio::time::timeout(self.wait, self.places.clone().acquire_many_owned(units)).await;
        place.map_err(|_late| full())?.map(Place).map_err(|_closed| full())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::poll;
    use tonic::Code;

    #[tokio::test]
    async fn a_large_message_waits_for_its_place_and_not_for_ever() {
        let intake = Intake::new(8 * UNIT, 8 * UNIT, Duration::from_millis(20));
        let first = intake.place(6 * UNIT).await.expect("there is room");
        let refused = intake.place(6 * UNIT).await.map(drop).expect_err("there is none");
        assert_eq!(refused.code(), Code::ResourceExhausted);
        let patient = Intake { wait: Duration::from_secs(60), ..intake };
        let mut second = Box::pin(patient.place(6 * UNIT));
        assert!(poll!(&mut second).is_pending());
        drop(first);
        second.await.expect("the place of the first");
    }

    #[tokio::test]
    async fn the_engine_has_places_that_no_blob_takes() {
        let intakes = Intakes::new(8 * UNIT, Duration::from_millis(20));
        let _blob = intakes.of("steadyhand.Node").place(8 * UNIT).await.expect("there is room");
        assert!(intakes.of("steadyhand.Node").place(UNIT).await.is_err());
        let engine = intakes.of("temporal.api.workflowservice.v1.WorkflowService");
        assert!(engine.place(8 * UNIT).await.is_ok());
    }
}
