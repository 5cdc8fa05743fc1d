//! A server that echoes what it was sent must not hand the secret back into the sandbox.

use super::{Body, BoxError};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use zeroize::Zeroizing;

pub type Secrets = Vec<Zeroizing<String>>;

/// Values that hold a secret become stars.
pub fn headers(headers: &mut HeaderMap, secrets: &Secrets) {
    for value in headers.values_mut() {
        let mut bytes = value.as_bytes().to_vec();
        if cover(&mut bytes, secrets) {
            *value = HeaderValue::from_bytes(&bytes).unwrap_or_else(|_| HeaderValue::from_static("[redacted]"));
        }
    }
}

/// The body with every secret covered, as many stars as it had bytes: lengths that were announced stay true.
pub fn body(body: Incoming, secrets: Secrets) -> Body {
    let state = (body, Covering::new(secrets));
    let frames = futures::stream::try_unfold(Some(state), |state| async {
        let Some((mut body, mut covering)) = state else { return Ok::<_, BoxError>(None) };
        while let Some(frame) = body.frame().await {
            // Trailers are not passed on: they may hold anything.
            let Ok(data) = frame?.into_data() else { continue };
            let ready = covering.push(&data);
            if !ready.is_empty() {
                return Ok(Some((Frame::data(ready), Some((body, covering)))));
            }
        }
        Ok(Some((Frame::data(covering.rest()), None)))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// Bytes as they come, held back as far as they may be the beginning of a secret.
struct Covering {
    secrets: Secrets,
    held: Vec<u8>,
    longest: usize,
}

impl Covering {
    fn new(secrets: Secrets) -> Self {
        let longest = secrets.iter().map(|secret| secret.len()).max().unwrap_or(0);
        Self { secrets, held: Vec::new(), longest }
    }

    fn push(&mut self, bytes: &[u8]) -> Bytes {
        self.held.extend_from_slice(bytes);
        cover(&mut self.held, &self.secrets);
        let ready = self.held.len() - self.unsure();
        self.held.drain(..ready).collect::<Vec<_>>().into()
    }

    /// How many of the last bytes may be the beginning of a secret. Nothing else waits for more to come.
    fn unsure(&self) -> usize {
        let begins = |end: &[u8]| self.secrets.iter().any(|secret| secret.as_bytes().starts_with(end));
        let most = self.longest.saturating_sub(1).min(self.held.len());
        (1..=most).rev().find(|count| begins(&self.held[self.held.len() - count..])).unwrap_or(0)
    }

    fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.held).into()
    }
}

fn cover(bytes: &mut [u8], secrets: &Secrets) -> bool {
    let mut found = false;
    for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
        let mut at = 0;
        while let Some(next) = bytes[at..].windows(secret.len()).position(|window| window == secret.as_bytes()) {
            bytes[at + next..at + next + secret.len()].fill(b'*');
            at += next + secret.len();
            found = true;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_covered_wherever_they_are_cut() {
        let text = b"before CANARY-1 and CANARY-22CANARY-1 after CANARY";
        let expect = b"before ******** and ***************** after CANARY";
        for size in 1..text.len() {
            let secrets = ["CANARY-1", "CANARY-22"].map(|secret| Zeroizing::new(secret.to_owned())).into();
            let mut covering = Covering::new(secrets);
            let mut said: Vec<u8> = text.chunks(size).flat_map(|piece| covering.push(piece).to_vec()).collect();
            said.extend_from_slice(&covering.rest());
            assert_eq!(String::from_utf8_lossy(&said), String::from_utf8_lossy(expect), "{size}");
        }
    }

    #[test]
    fn what_can_be_no_secret_is_not_held_back() {
        let mut covering = Covering::new(vec![Zeroizing::new("CANARY".to_owned())]);
        for (said, passed) in
            [("data: 1\n\n", "data: 1\n\n"), ("a CANA", "a "), ("L\n", "CANAL\n"), ("CANARY", "******")]
        {
            assert_eq!(covering.push(said.as_bytes()), passed);
        }
        assert!(covering.rest().is_empty());
    }
}
