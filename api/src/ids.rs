//! Ids of what the api makes: a prefix that names the kind, and 24 base-62 characters that nobody can guess.
//!
//! Everyone else takes an id as an opaque string.

use rand::Rng;

const BASE_62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const SUFFIX_CHARS: usize = 24;
/// What every suffix starts with, as in the documented examples.
const SUFFIX_START: &str = "01";

pub const AGENT: &str = "agent";
pub const API_KEY: &str = "apikey";
/// A change of a session's attributes; clients never see it.
pub const CHANGE: &str = "change";
pub const CREDENTIAL: &str = "vcrd";
pub const ENVIRONMENT: &str = "env";
pub const EVENT: &str = "sevt";
pub const FILE: &str = "file";
pub const ORGANIZATION: &str = "org";
pub const REQUEST: &str = "req";
pub const RESOURCE: &str = "sesrsc";
/// A rollout of a harness, and an order to one.
pub const ROLLOUT: &str = "rollout";
pub const ROLLOUT_ORDER: &str = "order";
pub const SESSION: &str = "sesn";
/// A swap of a session's harness.
pub const SWAP: &str = "swap";
pub const TRANSFER: &str = "htfr";
/// Derived from its session's.
pub const THREAD: &str = domain::ids::prefix::THREAD;
/// A what-if, or several.
pub const TRIAL: &str = "trial";
pub const VAULT: &str = "vlt";
/// An item of an environment's work queue.
pub const WORK: &str = "work";
pub const WORKSPACE: &str = "wrkspc";

/// A new id, as in `agent_01hR...`. Its 22 random characters carry 131 bits.
pub fn new(prefix: &str) -> String {
    format!("{prefix}_{SUFFIX_START}{}", random(SUFFIX_CHARS - SUFFIX_START.len()))
}

/// Random base-62 characters, good enough for a secret.
pub fn random(chars: usize) -> String {
    let mut rng = rand::rng();
    (0..chars).map(|_| char::from(BASE_62[rng.random_range(0..BASE_62.len())])).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_have_their_shape_and_differ() {
        let ids: HashSet<String> = (0..1000).map(|_| new(AGENT)).collect();
        assert_eq!(ids.len(), 1000);
        for id in ids {
            let suffix = id.strip_prefix("agent_01").unwrap();
            assert!(suffix.len() == 22 && suffix.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{id}");
        }
    }
}
