//! `Retry-After`: when the dependency asked to be called again.

use std::{str, time::Duration};

use http::{HeaderMap, HeaderValue, header::RETRY_AFTER};

use super::digits::digits;
use crate::time::{self, WallTime};

/// The wait that `Retry-After` asks for: seconds, or a date. The first such header counts.
///
/// The server chooses the number, so cap it: seconds that do not fit become `u64::MAX` of them. A date in the past is a
/// wait of zero, and what is neither (`-1`, `1.5`, `soon`) is `None`. Dates are compared with the wall clock, which
/// tokio's paused time moves as well.
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    parse(headers.get(RETRY_AFTER)?.as_bytes(), time::wall())
}

/// A value for `Retry-After`. Rounds up, so that nobody comes back too early.
#[must_use]
pub fn retry_after_header(wait: Duration) -> HeaderValue {
    seconds(wait).into()
}

/// Whole seconds, rounded up.
pub(super) fn seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0))
}

/// The wait that this value asks for at this time.
#[must_use]
pub fn parse(value: &[u8], now: WallTime) -> Option<Duration> {
    let value = value.trim_ascii();
    if let Some(seconds) = digits(value) {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(str::from_utf8(value).ok()?).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT
    const NOW: Duration = Duration::from_secs(784_111_777);

    fn at_now(value: &[u8]) -> Option<Duration> {
        parse(value, UNIX_EPOCH + NOW)
    }

    #[test]
    fn only_seconds_and_dates_are_waits() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let rows: [(&[u8], Option<Duration>); 28] = [
            (b"0", seconds(0)),
            (b"1", seconds(1)),
            (b"86400", seconds(86_400)),
            (b"18446744073709551615", seconds(u64::MAX)),
            (b"18446744073709551616", seconds(u64::MAX)),
            (b"99999999999999999999999999999999999", seconds(u64::MAX)),
            (b" \t120 ", seconds(120)),
            (b"Sun, 06 Nov 1994 08:49:37 GMT", seconds(0)),
            (b"Sun, 06 Nov 1994 08:49:38 GMT", seconds(1)),
            (b" Sun, 06 Nov 1994 08:50:37 GMT ", seconds(60)),
            (b"Sunday, 06-Nov-94 08:49:47 GMT", seconds(10)),
            (b"Sun Nov  6 08:49:47 1994", seconds(10)),
            (b"Thu, 01 Jan 1970 00:00:00 GMT", seconds(0)),
            (b"Fri, 31 Dec 9999 23:59:59 GMT", seconds(253_402_300_799 - NOW.as_secs())),
            (b"", None),
            (b" ", None),
            (b"-1", None),
            (b"+1", None),
            (b"1.5", None),
            (b"1e3", None),
            (b"0x10", None),
            (b"1 0", None),
            (b"10s", None),
            (b"soon", None),
            (b"Sun, 06 Nov 1994 08:49:37 +0100", None),
            (b"Sun, 06 Nov 1994 25:49:37 GMT", None),
            ("\u{661}\u{662}".as_bytes(), None),
            (b"\xff\xfe", None),
        ];
        for (value, wait) in rows {
            assert_eq!(at_now(value), wait, "{}", value.escape_ascii());
        }
    }

    #[test]
    fn the_first_header_counts() {
        let mut headers = HeaderMap::new();
        assert_eq!(retry_after(&headers), None);
        headers.append(RETRY_AFTER, HeaderValue::from_static("3"));
        headers.append(RETRY_AFTER, HeaderValue::from_static("5"));
        assert_eq!(retry_after(&headers), Some(Duration::from_secs(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn paused_time_brings_a_date_closer() {
        let date = httpdate::fmt_http_date(time::wall() + Duration::from_secs(100));
        let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::try_from(date).unwrap())]);
        assert!((98..=100).contains(&retry_after(&headers).unwrap().as_secs()));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!((38..=40).contains(&retry_after(&headers).unwrap().as_secs()));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(retry_after(&headers), Some(Duration::ZERO));
    }

    #[test]
    fn a_fraction_of_a_second_is_rounded_up() {
        let rows = [
            (Duration::ZERO, "0"),
            (Duration::from_nanos(1), "1"),
            (Duration::from_secs(1), "1"),
            (Duration::from_millis(1001), "2"),
            (Duration::MAX, "18446744073709551615"),
        ];
        for (wait, value) in rows {
            assert_eq!(retry_after_header(wait), value);
        }
    }

    proptest! {
        #[test]
        fn no_value_panics(value in any::<Vec<u8>>(), now in 0_u64..1 << 40) {
            let _ = parse(&value, UNIX_EPOCH + Duration::from_secs(now));
        }

        #[test]
        fn what_we_write_is_at_least_what_was_meant_and_less_than_a_second_more(wait in any::<Duration>()) {
            let read = at_now(retry_after_header(wait).as_bytes()).unwrap();
            prop_assert!(read >= wait || read.as_secs() == u64::MAX);
            prop_assert!(read.saturating_sub(wait) < Duration::from_secs(1));
        }

        #[test]
        fn a_date_asks_for_the_time_until_then(now in 0_u64..253_402_300_800, date in 0_u64..253_402_300_800) {
            let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
            let value = httpdate::fmt_http_date(at(date));
            let wait = Duration::from_secs(date.saturating_sub(now));
            prop_assert_eq!(parse(value.as_bytes(), at(now)), Some(wait));
        }
    }
}
