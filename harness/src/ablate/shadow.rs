//! What a shim is worth where a model was really asked: recorded sessions gone through again with it and without it
//! ([`crate::whatif`]), and how both ended, session by session.
//!
//! The sessions are pairs, so they are compared as pairs: what differs between sessions does not count. An outcome is how turns
//! ended and, where that was said, what was expected of their last message: not how good the work was.

use super::{interval, wilson};
use crate::whatif::{End, Report, Sum, cost};
use domain::rollout::{Moments, Price};
use serde::Serialize;

/// One shim, over some sessions.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Shadow {
    /// Gone through to their end with the shim and without it.
    pub sessions: u64,
    /// Of these, where anything was decided or sent otherwise.
    pub changed: u64,
    /// Of these, where turns ended well with it and not without it, and the other way round.
    pub worse: u64,
    pub better: u64,
    /// Where at least one side came to something that neither the record nor the model could answer.
    pub unfinished: u64,
    /// Without it, more than with it: of a session.
    pub requests: Moments,
    pub tokens: Moments,
    pub cost: Option<Moments>,
}

/// What may be said of a shim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Worth {
    /// Sessions end worse without it, more often than chance explains.
    Needed,
    /// No session ends worse without it, and none of the figures is significantly higher; one session alone says that only if
    /// nothing in it was decided or sent otherwise.
    DeadWeight,
    /// Sessions end as well without it, but take more requests or tokens.
    Saves,
    /// Sessions end better without it, more often than chance explains.
    Harms,
    /// There were too few sessions to say.
    Unclear,
    /// There was none.
    Unknown,
}

/// Largest probability of so one-sided an outcome by chance.
const ALPHA: f64 = 0.05;

impl Shadow {
    /// Takes in one session: gone through with the shim, and without it.
    pub fn add(&mut self, with: &Report, without: &Report, price: Option<&Price>) {
        if with.end != (End::Complete {}) || without.end != (End::Complete {}) {
            self.unfinished += 1;
            return;
        }
        let (with_all, without_all) = (with.totals(), without.totals());
        let (one, other) = (with_all.all, without_all.all);
        self.sessions += 1;
        let steps = |report: &Report| (report.first_step.clone(), report.first_request.clone(), report.same_steps);
        self.changed += u64::from(steps(with) != steps(without));
        match (with_all.is_good, without_all.is_good) {
            (true, false) => self.worse += 1,
            (false, true) => self.better += 1,
            _ => {}
        }
        let more = |of: fn(&Sum) -> u64| of(&other) as f64 - of(&one) as f64;
        self.requests.add(more(|sum| sum.requests));
        self.tokens.add(more(|sum| sum.usage.context_tokens() + sum.usage.output_tokens));
        if let Some(price) = price {
            self.cost.get_or_insert_default().add(cost(&other.usage, price) - cost(&one.usage, price));
        }
    }

    pub fn worth(&self) -> Worth {
        let by_chance = |count: u64| sign_test(count, self.worse + self.better) > ALPHA;
        let rises = |moments: &Moments| interval(moments).is_some_and(|(low, _)| low > 0.0);
        match (self.sessions, self.worse, self.better) {
            (0, ..) => Worth::Unknown,
            (_, worse, better) if worse > better && !by_chance(worse) => Worth::Needed,
            (_, worse, better) if better > worse && !by_chance(better) => Worth::Harms,
            (_, 0, _) if rises(&self.requests) || rises(&self.tokens) => Worth::Saves,
            (1, 0, _) if self.changed > 0 => Worth::Unclear,
            (_, 0, _) => Worth::DeadWeight,
            _ => Worth::Unclear,
        }
    }

    /// Between which shares of all such sessions end worse without it, with 95 percent confidence.
    pub fn share_worse(&self) -> (f64, f64) {
        wilson(self.worse, self.sessions)
    }
}

/// How probable it is that at least `count` of `of` fair coins fall on one side.
fn sign_test(count: u64, of: u64) -> f64 {
    let mut ways = 1.0_f64;
    let mut tail = 0.0;
    for k in 0..=of {
        if k >= count {
            tail += ways;
        }
        ways = ways * (of - k) as f64 / (k + 1) as f64;
    }
    tail / 2.0_f64.powi(i32::try_from(of).unwrap_or(i32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::whatif::{Answered, Pair};
    use domain::{Usage, agent::HarnessRef, agent::StrategyRef};

    fn report(requests: u64, as_expected: bool, same_steps: u64) -> Report {
        let sum = Sum {
            turn: 1,
            requests,
            usage: Usage { input_tokens: 100 * requests, ..Usage::default() },
            ended: Some("end_turn".into()),
            as_expected: Some(as_expected),
            ..Sum::default()
        };
        Report {
            session_id: "sesn_1".into(),
            turn: 1,
            position: 0,
            harness: HarnessRef { name: "loop".into(), version: 2, sha256: String::new() },
            model: "model".into(),
            strategy: StrategyRef { name: "full".into(), version: 1, params: serde_json::Value::Null },
            strategies: Vec::new(),
            shims_off: Vec::new(),
            turns: vec![Pair { turn: 1, recorded: sum.clone(), tried: Some(sum) }],
            totals: None,
            same_steps,
            first_step: None,
            first_request: None,
            answered: Answered::default(),
            end: End::Complete {},
            left_out: 0,
            left: None,
        }
    }

    fn worth(pairs: &[(Report, Report)]) -> (Worth, Shadow) {
        let mut shadow = Shadow::default();
        let price = Price { input: 10.0, output: 0.0, cache_read: 0.0, cache_write: 0.0 };
        pairs.iter().for_each(|(with, without)| shadow.add(with, without, Some(&price)));
        (shadow.worth(), shadow)
    }

    #[test]
    fn a_shim_is_worth_what_sessions_show() {
        let many = |count: usize, with: &Report, without: &Report| vec![(with.clone(), without.clone()); count];
        let (good, bad, dear) = (report(3, true, 9), report(2, false, 4), report(5, true, 4));
        for (pairs, expected) in [
            (Vec::new(), Worth::Unknown),
            (many(8, &good, &good), Worth::DeadWeight),
            (many(1, &good, &good), Worth::DeadWeight),
            // One session has no spread: nobody knows what others would come to.
            (many(1, &good, &dear), Worth::Unclear),
            (many(1, &dear, &good), Worth::Unclear),
            (many(2, &good, &dear), Worth::Saves),
            (many(8, &good, &bad), Worth::Needed),
            (many(8, &bad, &good), Worth::Harms),
            (many(8, &good, &dear), Worth::Saves),
            // By chance in one of sixteen cases.
            (many(4, &good, &bad), Worth::Unclear),
            (many(5, &good, &bad), Worth::Needed),
        ] {
            assert_eq!(worth(&pairs).0, expected, "{} sessions", pairs.len());
        }
        let (_, shadow) = worth(&many(8, &good, &dear));
        assert_eq!((shadow.sessions, shadow.changed, shadow.worse), (8, 8, 0));
        assert_eq!((shadow.requests.mean(), shadow.tokens.mean()), (2.0, 200.0));
        assert!((shadow.cost.expect("prices are known").mean() - 0.002).abs() < 1e-9);
        let (low, high) = shadow.share_worse();
        assert!(low == 0.0 && (0.3..0.35).contains(&high), "eight sessions say little: {high}");
    }

    #[test]
    fn what_did_not_come_to_its_end_is_no_outcome() {
        let stopped = Report { end: End::Call { turn: 1, round: 2, name: "bash".into() }, ..report(1, false, 2) };
        let (worth, shadow) = worth(&[(report(3, true, 9), stopped)]);
        assert_eq!((worth, shadow.sessions, shadow.unfinished), (Worth::Unknown, 0, 1));
    }

    #[test]
    fn coins_are_counted() {
        for (count, of, expected) in [(0, 0, 1.0), (4, 4, 0.0625), (5, 5, 0.03125), (4, 5, 0.1875), (0, 9, 1.0)] {
            assert!((sign_test(count, of) - expected).abs() < 1e-12, "{count} of {of}");
        }
    }
}
