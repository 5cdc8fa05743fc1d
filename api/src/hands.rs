//! The api's side of hands: what it asks of whoever has the sandboxes of this machine. It never calls a worker.

use crate::app::App;
use async_trait::async_trait;

/// A hand of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hand {
    pub id: String,
    pub session_id: String,
    /// What its session calls it.
    pub name: String,
    /// Its sandbox runs; else only its folder is there, and the next call starts it again.
    pub is_running: bool,
    /// `strict` or `dev`.
    pub mode: String,
    /// Who holds it: calls under another are refused.
    pub epoch: Option<u64>,
    /// Calls that run in it.
    pub calls: Vec<String>,
    pub idle_seconds: u64,
    /// After so long without a call its sandbox ends.
    pub lease_seconds: Option<u64>,
    /// Walls that it does without, each with the reason.
    pub layers_off: Vec<(String, String)>,
}

#[async_trait]
pub trait Hands: Send + Sync {
    async fn list(&self) -> std::io::Result<Vec<Hand>>;

    /// Ends the hand and removes everything of it.
    async fn end(&self, id: &str) -> std::io::Result<()>;
}

/// Whether a session has that hand, by its log as it is now. Of one that cannot be read nothing is known, and it is an error.
pub async fn is_held(app: &App, session_id: &str, hand_id: &str) -> std::io::Result<bool> {
    let followed = app.session(session_id);
    let log = followed.fresh().await.map_err(std::io::Error::other)?;
    let summary = log.summary().ok_or(std::io::ErrorKind::NotFound)?;
    Ok(summary.name_of(hand_id).is_some())
}
