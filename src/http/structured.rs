//! Strings and integers as structured fields spell them (RFC 9651).

use std::fmt::Write;

/// No integer of a structured field is larger.
const LARGEST: u64 = 999_999_999_999_999;

/// Appends the text as a string. Such a string is of printable ASCII; what else the text has comes as the `%xx` of its
/// bytes in UTF-8.
pub(super) fn push_string(field: &mut String, text: &str) {
    field.push('"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => field.extend(['\\', char::from(byte)]),
            b' '..=b'~' => field.push(char::from(byte)),
            _ => push(field, format_args!("%{byte:02x}")),
        }
    }
    field.push('"');
}

/// Appends a parameter that is an integer; one that is too large becomes the largest that there is.
pub(super) fn push_parameter(field: &mut String, key: char, value: u64) {
    push(field, format_args!(";{key}={}", value.min(LARGEST)));
}

fn push(field: &mut String, arguments: std::fmt::Arguments<'_>) {
    field.write_fmt(arguments).expect("a String takes everything");
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn string(text: &str) -> String {
        let mut field = String::new();
        push_string(&mut field, text);
        field
    }

    #[test]
    fn what_a_string_cannot_hold_is_escaped() {
        let rows = [
            ("", r#""""#),
            ("per user, 5;r=9", r#""per user, 5;r=9""#),
            (r#"a"b\c"#, r#""a\"b\\c""#),
            ("naïve", r#""na%c3%afve""#),
            ("a\r\nset-cookie: b", r#""a%0d%0aset-cookie: b""#),
            ("\0\u{7f}~", r#""%00%7f~""#),
        ];
        for (text, written) in rows {
            assert_eq!(string(text), written);
        }
    }

    #[test]
    fn an_integer_has_fifteen_digits_at_most() {
        for (value, written) in [(0, ";q=0"), (LARGEST, ";q=999999999999999"), (u64::MAX, ";q=999999999999999")] {
            let mut field = String::new();
            push_parameter(&mut field, 'q', value);
            assert_eq!(field, written);
        }
    }

    proptest! {
        #[test]
        fn every_text_becomes_one_string_and_a_valid_header(text in any::<String>()) {
            let written = string(&text);
            prop_assert!(HeaderValue::try_from(&*written).is_ok());
            let content = written.strip_prefix('"').unwrap().strip_suffix('"').unwrap();
            let mut bytes = content.bytes();
            while let Some(byte) = bytes.next() {
                prop_assert!((b' '..=b'~').contains(&byte) && byte != b'"');
                if byte == b'\\' {
                    prop_assert!(matches!(bytes.next(), Some(b'"' | b'\\')));
                }
            }
        }
    }
}
