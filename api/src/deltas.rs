//! Previews on their way from whoever performs a model request to open streams. Best effort: nothing is kept, and a
//! reader that is slow loses some.

use std::collections::HashMap;
use std::sync::Arc;

use domain::delta::Delta;
use parking_lot::Mutex;
use tokio::sync::broadcast;

/// Previews that a slow reader may be behind before it loses some.
const BACKLOG: usize = 1024;

/// What streams are told beside the log.
#[derive(Clone, Debug)]
pub enum Live {
    Delta(Arc<Delta>),
    /// The session was deleted: nothing of it can be read any more.
    Deleted,
}

type Sessions = Mutex<HashMap<String, broadcast::Sender<Live>>>;

/// Cheap to clone; all clones are the same hub.
#[derive(Clone, Default)]
pub struct Hub {
    sessions: Arc<Sessions>,
}

/// A place at the hub. Dropping the last one of a session forgets the session.
pub struct Listening {
    session_id: String,
    receiver: Option<broadcast::Receiver<Live>>,
    sessions: Arc<Sessions>,
}

impl Hub {
    /// Tells whoever listens to the session of the delta.
    pub fn publish(&self, delta: Delta) {
        let sender = self.sessions.lock().get(&delta.session_id).cloned();
        if let Some(sender) = sender {
            // Without a listener there is nothing to preview.
            let _ = sender.send(Live::Delta(Arc::new(delta)));
        }
    }

    pub(crate) fn deleted(&self, session_id: &str) {
        let sender = self.sessions.lock().get(session_id).cloned();
        if let Some(sender) = sender {
            let _ = sender.send(Live::Deleted);
        }
    }

    pub fn listen(&self, session_id: &str) -> Listening {
        let mut sessions = self.sessions.lock();
        let sender = sessions.entry(session_id.to_owned()).or_insert_with(|| broadcast::channel(BACKLOG).0);
        Listening {
            session_id: session_id.to_owned(),
            receiver: Some(sender.subscribe()),
            sessions: self.sessions.clone(),
        }
    }
}

impl Listening {
    /// The next thing that is still there.
    pub async fn next(&mut self) -> Live {
        let receiver = self.receiver.as_mut().expect("it is there until drop");
        loop {
            match receiver.recv().await {
                Ok(live) => return live,
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                // The hub keeps the sender for as long as somebody listens.
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut sessions = self.sessions.lock();
        drop(self.receiver.take());
        if sessions.get(&self.session_id).is_some_and(|sender| sender.receiver_count() == 0) {
            sessions.remove(&self.session_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::delta::DeltaKind;

    use super::*;

    fn delta(session_id: &str, text: &str) -> Delta {
        let what = DeltaKind::Text { text: text.to_owned() };
        Delta { session_id: session_id.to_owned(), event_id: "sevt_1".to_owned(), what }
    }

    async fn text(listening: &mut Listening) -> String {
        match listening.next().await {
            Live::Delta(delta) => match &delta.what {
                DeltaKind::Text { text } => text.clone(),
                DeltaKind::Start { event_type } => event_type.clone(),
            },
            Live::Deleted => "deleted".to_owned(),
        }
    }

    #[tokio::test]
    async fn only_listeners_of_the_session_are_told() {
        let hub = Hub::default();
        hub.publish(delta("a", "too early"));
        let (mut a, mut b) = (hub.listen("a"), hub.listen("b"));
        hub.publish(delta("a", "to a"));
        hub.publish(delta("b", "to b"));
        hub.deleted("a");
        assert_eq!(text(&mut a).await, "to a");
        assert_eq!(text(&mut a).await, "deleted");
        assert_eq!(text(&mut b).await, "to b");
    }

    #[tokio::test]
    async fn a_slow_listener_loses_the_oldest() {
        let hub = Hub::default();
        let mut slow = hub.listen("a");
        for n in 0..BACKLOG + 2 {
            hub.publish(delta("a", &n.to_string()));
        }
        assert_eq!(text(&mut slow).await, "2");
    }

    #[test]
    fn nothing_is_kept_of_sessions_that_nobody_listens_to() {
        let hub = Hub::default();
        let (one, two) = (hub.listen("a"), hub.listen("a"));
        drop(one);
        assert_eq!(hub.sessions.lock().len(), 1);
        drop(two);
        assert!(hub.sessions.lock().is_empty());
    }
}
