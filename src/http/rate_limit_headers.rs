//! `RateLimit` and `RateLimit-Policy`: what is left of the quotas.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Response};

use super::{
    retry_after::seconds,
    structured::{push_parameter, push_string},
};
use crate::rate_limit::{Decision, Paid, Settle};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
pub(super) const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const OLD_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const OLD_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const OLD_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Tells clients what is left of their quotas, in the syntax of `draft-ietf-httpapi-ratelimit-headers-10`.
///
/// ```text
/// RateLimit-Policy: "burst";q=100;w=60, "daily";q=1000;w=86400
/// RateLimit: "burst";r=50;t=30, "daily";r=0;t=12
/// ```
///
/// | parameter | what it says |
/// |---|---|
/// | the string | the name of the limiter; what is no printable ASCII in it, as `%xx` |
/// | `q` and `w` | so many units come in so many seconds, rounded up |
/// | `r` | so many are left |
/// | `t` | while something is left: the seconds over which the quota gives so much; then: the seconds until there is more. Rounded up |
///
/// A client that spreads `r` over `t` keeps to the quota, as the draft asks of servers. Where nothing is left, a bucket
/// says exactly when it has more; a window of time may have to refuse a call that comes then, and that refusal says
/// when to come back.
///
/// The lines go behind those that are there, as lists may: limiters in a row each say theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimitHeaders {
    legacy: bool,
}

impl RateLimitHeaders {
    /// The two headers of the draft.
    #[must_use]
    pub const fn new() -> Self {
        Self { legacy: false }
    }

    /// Writes `X-RateLimit-Limit`, `-Remaining` and `-Reset` as well, for the quota of which the least is left. Defaults
    /// to the draft's alone.
    ///
    /// `Reset` is in seconds from now, as `t` is. Some clients take it for the time since 1970.
    #[must_use]
    pub const fn legacy(mut self) -> Self {
        self.legacy = true;
        self
    }

    /// Writes what the limiters said, such as [`RateLimitHandle::check`](crate::rate_limit::RateLimitHandle::check).
    /// Nothing, if there are none.
    pub fn write(&self, headers: &mut HeaderMap, decisions: &[Decision]) {
        let Some(tightest) = decisions.iter().min_by_key(|decision| decision.remaining) else { return };
        headers.append(POLICY, list(decisions, policy));
        headers.append(LIMIT, list(decisions, service_limit));
        if self.legacy && !is_tighter(headers, tightest.remaining) {
            headers.insert(OLD_LIMIT, tightest.limit.into());
            headers.insert(OLD_REMAINING, tightest.remaining.into());
            headers.insert(OLD_RESET, window(tightest).into());
        }
    }
}

impl<B, E> Settle<Response<B>, E> for RateLimitHeaders {
    fn settle(&self, result: &mut Result<Response<B>, E>, paid: &Paid<'_>) {
        if let (Ok(response), Some(decisions)) = (result, paid.decisions()) {
            self.write(response.headers_mut(), &decisions);
        }
    }
}

/// What a refusal says of the policy that refused: nothing is left, until then.
pub(super) fn nothing_left(policy: &str, until: Duration) -> HeaderValue {
    let mut field = String::new();
    push_string(&mut field, policy);
    push_parameter(&mut field, 'r', 0);
    push_parameter(&mut field, 't', seconds(until).max(1));
    value(field)
}

fn policy(field: &mut String, decision: &Decision) {
    push_parameter(field, 'q', decision.limit);
    push_parameter(field, 'w', seconds(decision.period).max(1));
}

fn service_limit(field: &mut String, decision: &Decision) {
    push_parameter(field, 'r', decision.remaining);
    push_parameter(field, 't', window(decision));
}

/// The seconds over which the quota gives what is left, or, if that is nothing, until there is more.
fn window(decision: &Decision) -> u64 {
    let wait = match decision.retry_after {
        Some(wait) => wait,
        None if decision.remaining > 0 => share(decision, decision.remaining),
        // All but one of what is missing come after the next.
        None => decision.reset_after.saturating_sub(share(decision, decision.limit.saturating_sub(1))),
    };
    seconds(wait).max(1)
}

/// How long so many of the limit's units take to come.
fn share(decision: &Decision, units: u64) -> Duration {
    let nanos = u64::try_from(decision.period.as_nanos()).unwrap_or(u64::MAX);
    let share = u128::from(nanos) * u128::from(units) / u128::from(decision.limit.max(1));
    Duration::from_nanos(u64::try_from(share).unwrap_or(u64::MAX))
}

/// Whether a layer inside has said that less is left.
fn is_tighter(headers: &HeaderMap, remaining: u64) -> bool {
    let there = headers.get(OLD_REMAINING).and_then(|value| value.to_str().ok()?.parse().ok());
    there.is_some_and(|there: u64| there <= remaining)
}

fn list(decisions: &[Decision], parameters: fn(&mut String, &Decision)) -> HeaderValue {
    let mut field = String::with_capacity(decisions.len() * 48);
    for decision in decisions {
        if !field.is_empty() {
            field.push_str(", ");
        }
        push_string(&mut field, decision.policy);
        parameters(&mut field, decision);
    }
    value(field)
}

fn value(field: String) -> HeaderValue {
    HeaderValue::try_from(field).expect("a structured field is printable ASCII")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rate_limit::{Quota, RateLimitHandle, RateLimitSettings};

    const MINUTE: Duration = Duration::from_secs(60);

    fn decision(policy: &'static str, limit: u64, period: Duration, remaining: u64) -> Decision {
        let reset_after = period.mul_f64((limit - remaining) as f64 / limit as f64);
        Decision { policy, limit, period, remaining, retry_after: None, reset_after, allowed: true }
    }

    fn written(headers: RateLimitHeaders, decisions: &[Decision]) -> Vec<(String, String)> {
        let mut map = HeaderMap::new();
        headers.write(&mut map, decisions);
        map.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
    }

    /// The two fields.
    fn fields(decisions: &[Decision]) -> [String; 2] {
        let [(policy, policies), (limit, limits)] =
            <[_; 2]>::try_from(written(RateLimitHeaders::new(), decisions)).unwrap();
        assert_eq!((&*policy, &*limit), ("ratelimit-policy", "ratelimit"));
        [policies, limits]
    }

    #[test]
    fn a_quota_and_what_is_left_of_it() {
        let rows = [
            (decision("burst", 100, MINUTE, 50), r#""burst";q=100;w=60"#, r#""burst";r=50;t=30"#),
            (decision("rested", 100, MINUTE, 100), r#""rested";q=100;w=60"#, r#""rested";r=100;t=60"#),
            (decision("fast", 5, MINUTE / 600, 3), r#""fast";q=5;w=1"#, r#""fast";r=3;t=1"#),
            (decision("up", 100, MINUTE + Duration::from_nanos(1), 99), r#""up";q=100;w=61"#, r#""up";r=99;t=60"#),
            (decision("one left", 60, MINUTE, 1), r#""one left";q=60;w=60"#, r#""one left";r=1;t=1"#),
            (decision("none left", 60, MINUTE, 0), r#""none left";q=60;w=60"#, r#""none left";r=0;t=1"#),
            (decision("a day", 24, 1440 * MINUTE, 0), r#""a day";q=24;w=86400"#, r#""a day";r=0;t=3600"#),
            (
                Decision {
                    retry_after: Some(MINUTE - Duration::from_nanos(1)),
                    allowed: false,
                    ..decision("no", 9, MINUTE, 2)
                },
                r#""no";q=9;w=60"#,
                r#""no";r=2;t=60"#,
            ),
            (
                decision("na\u{ef}ve \"x\"", 1, MINUTE, 1),
                r#""na%c3%afve \"x\"";q=1;w=60"#,
                r#""na%c3%afve \"x\"";r=1;t=60"#,
            ),
            (
                decision("huge", u64::MAX, Duration::MAX, u64::MAX),
                r#""huge";q=999999999999999;w=999999999999999"#,
                r#""huge";r=999999999999999;t=18446744074"#,
            ),
        ];
        for (decision, policy, limit) in rows {
            assert_eq!(fields(&[decision]), [policy, limit]);
        }
    }

    #[test]
    fn several_quotas_make_one_list_and_none_makes_no_header() {
        let both = [decision("second", 5, MINUTE / 60, 4), decision("day", 1000, 1440 * MINUTE, 10)];
        assert_eq!(
            fields(&both),
            [r#""second";q=5;w=1, "day";q=1000;w=86400"#, r#""second";r=4;t=1, "day";r=10;t=864"#]
        );
        assert_eq!(written(RateLimitHeaders::new().legacy(), &[]), []);
    }

    #[test]
    fn limiters_in_a_row_each_say_theirs() {
        let mut headers = HeaderMap::new();
        RateLimitHeaders::new().write(&mut headers, &[decision("inner", 5, MINUTE, 4)]);
        RateLimitHeaders::new().write(&mut headers, &[decision("outer", 9, MINUTE, 3)]);
        let lines: Vec<_> = headers.get_all(LIMIT).iter().collect();
        assert_eq!(lines, [r#""inner";r=4;t=48"#, r#""outer";r=3;t=20"#]);
        assert_eq!(headers.get_all(POLICY).iter().count(), 2);
    }

    #[test]
    fn the_old_headers_are_those_of_the_tightest_quota_whoever_writes_first() {
        let old = |headers: &HeaderMap| [&OLD_LIMIT, &OLD_REMAINING, &OLD_RESET].map(|name| headers[name].clone());
        let (few, many) = (decision("few", 60, MINUTE, 2), decision("many", 90, MINUTE, 80));
        for decisions in [[few, many], [many, few]] {
            let mut together = HeaderMap::new();
            RateLimitHeaders::new().legacy().write(&mut together, &decisions);
            assert_eq!(old(&together), ["60", "2", "2"]);
            let mut in_a_row = HeaderMap::new();
            for decision in decisions {
                RateLimitHeaders::new().legacy().write(&mut in_a_row, &[decision]);
            }
            assert_eq!(old(&in_a_row), ["60", "2", "2"]);
        }
        let mut without = HeaderMap::new();
        RateLimitHeaders::new().write(&mut without, &[few]);
        assert_eq!(without.len(), 2);
    }

    #[test]
    fn a_refusal_never_says_to_come_back_at_once() {
        assert_eq!(nothing_left("a", Duration::ZERO), r#""a";r=0;t=1"#);
        assert_eq!(nothing_left("a", Duration::from_millis(1001)), r#""a";r=0;t=2"#);
    }

    /// The bucket says when it has more to the nanosecond, and the header to the second.
    #[tokio::test(start_paused = true)]
    async fn who_comes_back_after_t_is_served() {
        for quota in [Quota::per_second(3), Quota::per_minute(7), Quota::per_minute(10).burst(30), Quota::per_day(1000)]
        {
            let limiter = RateLimitHandle::try_new(RateLimitSettings::token_bucket(quota)).unwrap();
            let last = loop {
                let decision = limiter.check(1);
                if decision.remaining == 0 {
                    break decision;
                }
            };
            assert!(last.allowed);
            let wait = window(&last);
            if wait > 1 {
                tokio::time::advance(Duration::from_secs(wait - 1) - Duration::from_millis(1)).await;
                assert!(!limiter.check(1).allowed, "{quota:?} has it before");
                tokio::time::advance(Duration::from_millis(1)).await;
            }
            tokio::time::advance(Duration::from_secs(1)).await;
            assert!(limiter.check(1).allowed, "{quota:?} {wait}");
        }
    }

    /// A quota of a second and a burst of a minute: the units and the time belong together.
    #[test]
    fn the_window_is_the_time_in_which_the_limit_comes() {
        let settings = RateLimitSettings::token_bucket(Quota::per_second(5).burst(300));
        let limiter = RateLimitHandle::try_new(settings).unwrap();
        assert_eq!(fields(&[limiter.peek()])[0], r#""rate_limit";q=300;w=60"#);
    }

    proptest! {
        #[test]
        fn r_over_t_is_never_more_than_q_over_the_period(
            limit in 1_u64..1 << 40,
            part in 0.0..=1.0_f64,
            nanos in 1_u64..1 << 62,
        ) {
            let remaining = ((limit as f64 * part) as u64).min(limit);
            let decision = decision("p", limit, Duration::from_nanos(nanos), remaining);
            let t = window(&decision);
            prop_assert!(t >= 1);
            let (r, q) = (u128::from(remaining), u128::from(limit));
            // Rounded up to seconds: at least as long as those units take.
            prop_assert!(u128::from(t) * 1_000_000_000 * q + q > r * u128::from(nanos));
        }

        #[test]
        fn any_decision_makes_valid_headers(
            limit in any::<u64>(), remaining in any::<u64>(), period in any::<Duration>(),
            reset_after in any::<Duration>(), retry_after in any::<Option<Duration>>(),
        ) {
            let decision = Decision { policy: "\u{0}\u{1f600}\"", limit, period, remaining, retry_after, reset_after, allowed: true };
            let [policies, limits] = fields(&[decision]);
            let digits = |text: &str, key: &str| {
                let value = text.split(key).nth(1).unwrap().split(';').next().unwrap().to_owned();
                value.len() <= 15 && value.bytes().all(|byte| byte.is_ascii_digit())
            };
            prop_assert!(digits(&policies, ";q=") && digits(&policies, ";w="));
            prop_assert!(digits(&limits, ";r=") && digits(&limits, ";t="));
            prop_assert!(!policies.ends_with(";w=0") && !limits.ends_with(";t=0"));
        }
    }
}
