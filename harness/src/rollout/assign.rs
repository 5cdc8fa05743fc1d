//! Which sessions get the new version: by their id alone, the same everywhere, and the same few first when the share grows.

/// Where an id stands between 0 and 100, by the formula of Temporal's worker ramps.
pub fn threshold(id: &str) -> f64 {
    let hash = farmhash::fingerprint32(id.as_bytes());
    100.0 * (f64::from(hash) / (f64::from(u32::MAX) + 1.0))
}

/// Whether an id is among the first `percent`.
pub fn is_among(id: &str, percent: u8) -> bool {
    match percent {
        0 => false,
        100.. => true,
        _ => threshold(id) <= f64::from(percent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Vectors of the tests of go-farm, which is what Temporal uses.
    #[test]
    fn the_hash_is_the_published_one() {
        for (text, hash) in [
            ("", 0xdc56_d17a),
            ("a", 0x3c97_3d4d),
            ("ab", 0x4173_30fd),
            ("abc", 0x2f63_5ec7),
            ("abcd", 0x98b5_1e95),
            ("abcdefghij", 0xf266_9361),
            ("hello world", 0x19a7_581a),
            ("size:  a.out:  bad magic", 0xc624_6b8d),
            ("Nepal premier won't resign.", 0x3229_84d9),
        ] {
            assert_eq!(farmhash::fingerprint32(text.as_bytes()), hash, "{text:?}");
        }
    }

    #[test]
    fn shares_are_as_large_as_they_say_and_grow_into_each_other() {
        let ids: Vec<String> = (0..10_000).map(|n| format!("sesn_01{n}")).collect();
        let count = |percent| ids.iter().filter(|id| is_among(id, percent)).count();
        assert_eq!((count(0), count(100)), (0, 10_000));
        for percent in [1, 10, 50, 90] {
            let (found, expected) = (count(percent), usize::from(percent) * 100);
            assert!(found.abs_diff(expected) < 150, "{percent} percent of 10,000 are {found}");
            assert!(ids.iter().all(|id| !is_among(id, percent) || is_among(id, percent + 1)));
        }
    }
}
