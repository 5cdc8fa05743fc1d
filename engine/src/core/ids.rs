//! Ids made inside a transition: a function of the run's seed and of how many it has made, so that the same inputs give
//! the same history. Run ids carry the time in front (UUID version 7), as SDKs expect.

use super::state::RunState;
use crate::time::Time;
use uuid::Uuid;

/// A new run id or another id that is visible to clients.
pub fn ordered(state: &mut RunState, now: Time) -> String {
    let [high, low] = draw(state);
    ordered_from(now, high, low)
}

/// A version 7 id of `now` and 128 given bits, of which 74 count.
pub fn ordered_from(now: Time, high: u64, low: u64) -> String {
    let mut random = [0; 10];
    random[..8].copy_from_slice(&high.to_be_bytes());
    random[8..].copy_from_slice(&low.to_be_bytes()[..2]);
    uuid::Builder::from_unix_timestamp_millis(now.millis().max(0) as u64, &random).into_uuid().to_string()
}

/// A request id: unique within the run.
pub fn request(state: &mut RunState) -> String {
    let [high, low] = draw(state);
    Uuid::from_u64_pair(high, low).to_string()
}

/// A seed for a run that comes out of this one.
pub fn seed(state: &mut RunState) -> u64 {
    draw(state)[0]
}

/// Ids of namespaces follow from their names: nothing needs to remember them.
pub fn namespace(name: &str) -> String {
    let (high, low) = name.bytes().fold((0x5bd1_e995, 0x1b87_3593), |(high, low): (u64, u64), byte| {
        (mix(high ^ u64::from(byte)), mix(low.wrapping_add(u64::from(byte))))
    });
    uuid::Builder::from_random_bytes(Uuid::from_u64_pair(high, low).into_bytes()).into_uuid().to_string()
}

fn draw(state: &mut RunState) -> [u64; 2] {
    state.ids_made += 1;
    let base = state.seed ^ state.ids_made.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    [mix(base), mix(base ^ 0xd1b5_4a32_d192_ed03)]
}

/// The finaliser of splitmix64: every input bit moves every output bit.
pub fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_ids_are_version_7_differ_and_repeat_from_the_same_seed() {
        let mut state = RunState { seed: 7, ..Default::default() };
        let now = Time(1_700_000_000_000_000_000);
        let (a, b) = (ordered(&mut state, now), ordered(&mut state, now));
        assert_ne!(a, b);
        assert_eq!(Uuid::parse_str(&a).unwrap().get_version_num(), 7);
        assert_eq!(ordered(&mut RunState { seed: 7, ..Default::default() }, now), a);
    }
}
