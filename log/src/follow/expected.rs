//! Mail that was sent and that no history shows yet: a server keeps a signal that comes while a workflow task is worked on, and
//! shows it with that task's end. What is true of a session has to wait for it.

use crate::session_log::News;
use domain::session::Mail;
use parking_lot::Mutex;
use std::{collections::HashMap, convert::Infallible};
use tokio::sync::oneshot;

#[derive(Default)]
pub(super) struct Expected(Mutex<HashMap<String, oneshot::Sender<Infallible>>>);

/// Mail of which one wants to know when the log shows it.
pub struct Awaited<'a> {
    expected: &'a Expected,
    id: String,
    /// Ends with its sender; nothing is ever said there.
    shown: oneshot::Receiver<Infallible>,
}

impl Expected {
    pub fn expect(&self, id: &str) -> Awaited<'_> {
        let (sender, shown) = oneshot::channel();
        self.0.lock().insert(id.to_owned(), sender);
        Awaited { expected: self, id: id.to_owned(), shown }
    }

    pub fn read(&self, news: &News) {
        let mut waiting = self.0.lock();
        if waiting.is_empty() {
            return;
        }
        // What was accepted and disposed of in one reading is among both.
        let disposed = news.commits.iter().flat_map(|committed| &committed.commit.takes).filter_map(|take| take.mail());
        for id in news.accepted.iter().map(Mail::id).chain(disposed) {
            waiting.remove(id);
        }
        if news.closed {
            waiting.clear();
        }
    }

    pub fn waits<'a>(&self, mails: impl IntoIterator<Item = &'a Mail>) {
        let mut waiting = self.0.lock();
        for mail in mails {
            waiting.remove(mail.id());
        }
    }
}

impl Awaited<'_> {
    /// Until the log shows it, or is over. Somebody has to read on meanwhile.
    pub async fn shown(mut self) {
        // An error is how it ends.
        let _ = (&mut self.shown).await;
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.expected.0.lock().remove(&self.id);
    }
}
