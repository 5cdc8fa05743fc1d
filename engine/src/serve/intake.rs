//! How much of requests may be in memory at a time, whoever sends them: a large message waits for its place before the rest
//! of it is taken in, and keeps it until it is answered, so that a client is slowed down by its own connection.

use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

/// A message up to this size needs no place.
pub const SMALL_BYTES_MAX: usize = 256 * 1024;
/// What all larger ones may be together, each counted as the largest that there can be.
const LARGE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// How long a large one waits for its place.
const WAIT: Duration = Duration::from_secs(10);
/// In which a place is counted.
const UNIT: usize = 1024;

/// The places of large messages.
#[derive(Clone)]
pub struct Intake {
    places: Arc<Semaphore>,
    wait: Duration,
}

/// Held as long as the message is.
pub struct Place(#[expect(dead_code, reason = "it is given back when it is dropped")] OwnedSemaphorePermit);

/// Memory is the process's, and so are the places: whatever listens shares them.
static OF_THE_PROCESS: LazyLock<Intake> = LazyLock::new(|| Intake::new(LARGE_BYTES_MAX, WAIT));

impl Intake {
    pub fn of_the_process() -> Intake {
        OF_THE_PROCESS.clone()
    }

    pub fn new(bytes: usize, wait: Duration) -> Intake {
        Intake { places: Arc::new(Semaphore::new(bytes / UNIT)), wait }
    }

    /// A place for a message of at most `max` bytes. All of it at once: of two that each had a part of what they need, neither
    /// would go on.
    pub async fn place(&self, max: usize) -> Result<Place, Status> {
        let units = u32::try_from(max.div_ceil(UNIT)).unwrap_or(u32::MAX);
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
        let intake = Intake::new(8 * UNIT, Duration::from_millis(20));
        let first = intake.place(6 * UNIT).await.expect("there is room");
        let refused = intake.place(6 * UNIT).await.map(drop).expect_err("there is none");
        assert_eq!(refused.code(), Code::ResourceExhausted);
        let patient = Intake { wait: Duration::from_secs(60), ..intake };
        let mut second = Box::pin(patient.place(6 * UNIT));
        assert!(poll!(&mut second).is_pending());
        drop(first);
        second.await.expect("the place of the first");
    }
}
