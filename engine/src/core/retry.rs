//! Whether, and when, something that failed is tried again. Shared by activities and workflows; knows neither.

use crate::pb::common::v1::RetryPolicy;
use crate::pb::enums::v1::{RetryState, TimeoutType};
use crate::pb::failure::v1::Failure;
use crate::pb::failure::v1::failure::FailureInfo;
use crate::time::{Time, duration, nanos};

const SECOND: i64 = 1_000_000_000;
/// What Temporal fills in for a policy's missing maximum interval: this many initial intervals.
const MAXIMUM_INTERVALS: i64 = 100;

/// The policy with what was left out filled in.
pub fn with_defaults(policy: Option<&RetryPolicy>) -> RetryPolicy {
    let mut policy = policy.cloned().unwrap_or_default();
    if nanos(policy.initial_interval.as_ref()) == 0 {
        policy.initial_interval = duration(SECOND);
    }
    if policy.backoff_coefficient == 0.0 {
        policy.backoff_coefficient = 2.0;
    }
    if nanos(policy.maximum_interval.as_ref()) == 0 {
        let initial = nanos(policy.initial_interval.as_ref());
        policy.maximum_interval = duration(initial.saturating_mul(MAXIMUM_INTERVALS));
    }
    policy
}

/// What is wrong with a policy, if anything.
pub fn invalid(policy: &RetryPolicy) -> Option<&'static str> {
    let negative = |d: &Option<prost_wkt_types::Duration>| d.as_ref().is_some_and(|d| d.seconds < 0 || d.nanos < 0);
    if policy.maximum_attempts == 1 {
        return None; // one attempt never retries: the rest is not looked at
    }
    if negative(&policy.initial_interval) {
        return Some("InitialInterval cannot be negative on retry policy.");
    }
    if policy.backoff_coefficient < 1.0 && policy.backoff_coefficient != 0.0 {
        return Some("BackoffCoefficient cannot be less than 1 on retry policy.");
    }
    if negative(&policy.maximum_interval) {
        return Some("MaximumInterval cannot be negative on retry policy.");
    }
    let (initial, maximum) = (nanos(policy.initial_interval.as_ref()), nanos(policy.maximum_interval.as_ref()));
    if maximum != 0 && maximum < initial {
        return Some("MaximumInterval cannot be less than InitialInterval on retry policy.");
    }
    (policy.maximum_attempts < 0).then_some("MaximumAttempts cannot be negative on retry policy.")
}

/// What became of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Try again after this many nanoseconds.
    Retry(i64),
    Stop(RetryState),
}

/// Decides over `failure` of attempt `attempt` (from 1). `expires_at` bounds when the next attempt may begin.
pub fn decide(policy: &RetryPolicy, attempt: i32, failure: &Failure, now: Time, expires_at: Time) -> Verdict {
    if !is_retryable(failure, &policy.non_retryable_error_types) {
        return Verdict::Stop(RetryState::NonRetryableFailure);
    }
    if policy.maximum_attempts > 0 && attempt >= policy.maximum_attempts {
        return Verdict::Stop(RetryState::MaximumAttemptsReached);
    }
    let wait = requested_delay(failure).unwrap_or_else(|| backoff(policy, attempt));
    if expires_at.is_set() && now.plus(wait) > expires_at {
        return Verdict::Stop(RetryState::Timeout);
    }
    Verdict::Retry(wait)
}

fn backoff(policy: &RetryPolicy, attempt: i32) -> i64 {
    let initial = nanos(policy.initial_interval.as_ref()) as f64;
    let maximum = nanos(policy.maximum_interval.as_ref());
    let wait = initial * policy.backoff_coefficient.powi(attempt - 1);
    if wait.is_finite() && wait < maximum as f64 { wait as i64 } else { maximum }
}

/// A delay that the failure itself asks for overrides the policy and its maximum.
fn requested_delay(failure: &Failure) -> Option<i64> {
    match &failure.failure_info {
        Some(FailureInfo::ApplicationFailureInfo(info)) => info.next_retry_delay.as_ref().map(|d| nanos(Some(d))),
        _ => None,
    }
}

fn is_retryable(failure: &Failure, non_retryable_types: &[String]) -> bool {
    let listed = |name: &str| non_retryable_types.iter().any(|listed| listed == name);
    match &failure.failure_info {
        Some(FailureInfo::TerminatedFailureInfo(_) | FailureInfo::CanceledFailureInfo(_)) => false,
        Some(FailureInfo::TimeoutFailureInfo(info)) => match info.timeout_type() {
            kind @ (TimeoutType::StartToClose | TimeoutType::Heartbeat) => {
                !listed(&format!("TemporalTimeout:{}", name(kind)))
            }
            _ => false,
        },
        Some(FailureInfo::ServerFailureInfo(info)) => !info.non_retryable,
        Some(FailureInfo::ApplicationFailureInfo(info)) => !info.non_retryable && !listed(&info.r#type),
        _ => true,
    }
}

/// The name of a timeout as it stands in messages and in policies.
pub fn name(kind: TimeoutType) -> &'static str {
    match kind {
        TimeoutType::Unspecified => "Unspecified",
        TimeoutType::StartToClose => "StartToClose",
        TimeoutType::ScheduleToStart => "ScheduleToStart",
        TimeoutType::ScheduleToClose => "ScheduleToClose",
        TimeoutType::Heartbeat => "Heartbeat",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::failure::v1::{ApplicationFailureInfo, CanceledFailureInfo, TimeoutFailureInfo};

    fn application(kind: &str, non_retryable: bool, delay_s: Option<i64>) -> Failure {
        let info = ApplicationFailureInfo {
            r#type: kind.into(),
            non_retryable,
            next_retry_delay: delay_s.and_then(|s| duration(s * SECOND)),
            ..Default::default()
        };
        Failure { failure_info: Some(FailureInfo::ApplicationFailureInfo(info)), ..Default::default() }
    }

    fn timeout(kind: TimeoutType) -> Failure {
        let info = TimeoutFailureInfo { timeout_type: kind as i32, ..Default::default() };
        Failure { failure_info: Some(FailureInfo::TimeoutFailureInfo(info)), ..Default::default() }
    }

    #[test]
    fn rule_12_the_retry_decision() {
        let canceled = Failure {
            failure_info: Some(FailureInfo::CanceledFailureInfo(CanceledFailureInfo::default())),
            ..Default::default()
        };
        let plain = with_defaults(None);
        let strict = with_defaults(Some(&RetryPolicy {
            non_retryable_error_types: vec!["Fatal".into(), "TemporalTimeout:StartToClose".into()],
            maximum_attempts: 3,
            ..Default::default()
        }));
        let now = Time(1_000 * SECOND);
        let never = Time::UNSET;
        let soon = now.plus(3 * SECOND);
        let ok = application("Oops", false, None);
        let table = [
            ("first backoff is the initial interval", &plain, 1, ok.clone(), never, Verdict::Retry(SECOND)),
            ("backoff doubles", &plain, 4, ok.clone(), never, Verdict::Retry(8 * SECOND)),
            ("backoff is capped at 100 initial", &plain, 40, ok.clone(), never, Verdict::Retry(100 * SECOND)),
            ("no overflow", &plain, i32::MAX, ok.clone(), never, Verdict::Retry(100 * SECOND)),
            ("fits before expiry", &plain, 2, ok.clone(), soon, Verdict::Retry(2 * SECOND)),
            ("does not fit", &plain, 3, ok.clone(), soon, Verdict::Stop(RetryState::Timeout)),
            ("attempts left", &strict, 2, ok.clone(), never, Verdict::Retry(2 * SECOND)),
            ("attempts spent", &strict, 3, ok, never, Verdict::Stop(RetryState::MaximumAttemptsReached)),
            (
                "type listed",
                &strict,
                1,
                application("Fatal", false, None),
                never,
                Verdict::Stop(RetryState::NonRetryableFailure),
            ),
            (
                "said so itself",
                &plain,
                1,
                application("Oops", true, None),
                never,
                Verdict::Stop(RetryState::NonRetryableFailure),
            ),
            (
                "own delay beats policy and maximum",
                &plain,
                1,
                application("Oops", false, Some(500)),
                never,
                Verdict::Retry(500 * SECOND),
            ),
            ("start-to-close is retried", &plain, 1, timeout(TimeoutType::StartToClose), never, Verdict::Retry(SECOND)),
            (
                "unless listed",
                &strict,
                1,
                timeout(TimeoutType::StartToClose),
                never,
                Verdict::Stop(RetryState::NonRetryableFailure),
            ),
            ("heartbeat is retried", &strict, 1, timeout(TimeoutType::Heartbeat), never, Verdict::Retry(SECOND)),
            ("cancellation is not", &plain, 1, canceled, never, Verdict::Stop(RetryState::NonRetryableFailure)),
        ];
        for (what, policy, attempt, failure, expires_at, expected) in table {
            assert_eq!(decide(policy, attempt, &failure, now, expires_at), expected, "{what}");
        }
    }

    #[test]
    fn a_policy_is_checked_as_the_server_checks_it() {
        let policy = |initial: i64, coefficient: f64, maximum: i64, attempts: i32| RetryPolicy {
            initial_interval: duration(initial),
            backoff_coefficient: coefficient,
            maximum_interval: duration(maximum),
            maximum_attempts: attempts,
            ..Default::default()
        };
        assert_eq!(invalid(&policy(1, 2.0, 10, 0)), None);
        assert_eq!(invalid(&policy(0, 0.0, 0, 0)), None);
        assert!(invalid(&policy(1, 0.5, 10, 0)).is_some());
        assert!(invalid(&policy(11, 2.0, 10, 0)).is_some());
        assert!(invalid(&policy(1, 2.0, 10, -1)).is_some());
        assert_eq!(invalid(&policy(11, 0.5, 10, 1)), None, "with one attempt the rest is not looked at");
    }
}
