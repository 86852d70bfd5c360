//! `RUSTC_BOOTSTRAP=1 cargo fuzz run envelope -- -max_total_time=10`
//!
//! Whatever is in Redis, it is read to an end; nothing that is read lives longer than it may; and what is read is written
//! back to the same bytes.

#![no_main]

use std::time::Duration;

use buttress::redis::fuzzing::{Opened, back, front, open};
use libfuzzer_sys::fuzz_target;

const LONGEST: Duration = Duration::from_secs(3600);

fuzz_target!(|bytes: &[u8]| {
    match open(bytes) {
        Opened::Foreign => {}
        Opened::Grave(stamp) => {
            assert_eq!(bytes.len(), 52);
            assert_eq!(bytes[..20], front(true, stamp));
        }
        Opened::Sealed(sealed) => {
            let now = bytes.last_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
            let lengths = sealed.lengths(now, LONGEST);
            assert!(lengths.ttl.saturating_add(lengths.max_stale).saturating_sub(lengths.age) <= LONGEST);

            let mut written = front(false, sealed.stamp).to_vec();
            for time in [sealed.created, sealed.stored, sealed.fresh_until, sealed.stale_until] {
                written.extend(time.to_be_bytes());
            }
            let back = back(&sealed.tags, |back| {
                back.extend_from_slice(sealed.payload);
                Ok::<_, ()>(())
            });
            written.extend(back.expect("there were no more tags").unwrap());
            assert_eq!(written, bytes);
        }
    }
});
