//! What a key is called in Redis.

use std::{fmt, fmt::Write};

use sha2::{Digest, Sha256};

use crate::hex::push_hex;

/// What a key says of itself, at most: of what is longer only a hash is sent and kept.
const LONGEST: usize = 200;

/// The part that alone decides the slot: all limits of a key are in one.
pub(super) fn write_tag(out: &mut String, key: &impl fmt::Display) {
    // Never empty: an empty tag is none.
    out.push_str("{.");
    let mut text = Text { start: out.len(), out, hash: None };
    let _ = write!(text, "{key}");
    let Text { out, start, hash } = text;
    match hash {
        None if out[start..].contains(['%', '{', '}']) => {
            let text = out.split_off(start);
            escape(out, &text);
        }
        None => {}
        Some(hash) => {
            out.truncate(start - 1);
            // No other key begins with it.
            out.push('#');
            push_hex(out, &hash.finalize());
        }
    }
    out.push('}');
}

/// The tag of what belongs to no key.
pub(super) fn write_tag_of_all(out: &mut String) {
    out.push_str("{*}");
}

/// Without braces, which say where the slot's part begins and ends.
pub(super) fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '%' => out.push_str("%25"),
            '{' => out.push_str("%7B"),
            '}' => out.push_str("%7D"),
            c => out.push(c),
        }
    }
}

/// As it is, as long as it is short: no more of a long key is ever kept.
struct Text<'a> {
    out: &'a mut String,
    start: usize,
    hash: Option<Sha256>,
}

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if let Some(hash) = &mut self.hash {
            hash.update(text);
        } else if self.out.len() - self.start + text.len() > LONGEST {
            self.hash = Some(Sha256::new().chain_update(&self.out[self.start..]).chain_update(text));
        } else {
            self.out.push_str(text);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tag(key: &impl fmt::Display) -> String {
        let mut out = String::new();
        write_tag(&mut out, key);
        out
    }

    /// In as many pieces as there are letters.
    struct Pieces<'a>(&'a str);

    impl fmt::Display for Pieces<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.chars().try_for_each(|c| f.write_char(c))
        }
    }

    /// unbounded_keys_chosen_by_strangers
    #[test]
    fn a_key_of_any_length_has_a_short_name_of_its_own() {
        assert_eq!(tag(&"a".repeat(200)), format!("{{.{}}}", "a".repeat(200)));
        let long = "a".repeat(201);
        // `printf 'a%.0s' {1..201} | sha256sum`
        let hash = Sha256::digest(&long).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        assert_eq!(tag(&long), format!("{{#{hash}}}"));
        let longer = "a".repeat(1_000_000);
        assert_eq!(tag(&longer).len(), 67);
        assert_ne!(tag(&longer), tag(&long));
        assert_ne!(tag(&long), tag(&format!("#{hash}")));
    }

    proptest! {
        #[test]
        fn the_name_does_not_depend_on_how_the_key_is_written(key in ".{0,300}") {
            prop_assert_eq!(tag(&key), tag(&Pieces(&key)));
        }

        #[test]
        fn a_tag_has_one_pair_of_braces(key in "[{}%.#a]{0,300}") {
            let tag = tag(&key);
            prop_assert_eq!((tag.find('{'), tag.rfind('{')), (Some(0), Some(0)));
            prop_assert_eq!(tag.find('}'), Some(tag.len() - 1));
        }
    }
}
