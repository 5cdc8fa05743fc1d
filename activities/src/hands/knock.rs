//! The socket at which hand workers ask egress. Egress is started again when it dies: whoever comes in between knocks until it is
//! back, so that no model is told of a moment.

use std::{
    io::{Error, ErrorKind},
    time::Duration,
};
use tokio::{net::UnixStream, time::Instant};

/// Longer than its supervisor ever pauses, and a start.
const BACK_WITHIN: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(50);

/// Nothing was said yet over what comes back.
pub async fn connect(socket: &str) -> Result<UnixStream, Error> {
    let give_up = Instant::now() + BACK_WITHIN;
    loop {
        match UnixStream::connect(socket).await {
            Err(error) if is_away(&error) && Instant::now() < give_up => tokio::time::sleep(AGAIN).await,
            connected => return connected,
        }
    }
}

/// A socket that its process has left behind, or has not made anew yet.
fn is_away(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[tokio::test]
    async fn who_comes_while_egress_is_away_waits_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("calls.sock");
        // What dies leaves its socket behind.
        drop(UnixListener::bind(&path).unwrap());
        let socket = path.to_str().unwrap().to_owned();
        let knocking = tokio::spawn(async move { connect(&socket).await });
        tokio::task::yield_now().await;
        std::fs::remove_file(&path).unwrap();
        let back = UnixListener::bind(&path).unwrap();
        knocking.await.unwrap().unwrap();
        drop(back);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_never_let_in_hears_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("nothing");
        let error = connect(socket.to_str().unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
