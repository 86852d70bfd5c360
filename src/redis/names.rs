//! What a cache's keys are called in Redis, and what a name that was heard means.

use sha2::{Digest as _, Sha256};

use crate::hex::push_hex;

/// The SHA-256 of a key or a tag.
pub(super) type Digest = [u8; 32];

/// The names of one cache. What two processes name alike is the same entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names {
    prefix: &'static str,
}

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Key(Digest),
    Tag(Digest),
    All,
    /// Nothing that anybody keeps.
    Nothing,
}

impl Names {
    pub(super) const fn new(prefix: &'static str) -> Self {
        Self { prefix }
    }

    /// What all names begin with.
    pub(super) fn beginning(self) -> String {
        format!("{}:", self.prefix)
    }

    /// In braces, so that its lease is in the same slot.
    pub(super) fn key(self, digest: &Digest) -> String {
        format!("{}:{{{}}}", self.prefix, hex(digest))
    }

    pub(super) fn lease(self, digest: &Digest) -> String {
        format!("{}:{{{}}}:lease", self.prefix, hex(digest))
    }

    pub(super) fn tag(self, digest: &Digest) -> String {
        format!("{}:tag:{}", self.prefix, hex(digest))
    }

    pub(super) fn all(self) -> String {
        format!("{}:all", self.prefix)
    }

    pub(super) fn channel(self) -> String {
        format!("{}:changes", self.prefix)
    }

    /// What the name of a key means that Redis says has changed.
    pub(super) fn heard(self, name: &[u8]) -> Heard {
        let Some(rest) = name.strip_prefix(self.prefix.as_bytes()).and_then(|rest| rest.strip_prefix(b":")) else {
            return Heard::Nothing;
        };
        match rest {
            b"all" => Heard::All,
            [b'{', key @ .., b'}'] => unhex(key).map_or(Heard::Nothing, Heard::Key),
            _ => rest.strip_prefix(b"tag:").and_then(unhex).map_or(Heard::Nothing, Heard::Tag),
        }
    }
}

pub(super) fn digest_of_tag(tag: &str) -> Digest {
    Sha256::digest(tag).into()
}

/// What a process publishes: who it is, and the name of what it has changed.
pub(super) fn message(origin: u64, name: &str) -> String {
    format!("{origin:016x}{name}")
}

/// The name in a message, unless it is one's own.
pub(super) fn from_others(origin: u64, message: &[u8]) -> Option<&[u8]> {
    let (from, name) = message.split_at_checked(16)?;
    (from != format!("{origin:016x}").as_bytes()).then_some(name)
}

fn hex(digest: &Digest) -> String {
    let mut hex = String::with_capacity(64);
    push_hex(&mut hex, digest);
    hex
}

fn unhex(hex: &[u8]) -> Option<Digest> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let hex: &[u8; 64] = hex.try_into().ok()?;
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(hex.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAMES: Names = Names::new("shop:pages");

    proptest! {
        #[test]
        fn what_was_named_is_heard_as_what_it_was(digest in any::<Digest>()) {
            prop_assert_eq!(NAMES.heard(NAMES.key(&digest).as_bytes()), Heard::Key(digest));
            prop_assert_eq!(NAMES.heard(NAMES.tag(&digest).as_bytes()), Heard::Tag(digest));
            prop_assert_eq!(NAMES.heard(NAMES.all().as_bytes()), Heard::All);
            for noise in [NAMES.lease(&digest), Names::new("shop").key(&digest), NAMES.channel()] {
                prop_assert_eq!(NAMES.heard(noise.as_bytes()), Heard::Nothing, "{}", noise);
            }
        }

        #[test]
        fn a_name_of_any_bytes_is_heard_to_its_end(name in ".{0,80}", bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let name = format!("shop:pages:{name}");
            let all = if name == "shop:pages:all" { Heard::All } else { Heard::Nothing };
            prop_assert_eq!(NAMES.heard(name.as_bytes()), all);
            let _ = (NAMES.heard(&bytes), from_others(7, &bytes));
        }
    }

    #[test]
    fn ones_own_messages_are_not_heard() {
        let said = message(7, "name");
        assert_eq!(from_others(7, said.as_bytes()), None);
        assert_eq!(from_others(8, said.as_bytes()), Some(&b"name"[..]));
        assert_eq!(from_others(8, b"short"), None);
    }
}
