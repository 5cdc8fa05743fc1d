//! Whether one version does worse than another, on the figures of their sessions.
//!
//! Both tests are one-sided: a version is only ever stopped for being worse. They are made at every look, so the error
//! probability of a whole rollout is larger than that of one look; the default is small for that reason.

use domain::rollout::{Figures, Moments, Watch};
use serde::{Deserialize, Serialize};

/// One comparison, as it stood at the last look.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    pub metric: Metric,
    /// A share of sessions for errors, else the mean of a turn.
    pub old: f64,
    pub new: f64,
    /// How probable so large a difference is if the new version is not worse; absent below the minimum sample.
    pub p: Option<f64>,
    pub is_worse: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    ErrorRate,
    Requests,
    Tokens,
    Cost,
    Latency,
}

impl std::fmt::Display for Metric {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Metric::ErrorRate => "error rate",
            Metric::Requests => "requests a turn",
            Metric::Tokens => "tokens a turn",
            Metric::Cost => "cost a turn",
            Metric::Latency => "time a turn",
        })
    }
}

/// Every comparison that the figures allow.
pub fn compare(old: &Figures, new: &Figures, watch: &Watch) -> Vec<Verdict> {
    let enough = old.sessions >= watch.sessions_min && new.sessions >= watch.sessions_min;
    let share =
        |figures: &Figures| if figures.sessions == 0 { 0.0 } else { figures.failed as f64 / figures.sessions as f64 };
    let p = enough.then(|| more_failures((old.failed, old.sessions), (new.failed, new.sessions)));
    let mut verdicts = vec![Verdict {
        metric: Metric::ErrorRate,
        old: share(old),
        new: share(new),
        p,
        is_worse: p.is_some_and(|p| p <= watch.alpha),
    }];
    let means = [
        (Metric::Requests, Some(old.requests), Some(new.requests)),
        (Metric::Tokens, Some(old.tokens), Some(new.tokens)),
        (Metric::Cost, old.cost, new.cost),
        (Metric::Latency, Some(old.active_ms), Some(new.active_ms)),
    ];
    for (metric, old, new) in means {
        let (Some(old), Some(new)) = (old, new) else { continue };
        let p = enough.then(|| larger_mean(&old, &new, watch.tolerance));
        let is_worse = p.is_some_and(|p| p <= watch.alpha);
        verdicts.push(Verdict { metric, old: old.mean(), new: new.mean(), p, is_worse });
    }
    verdicts
}

/// Fisher's exact test of two proportions: the probability of at least this many failures among the new ones, given how
/// many there are in all.
pub fn more_failures((failed_old, old): (u64, u64), (failed_new, new): (u64, u64)) -> f64 {
    let (all, failed) = (old + new, failed_old + failed_new);
    let logs = LogFactorials::up_to(all);
    let whole = logs.choose(all, failed);
    let most = failed.min(new);
    let tail = (failed_new..=most).map(|k| match failed - k <= old {
        true => (logs.choose(new, k) + logs.choose(old, failed - k) - whole).exp(),
        false => 0.0,
    });
    tail.sum::<f64>().min(1.0)
}

/// Welch's test of two means, in its normal approximation: the probability of so large a mean if the new one is at most
/// `1 + tolerance` times the old one.
pub fn larger_mean(old: &Moments, new: &Moments, tolerance: f64) -> f64 {
    let allowed = 1.0 + tolerance;
    let difference = new.mean() - allowed * old.mean();
    let (n_old, n_new) = (old.n.max(1) as f64, new.n.max(1) as f64);
    let error = (allowed * allowed * old.variance() / n_old + new.variance() / n_new).sqrt();
    if error == 0.0 {
        // Every session is like every other: the difference is what it is.
        return if difference > 0.0 { 0.0 } else { 1.0 };
    }
    upper_tail(difference / error)
}

/// The normal distribution's tail above `z` (Abramowitz and Stegun 26.2.17, to 7.5e-8).
fn upper_tail(z: f64) -> f64 {
    if z < 0.0 {
        return 1.0 - upper_tail(-z);
    }
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let density = (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
    let polynomial = [1.330_274_429, -1.821_255_978, 1.781_477_937, -0.356_563_782, 0.319_381_530];
    density * polynomial.iter().fold(0.0, |sum, factor| (sum + factor) * t)
}

struct LogFactorials(Vec<f64>);

impl LogFactorials {
    fn up_to(n: u64) -> Self {
        let mut logs = vec![0.0];
        for k in 1..=n {
            logs.push(logs[k as usize - 1] + (k as f64).ln());
        }
        LogFactorials(logs)
    }

    fn choose(&self, n: u64, k: u64) -> f64 {
        self.0[n as usize] - self.0[k as usize] - self.0[(n - k) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
    }

    /// Fisher's own example: a lady, eight cups of tea.
    #[test]
    fn few_failures_are_counted_exactly() {
        close(more_failures((0, 4), (4, 4)), 1.0 / 70.0);
        close(more_failures((1, 4), (3, 4)), 17.0 / 70.0);
        close(more_failures((0, 20), (0, 20)), 1.0);
        close(more_failures((5, 20), (0, 20)), 1.0);
        assert!(more_failures((0, 20), (6, 20)) > 0.01, "six of twenty against none may still be chance");
        assert!(more_failures((10, 1000), (30, 1000)) < 0.01);
    }

    #[test]
    fn the_tail_is_the_tabulated_one() {
        for (z, p) in [(0.0, 0.5), (1.0, 0.158_655_254), (1.959_964, 0.025), (3.090_232, 0.001), (-1.0, 0.841_344_746)]
        {
            close(upper_tail(z), p);
        }
    }

    fn moments(values: &[f64]) -> Moments {
        let mut moments = Moments::default();
        values.iter().for_each(|value| moments.add(*value));
        moments
    }

    #[test]
    fn a_mean_may_rise_as_far_as_is_tolerated() {
        let old: Vec<f64> = (0..100).map(|n| 100.0 + f64::from(n % 10)).collect();
        let by = |factor: f64| moments(&old.iter().map(|value| value * factor).collect::<Vec<_>>());
        let old = by(1.0);
        assert!(larger_mean(&old, &by(1.0), 0.25) > 0.99);
        assert!(larger_mean(&old, &by(1.2), 0.25) > 0.99);
        assert!(larger_mean(&old, &by(1.2), 0.0) < 1e-6);
        assert!(larger_mean(&old, &by(1.5), 0.25) < 1e-6);
        close(larger_mean(&moments(&[5.0, 5.0]), &moments(&[5.0, 5.0]), 0.0), 1.0);
        close(larger_mean(&moments(&[5.0, 5.0]), &moments(&[9.0, 9.0]), 0.0), 0.0);
    }

    #[test]
    fn nothing_is_said_below_the_minimum_sample() {
        let watch = Watch { sessions_min: 20, stage_ms: 0, alpha: 0.01, tolerance: 0.25, price: None };
        let few = Figures { sessions: 19, failed: 19, ..Figures::default() };
        let many = Figures { sessions: 100, ..Figures::default() };
        assert!(compare(&many, &few, &watch).iter().all(|verdict| verdict.p.is_none() && !verdict.is_worse));
        let enough = Figures { sessions: 20, failed: 19, ..Figures::default() };
        let verdicts = compare(&many, &enough, &watch);
        assert!(verdicts[0].is_worse, "{verdicts:?}");
        assert_eq!(verdicts.len(), 4, "cost is left out where nobody knows prices");
    }
}
