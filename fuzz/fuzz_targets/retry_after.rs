//! `RUSTC_BOOTSTRAP=1 cargo fuzz run retry_after -- -max_total_time=10`
//!
//! A value that is read as a wait is either digits, or a date that is as far away as the wait says; and a later clock
//! waits less.

#![no_main]

use std::time::{Duration, UNIX_EPOCH};

use buttress::http::{fuzzing::parse_retry_after, retry_after_header};
use libfuzzer_sys::fuzz_target;

/// Sun, 06 Nov 1994 08:49:37 GMT
const NOW: Duration = Duration::from_secs(784_111_777);
const YEAR_10000: u64 = 253_402_300_800;
const HOUR: Duration = Duration::from_secs(3600);

fuzz_target!(|value: &[u8]| {
    check(value);
    // Blind search finds no date, so here is one, with a byte changed.
    if let Some((seconds, [place, byte, ..])) = value.split_first_chunk::<8>() {
        let date = UNIX_EPOCH + Duration::from_secs(u64::from_le_bytes(*seconds) % YEAR_10000);
        let mut date = httpdate::fmt_http_date(date).into_bytes();
        check(&date);
        let place = usize::from(*place) % date.len();
        date[place] = *byte;
        check(&date);
    }
});

fn check(value: &[u8]) {
    let now = UNIX_EPOCH + NOW;
    let Some(wait) = parse_retry_after(value, now) else {
        assert!(value.trim_ascii().is_empty() || !value.trim_ascii().iter().all(u8::is_ascii_digit));
        return;
    };
    assert_eq!(wait.subsec_nanos(), 0);
    let later = parse_retry_after(value, now + HOUR).expect("it is a wait at any time");
    if value.trim_ascii().iter().all(u8::is_ascii_digit) {
        assert_eq!(later, wait, "seconds count from any time");
        let text = str::from_utf8(value.trim_ascii()).unwrap();
        assert_eq!(wait.as_secs(), text.parse().unwrap_or(u64::MAX));
        assert_eq!(parse_retry_after(retry_after_header(wait).as_bytes(), now), Some(wait));
    } else {
        assert_eq!(later, wait.saturating_sub(HOUR), "a date comes closer");
        if !wait.is_zero() {
            let written = httpdate::fmt_http_date(now + wait);
            assert_eq!(parse_retry_after(written.as_bytes(), now), Some(wait));
        }
    }
}
