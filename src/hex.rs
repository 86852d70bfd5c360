//! Hexadecimal digits.

use std::fmt::Write as _;

pub(crate) fn push_hex(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a string does not fail.
        let _ = write!(out, "{byte:02x}");
    }
}
