//! `grpc-timeout`: how much time the caller has left.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Request};

use super::digits::digits;

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The protocol allows no more digits.
const DIGITS: usize = 8;
const MOST: u128 = 10_u128.pow(DIGITS as u32) - 1;

/// The units and their nanoseconds, the most precise first.
const UNITS: [(u8, u64); 6] = [
    (b'n', 1),
    (b'u', 1_000),
    (b'm', 1_000_000),
    (b'S', 1_000_000_000),
    (b'M', 60_000_000_000),
    (b'H', 3_600_000_000_000),
];

/// The time that the caller has left, as its `grpc-timeout` says: 1 to 8 digits and a unit of `H`, `M`, `S`, `m`, `u`,
/// `n`.
///
/// Anything else is `None`, as is no such header. The first one counts.
#[must_use]
pub fn grpc_timeout<B>(request: &Request<B>) -> Option<Duration> {
    parse(request.headers().get(GRPC_TIMEOUT)?.as_bytes())
}

/// Tells the next hop how much time there is, in place of what the request said before.
///
/// Rounds down, so that nobody is promised more than there is, in the most precise unit that has room. At most
/// `99999999H`, 11,415 years.
pub fn set_grpc_timeout<B>(request: &mut Request<B>, remaining: Duration) {
    let value = HeaderValue::try_from(format(remaining)).expect("digits and a letter");
    request.headers_mut().insert(GRPC_TIMEOUT, value);
}

/// The duration that this value says.
#[must_use]
pub fn parse(value: &[u8]) -> Option<Duration> {
    let (unit, number) = value.split_last()?;
    let (_, nanos) = UNITS.iter().find(|(letter, _)| letter == unit)?;
    if number.len() > DIGITS {
        return None;
    }
    let number = u128::from(digits(number)?) * u128::from(*nanos);
    Some(Duration::new((number / 1_000_000_000) as u64, (number % 1_000_000_000) as u32))
}

/// The value that says this duration.
#[must_use]
pub fn format(duration: Duration) -> String {
    let in_unit = |nanos: u64| duration.as_nanos() / u128::from(nanos);
    let (unit, number) = UNITS
        .iter()
        .map(|(unit, nanos)| (*unit, in_unit(*nanos)))
        .find(|(_, number)| *number <= MOST)
        .unwrap_or((b'H', MOST));
    format!("{number}{}", char::from(unit))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn unit_of(value: &str) -> Duration {
        let letter = value.as_bytes()[value.len() - 1];
        Duration::from_nanos(UNITS.iter().find(|(unit, _)| *unit == letter).unwrap().1)
    }

    #[test]
    fn only_digits_and_a_unit_are_a_timeout() {
        let rows: [(&[u8], Option<Duration>); 20] = [
            (b"0n", Some(Duration::ZERO)),
            (b"1n", Some(Duration::from_nanos(1))),
            (b"2u", Some(Duration::from_micros(2))),
            (b"3m", Some(Duration::from_millis(3))),
            (b"4S", Some(Duration::from_secs(4))),
            (b"5M", Some(Duration::from_secs(300))),
            (b"6H", Some(6 * HOUR)),
            (b"00000001S", Some(Duration::from_secs(1))),
            (b"99999999H", Some(99_999_999 * HOUR)),
            (b"000000001S", None),
            (b"", None),
            (b"S", None),
            (b"1", None),
            (b"1s", None),
            (b"1h", None),
            (b"-1S", None),
            (b"+1S", None),
            (b"1 S", None),
            (b" 1S", None),
            (b"1.5S", None),
        ];
        for (value, timeout) in rows {
            assert_eq!(parse(value), timeout, "{}", value.escape_ascii());
        }
    }

    #[test]
    fn the_most_precise_unit_that_has_room_is_written_and_never_too_much() {
        let rows = [
            (Duration::ZERO, "0n"),
            (Duration::from_nanos(99_999_999), "99999999n"),
            (Duration::from_nanos(100_000_999), "100000u"),
            (Duration::from_secs(30), "30000000u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_secs(100_000) - Duration::from_nanos(1), "99999999m"),
            (Duration::from_secs(100_000_001), "1666666M"),
            (Duration::from_secs(100_000_000 * 60), "1666666H"),
            (Duration::MAX, "99999999H"),
        ];
        for (remaining, value) in rows {
            assert_eq!(format(remaining), value);
        }
    }

    #[test]
    fn a_request_says_what_it_was_told_last() {
        let mut request = Request::new(());
        assert_eq!(grpc_timeout(&request), None);
        set_grpc_timeout(&mut request, Duration::from_secs(9));
        set_grpc_timeout(&mut request, Duration::from_millis(1500));
        assert_eq!(grpc_timeout(&request), Some(Duration::from_millis(1500)));
        assert_eq!(request.headers().len(), 1);
    }

    proptest! {
        #[test]
        fn no_value_panics(value in any::<Vec<u8>>()) {
            let _ = parse(&value);
        }

        #[test]
        fn whatever_is_read_is_written_back_the_same(number in 0_u32..100_000_000, unit in 0..UNITS.len()) {
            let read = parse(format!("{number}{}", char::from(UNITS[unit].0)).as_bytes()).unwrap();
            prop_assert_eq!(parse(format(read).as_bytes()), Some(read));
        }

        #[test]
        fn what_is_written_is_at_most_what_there_is_and_less_than_a_unit_less(
            seconds in prop_oneof![any::<u64>(), 0..1_000_000_u64],
            nanos in 0_u32..1_000_000_000,
        ) {
            let remaining = Duration::new(seconds, nanos);
            let written = format(remaining);
            let read = parse(written.as_bytes()).unwrap();
            prop_assert!(read <= remaining);
            prop_assert!(written == "99999999H" || remaining - read < unit_of(&written), "{}", written);
        }
    }
}
