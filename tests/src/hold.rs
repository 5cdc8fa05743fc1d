//! A moment at somebody else's server in which a test does something: whoever comes first waits there for ever, everybody after it
//! passes.

use anyhow::Context as _;
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};
use tokio::sync::watch;

const PATIENCE: Duration = Duration::from_secs(90);

pub struct Hold {
    is_taken: AtomicBool,
    reached: watch::Sender<bool>,
}

impl Default for Hold {
    fn default() -> Self {
        Hold { is_taken: AtomicBool::new(false), reached: watch::Sender::new(false) }
    }
}

impl Hold {
    /// Of a server that holds nobody.
    pub fn open() -> Self {
        Hold { is_taken: AtomicBool::new(true), ..Hold::default() }
    }

    /// Never returns for the first one, who is gone when his connection is.
    pub async fn pass(&self) {
        if !self.is_taken.swap(true, Ordering::SeqCst) {
            self.reached.send_replace(true);
            std::future::pending::<()>().await;
        }
    }

    /// Until somebody waits there.
    pub async fn reached(&self) -> anyhow::Result<()> {
        let mut reached = self.reached.subscribe();
        let waited = tokio::time::timeout(PATIENCE, reached.wait_for(|reached| *reached)).await;
        waited.context("nobody comes")?.context("it is held as long as this lives")?;
        Ok(())
    }
}
