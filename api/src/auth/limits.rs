//! How often an organization may call, a minute: calls that make something, and calls that look. Off unless the service
//! was started with limits.
//!
//! Two buckets an organization, which fill evenly. They are this process's own: behind several apis each counts alone.

use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use crate::error::{ApiError, Kind, Result};
use crate::time;

/// Calls a minute; none where there is no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rates {
    /// Calls that make an agent, an environment, a session and so on.
    pub creates: Option<u32>,
    /// Every GET.
    pub reads: Option<u32>,
}

#[derive(Clone, Default)]
pub struct Limits {
    rates: Rates,
    buckets: Arc<Mutex<HashMap<(String, Call), Bucket>>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Call {
    Create,
    Read,
}

struct Bucket {
    /// What is left, in calls.
    level: f64,
    at: Timestamp,
}

/// Where an organization stands after a call, if such calls are limited.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Counted(Option<Standing>);

#[derive(Clone, Copy, PartialEq, Debug)]
struct Standing {
    limit: u32,
    remaining: u32,
    /// When all of it is there again.
    reset: Timestamp,
}

impl Limits {
    pub fn new(rates: Rates) -> Self {
        Self { rates, buckets: Arc::default() }
    }

    /// Counts a call, or refuses it; in either case it is told where the organization stands. `path` is that of the route.
    pub fn take(&self, organization_id: &str, method: &Method, path: &str, now: Timestamp) -> (Counted, Result<()>) {
        let (call, rate) = match Call::of(method, path) {
            Some(Call::Create) => (Call::Create, self.rates.creates),
            Some(Call::Read) => (Call::Read, self.rates.reads),
            None => return (Counted(None), Ok(())),
        };
        let Some(limit) = rate else { return (Counted(None), Ok(())) };
        let (full, each) = (f64::from(limit), 60.0 / f64::from(limit));
        let mut buckets = self.buckets.lock();
        let bucket = buckets.entry((organization_id.to_owned(), call)).or_insert(Bucket { level: full, at: now });
        let passed = now.duration_since(bucket.at).as_secs_f64().max(0.0);
        bucket.level = (bucket.level + passed / each).min(full);
        bucket.at = now;
        let is_there = bucket.level >= 1.0;
        if is_there {
            bucket.level -= 1.0;
        }
        let reset = now + SignedDuration::from_secs_f64((full - bucket.level) * each);
        let counted = Counted(Some(Standing { limit, remaining: bucket.level as u32, reset }));
        if is_there {
            return (counted, Ok(()));
        }
        let wait_s = ((1.0 - bucket.level) * each).ceil() as u64;
        let what = if call == Call::Create { "creating" } else { "reading" };
        let error =
            ApiError::new(Kind::RateLimit, format!("{what}: at most {limit} calls a minute for an organization"));
        (counted, Err(error.retry_after_s(wait_s.max(1))))
    }
}

impl Call {
    /// A POST on a collection makes something; workers that poll are not readers.
    fn of(method: &Method, path: &str) -> Option<Self> {
        match *method {
            Method::GET if !path.ends_with("/work/poll") => Some(Call::Read),
            Method::POST if !path.ends_with('}') && path.split('/').count() == 3 => Some(Call::Create),
            _ => None,
        }
    }
}

impl Counted {
    /// The documented headers.
    pub fn show(self, headers: &mut HeaderMap) {
        let Some(Standing { limit, remaining, reset }) = self.0 else { return };
        let reset = HeaderValue::from_str(&time::text(reset)).expect("a time is plain ascii");
        for (name, value) in [
            ("anthropic-ratelimit-requests-limit", limit.into()),
            ("anthropic-ratelimit-requests-remaining", remaining.into()),
            ("anthropic-ratelimit-requests-reset", reset),
        ] {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_and_fills_evenly() {
        let limits = Limits::new(Rates { creates: Some(3), reads: None });
        let start = Timestamp::UNIX_EPOCH;
        let create = |seconds: i64| {
            let now = start + SignedDuration::from_secs(seconds);
            limits.take("org_1", &Method::POST, "/v1/agents", now).1.is_ok()
        };
        // 20 seconds for each.
        let schedule = [(0, true), (0, true), (0, true), (0, false), (19, false), (20, true), (21, false), (600, true)];
        for (seconds, expected) in schedule {
            assert_eq!(create(seconds), expected, "{seconds}");
        }
        assert!(limits.take("org_2", &Method::POST, "/v1/agents", start).1.is_ok());
    }

    #[test]
    fn what_is_refused_says_when_to_come_again() {
        let limits = Limits::new(Rates { creates: Some(2), reads: Some(1) });
        let now = Timestamp::UNIX_EPOCH;
        let mut headers = HeaderMap::new();
        limits.take("org_1", &Method::GET, "/v1/agents", now).0.show(&mut headers);
        assert_eq!(headers["anthropic-ratelimit-requests-limit"], "1");
        assert_eq!(headers["anthropic-ratelimit-requests-remaining"], "0");
        assert_eq!(headers["anthropic-ratelimit-requests-reset"], "1970-01-01T00:01:00.000Z");
        let refused = limits.take("org_1", &Method::GET, "/v1/agents", now).1.unwrap_err();
        assert_eq!(refused.kind(), Kind::RateLimit);
    }

    #[test]
    fn only_making_and_looking_count() {
        for (method, path, expected) in [
            (Method::POST, "/v1/sessions", Some(Call::Create)),
            (Method::POST, "/v1/sessions/{session_id}", None),
            (Method::POST, "/v1/sessions/{session_id}/events", None),
            (Method::GET, "/v1/sessions/{session_id}/events", Some(Call::Read)),
            (Method::GET, "/v1/environments/{environment_id}/work/poll", None),
            (Method::DELETE, "/v1/sessions/{session_id}", None),
        ] {
            assert_eq!(Call::of(&method, path), expected, "{method} {path}");
        }
    }
}
