//! The metadata map that most resources carry, and its rules.

use std::collections::BTreeMap;

use crate::error::{ApiError, Result};

pub type Metadata = BTreeMap<String, String>;
/// A change of metadata: a value sets its key, none deletes it.
pub type MetadataPatch = BTreeMap<String, Option<String>>;

pub const PAIRS_MAX: usize = 16;
pub const KEY_CHARS_MAX: usize = 64;
pub const VALUE_CHARS_MAX: usize = 512;

/// Everything that is wrong with it.
pub fn problems(metadata: &Metadata) -> Vec<String> {
    let mut problems = Vec::new();
    if metadata.len() > PAIRS_MAX {
        problems.push(format!("{} pairs, at most {PAIRS_MAX} are allowed", metadata.len()));
    }
    for (key, value) in metadata {
        let (key_chars, value_chars) = (key.chars().count(), value.chars().count());
        if key_chars == 0 || key_chars > KEY_CHARS_MAX {
            problems.push(format!("a key of {key_chars} characters, 1 to {KEY_CHARS_MAX} are allowed"));
        }
        if value_chars > VALUE_CHARS_MAX {
            problems.push(format!("a value of {value_chars} characters, at most {VALUE_CHARS_MAX} are allowed"));
        }
    }
    problems
}

pub fn check(metadata: Metadata) -> Result<Metadata> {
    match problems(&metadata) {
        problems if problems.is_empty() => Ok(metadata),
        problems => Err(ApiError::field("metadata", problems.join("; "))),
    }
}

pub fn patched(mut metadata: Metadata, patch: MetadataPatch) -> Metadata {
    for (key, value) in patch {
        match value {
            Some(value) => metadata.insert(key, value),
            None => metadata.remove(&key),
        };
    }
    metadata
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_count_characters() {
        let pair = |key: &str, value: &str| Metadata::from([(key.to_owned(), value.to_owned())]);
        let many = |pairs: usize| (0..pairs).map(|n| (n.to_string(), String::new())).collect::<Metadata>();
        for (metadata, sound) in [
            (Metadata::new(), true),
            (many(16), true),
            (many(17), false),
            (pair(&"ä".repeat(64), ""), true),
            (pair(&"k".repeat(65), ""), false),
            (pair("", "x"), false),
            (pair("k", &"ä".repeat(512)), true),
            (pair("k", &"v".repeat(513)), false),
        ] {
            assert_eq!(check(metadata.clone()).is_ok(), sound, "{metadata:?}");
        }
    }

    #[test]
    fn a_patch_merges_by_key() {
        let of = |pairs: &[(&str, &str)]| -> Metadata {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let patch = [("a".to_owned(), None), ("b".to_owned(), Some("2".to_owned())), ("x".to_owned(), None)];
        let merged = patched(of(&[("a", "1"), ("b", "1"), ("c", "1")]), patch.into());
        assert_eq!(merged, of(&[("b", "2"), ("c", "1")]));
    }
}
