//! `RUSTC_BOOTSTRAP=1 cargo fuzz run grpc_timeout -- -max_total_time=10`
//!
//! A value is read exactly if the protocol allows it, what is read is written back the same, and no duration is written
//! as more than it is.

#![no_main]

use std::time::Duration;

use buttress::http::fuzzing::{format_grpc_timeout, parse_grpc_timeout};
use libfuzzer_sys::fuzz_target;

const LONGEST: Duration = Duration::from_secs(99_999_999 * 3600);

fuzz_target!(|value: &[u8]| {
    let allowed = value.split_last().is_some_and(|(unit, number)| {
        b"HMSmun".contains(unit) && (1..=8).contains(&number.len()) && number.iter().all(u8::is_ascii_digit)
    });
    let read = parse_grpc_timeout(value);
    assert_eq!(read.is_some(), allowed);
    if let Some(read) = read {
        assert!(read <= LONGEST);
        assert_eq!(parse_grpc_timeout(format_grpc_timeout(read).as_bytes()), Some(read));
    }

    let Some(bytes) = value.first_chunk::<12>() else { return };
    let seconds = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    let nanos = u32::from_le_bytes(bytes[8..].try_into().unwrap()) % 1_000_000_000;
    let remaining = Duration::new(seconds, nanos);
    let written = format_grpc_timeout(remaining);
    let read = parse_grpc_timeout(written.as_bytes()).expect("what is written can be read");
    assert!(read <= remaining);
    let precision = match written.as_bytes().last() {
        Some(b'n') => Duration::from_nanos(1),
        Some(b'u') => Duration::from_micros(1),
        Some(b'm') => Duration::from_millis(1),
        Some(b'S') => Duration::from_secs(1),
        Some(b'M') => Duration::from_secs(60),
        _ => Duration::from_secs(3600),
    };
    assert!(remaining.min(LONGEST) - read < precision);
});
