//! Telling a repeated POST from a new one. The SDKs send no key but mark what they repeat; our own `Idempotency-Key`
//! marks any request.
//!
//! The fingerprint of a POST travels in its signal, so the log remembers it across restarts. What only this process
//! knows is which answers were written to their end: what a client has read it does not ask for again, so a repeated
//! POST of the same words is then a new one.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use domain::Time;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::OwnedMutexGuard;

const RETRY_COUNT: &str = "x-stainless-retry-count";
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// For how long a POST is remembered, in milliseconds.
const MEMORY_MS: u64 = 10 * 60 * 1000;
/// Answers that are remembered as written. Forgetting one only means that a retry of it is taken for a retry.
const ANSWERED_MAX: usize = 10_000;

/// What a POST is recognised by.
#[derive(Clone, Debug)]
pub struct Fingerprint {
    hash: String,
    wish: Wish,
}

/// What a client wants of a POST that was accepted before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wish {
    /// A first attempt.
    Anew,
    /// A retry: the first answer, if the client cannot have read it.
    FirstIfUnread,
    /// An `Idempotency-Key`: the first answer.
    First,
}

impl Fingerprint {
    /// `key_id` is the caller's key.
    pub fn of(headers: &HeaderMap, key_id: &str, path: &str, body: &[u8]) -> Self {
        let idempotency_key = headers.get(IDEMPOTENCY_KEY).map(|key| key.as_bytes());
        let retries = headers.get(RETRY_COUNT).and_then(|count| count.to_str().ok()?.parse::<u32>().ok());
        let wish = match (idempotency_key, retries) {
            (Some(_), _) => Wish::First,
            (None, Some(1..)) => Wish::FirstIfUnread,
            (None, _) => Wish::Anew,
        };
        let mut hash = Sha256::new();
        for part in [key_id.as_bytes(), idempotency_key.unwrap_or_default(), path.as_bytes(), body] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self { hash: hex::encode(hash.finalize()), wish }
    }

    /// As it travels in the signal: with the time, as the log's readers know none.
    pub fn at(&self, now: Time) -> String {
        format!("{}@{}", self.hash, now.as_ms())
    }

    /// The fingerprint alone, as the name of what a POST made.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    pub fn is_first_attempt(&self) -> bool {
        self.wish == Wish::Anew
    }

    /// The ids of the events of the POST whose answer this one is to get.
    pub fn first<'a>(
        &self,
        posts: &'a [(String, Vec<String>)],
        now: Time,
        answered: &Answered,
    ) -> Option<&'a [String]> {
        let (ids, posted) = posts.iter().rev().find_map(|(fingerprint, ids)| {
            let (hash, ms) = fingerprint.split_once('@')?;
            (hash == self.hash).then_some((ids.as_slice(), Time::from_ms(ms.parse().ok()?)))
        })?;
        self.wants(ids.first()?, posted, now, answered).then_some(ids)
    }

    /// Whether this is to get the answer to the POST of the same fingerprint that made `id` at `posted`.
    pub fn wants(&self, id: &str, posted: Time, now: Time, answered: &Answered) -> bool {
        let wanted = match self.wish {
            Wish::Anew => false,
            Wish::FirstIfUnread => !answered.knows(id),
            Wish::First => true,
        };
        wanted && now.since(posted) <= MEMORY_MS
    }
}

/// Requests under way by fingerprint, so that a retry waits for what it repeats.
#[derive(Clone, Default)]
pub struct UnderWay {
    locks: Arc<Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>>,
}

impl UnderWay {
    pub async fn enter(&self, fingerprint: &Fingerprint) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.locks.lock();
            locks.retain(|_, lock| lock.strong_count() > 0);
            let known = locks.get(&fingerprint.hash).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let lock = Arc::default();
                locks.insert(fingerprint.hash.clone(), Arc::downgrade(&lock));
                lock
            })
        };
        lock.lock_owned().await
    }
}

/// What was made by POSTs whose answers were handed to the connection whole, by the first id in the answer.
#[derive(Clone, Default)]
pub struct Answered {
    ids: Arc<Mutex<VecDeque<String>>>,
}

impl Answered {
    fn knows(&self, id: &str) -> bool {
        self.ids.lock().iter().any(|known| known == id)
    }

    fn add(&self, id: String) {
        let mut ids = self.ids.lock();
        if ids.len() == ANSWERED_MAX {
            ids.pop_front();
        }
        ids.push_back(id);
    }

    /// An answer that is remembered once it was taken to its end.
    pub fn watch(&self, response: Response, id: String) -> Response {
        response.map(|body| Body::new(Watched { body, id: Some(id), answered: self.clone() }))
    }
}

struct Watched {
    body: Body,
    id: Option<String>,
    answered: Answered,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        // Whoever knows the length asks for no frame after the last.
        let is_last = matches!(frame, Poll::Ready(None)) || (frame.is_ready() && self.body.is_end_stream());
        if is_last && let Some(id) = self.id.take() {
            self.answered.add(id);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
