//! Identifiers: `<prefix>_01` and 22 characters of base 62, as the API writes them.
//!
//! Ids of what a decision or an activity makes are *derived* from where it was made, so that running
//! the same code again gives the same id. Random ids are made by the api, which has randomness.

use sha2::{Digest, Sha256};

/// Prefixes of the API and of our own resources.
pub mod prefix {
    pub const AGENT: &str = "agent";
    pub const ENVIRONMENT: &str = "env";
    pub const SESSION: &str = "sesn";
    pub const EVENT: &str = "sevt";
    pub const THREAD: &str = "sthr";
    pub const RESOURCE: &str = "sesrsc";
    pub const FILE: &str = "file";
    pub const HAND: &str = "hand";
    pub const REQUEST: &str = "req";
    pub const API_KEY: &str = "apikey";
    pub const WORKSPACE: &str = "wrkspc";
}

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const SUFFIX_LEN: usize = 22;

/// An id from 16 bytes of entropy (random, or a digest).
pub fn from_bytes(prefix: &str, bytes: [u8; 16]) -> String {
    let mut number = u128::from_be_bytes(bytes);
    let mut suffix = [b'0'; SUFFIX_LEN];
    for slot in suffix.iter_mut().rev() {
        *slot = ALPHABET[(number % 62) as usize];
        number /= 62;
    }
    let mut id = String::with_capacity(prefix.len() + 3 + SUFFIX_LEN);
    id.push_str(prefix);
    id.push_str("_01");
    id.extend(suffix.iter().map(|byte| *byte as char));
    id
}

/// The same id for the same parts, another for any others.
pub fn derive(prefix: &str, parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    hash.update(prefix.as_bytes());
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let digest = hash.finalize();
    from_bytes(prefix, digest[..16].try_into().expect("a sha-256 digest has 32 bytes"))
}

/// Event made inside decision `n` of a session.
pub fn decision_event(session_id: &str, n: u64, index: usize) -> String {
    derive(prefix::EVENT, &[session_id, "decision", &n.to_string(), &index.to_string()])
}

/// Event made by one attempt of an activity; also the preview id of its deltas.
pub fn activity_event(session_id: &str, activity_id: &str, attempt: u32, index: usize) -> String {
    derive(prefix::EVENT, &[session_id, activity_id, &attempt.to_string(), &index.to_string()])
}

/// The one thread of a single-agent session.
pub fn primary_thread(session_id: &str) -> String {
    derive(prefix::THREAD, &[session_id])
}

/// Lower-case hex of the sha-256 of some bytes: the name of a blob.
pub fn content_hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_ids_depend_on_every_part_and_its_borders() {
        let id = derive("sevt", &["a", "bc"]);
        assert_eq!(id, derive("sevt", &["a", "bc"]));
        assert_ne!(id, derive("sevt", &["ab", "c"]));
        assert_ne!(id[5..], derive("hand", &["a", "bc"])[5..]);
        assert!(id.starts_with("sevt_01"));
        assert_eq!(id.len(), "sevt_01".len() + SUFFIX_LEN);
    }

    #[test]
    fn the_largest_number_fits_the_suffix() {
        assert_eq!(from_bytes("x", [0xff; 16]).len(), 4 + SUFFIX_LEN);
    }
}
