//! What clients are told when a log or a blob cannot be read.

use log::{blobs, history, segment};

use crate::error::ApiError;

impl From<segment::Error> for ApiError {
    fn from(error: segment::Error) -> Self {
        match error {
            segment::Error::History(history::Error::NotFound { ref session_id }) => {
                ApiError::not_found("session", session_id).inner(error)
            }
            segment::Error::History(history::Error::Rpc { .. }) => {
                ApiError::unavailable("the engine cannot be reached").inner(error)
            }
            error => ApiError::internal(error),
        }
    }
}

impl From<blobs::Error> for ApiError {
    fn from(error: blobs::Error) -> Self {
        match error {
            blobs::Error::Store { source: store::blobs::Error::Poisoned, .. } => {
                ApiError::unavailable("storage takes no more writes until the service is restarted").inner(error)
            }
            error => ApiError::internal(error),
        }
    }
}
