//! Through which proxies a request came: `X-Forwarded-For` and `Forwarded`, read from the right.
//!
//! Each proxy writes on the right of what it was given, and what it was given may be anything. So nothing on the left of
//! an element has a say in how that is read: not even a quote that is never closed.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str,
};

use http::HeaderName;

/// The header that the trusted proxies write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hops {
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `Forwarded` of RFC 7239.
    Forwarded,
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

impl Hops {
    pub(super) const fn header(self) -> HeaderName {
        match self {
            Self::XForwardedFor => X_FORWARDED_FOR,
            Self::Forwarded => http::header::FORWARDED,
        }
    }

    /// Where the request came from, as far as it is known from those whom we trust: the first address from the right that
    /// we do not trust. Where one of ours wrote something else than an address, it is the last one before that.
    pub fn client<'a, I>(self, peer: IpAddr, lines: I, is_trusted: impl Fn(IpAddr) -> bool) -> IpAddr
    where
        I: DoubleEndedIterator<Item = &'a [u8]>,
    {
        let mut client = peer.to_canonical();
        if !is_trusted(client) {
            return client;
        }
        for line in lines.rev() {
            let mut unread = Some(line);
            while let Some(line) = unread {
                let (before, element) = self.split(line);
                let Some(address) = self.address(element) else { return client };
                client = address.to_canonical();
                if !is_trusted(client) {
                    return client;
                }
                unread = before;
            }
        }
        client
    }

    fn split(self, line: &[u8]) -> (Option<&[u8]>, &[u8]) {
        match self {
            Self::XForwardedFor => match line.iter().rposition(|byte| *byte == b',') {
                Some(comma) => (Some(&line[..comma]), &line[comma + 1..]),
                None => (None, line),
            },
            Self::Forwarded => split_unquoted(line, b','),
        }
    }

    fn address(self, element: &[u8]) -> Option<IpAddr> {
        match self {
            Self::XForwardedFor => node(element),
            Self::Forwarded => forwarded_for(element),
        }
    }
}

/// What is before the last separator that is not quoted, and what is behind it.
fn split_unquoted(line: &[u8], separator: u8) -> (Option<&[u8]>, &[u8]) {
    let mut is_quoted = false;
    for (index, byte) in line.iter().enumerate().rev() {
        if *byte == b'"' {
            let backslashes = line[..index].iter().rev().take_while(|byte| **byte == b'\\').count();
            let is_content = is_quoted && backslashes % 2 == 1;
            is_quoted ^= !is_content;
        } else if *byte == separator && !is_quoted {
            return (Some(&line[..index]), &line[index + 1..]);
        }
    }
    (None, line)
}

/// The `for` of an element, if there is exactly one.
fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let mut found = None;
    let mut unread = Some(element);
    while let Some(rest) = unread {
        let (before, pair) = split_unquoted(rest, b';');
        unread = before;
        let Some(equals) = pair.iter().position(|byte| *byte == b'=') else { continue };
        if pair[..equals].trim_ascii().eq_ignore_ascii_case(b"for") {
            if found.is_some() {
                return None;
            }
            found = Some(&pair[equals + 1..]);
        }
    }
    node(found?)
}

/// An address, with or without a port, brackets and quotes.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = text.trim_ascii();
    let text = text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(text);
    let text = str::from_utf8(text).ok()?;
    if let Some(text) = text.strip_prefix('[') {
        let (address, port) = text.split_once(']')?;
        return (port.is_empty() || is_port(port)).then(|| address.parse::<Ipv6Addr>().ok())?.map(IpAddr::V6);
    }
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let (address, port) = text.split_at(text.find(':')?);
    is_port(port).then(|| address.parse::<Ipv4Addr>().ok())?.map(IpAddr::V4)
}

/// A number, or a name that stands for it.
fn is_port(text: &str) -> bool {
    text.strip_prefix(':').is_some_and(|port| {
        !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::IpPrefix;

    const PEER: &str = "10.0.0.1";

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn is_ours(address: IpAddr) -> bool {
        ["10.0.0.0/8", "fd00::/8"]
            .map(|range| range.parse::<IpPrefix>().unwrap())
            .iter()
            .any(|ours| ours.contains(address))
    }

    fn client(hops: Hops, peer: &str, lines: &[&[u8]]) -> String {
        hops.client(ip(peer), lines.iter().copied(), is_ours).to_string()
    }

    /// fastapi_limiter_11_x_forwarded_for, commonly_656_leftmost_address
    #[test]
    fn the_first_address_from_the_right_that_is_not_ours_is_the_client() {
        let rows: [(&[&str], &str); 22] = [
            (&[], PEER),
            (&["203.0.113.7"], "203.0.113.7"),
            (&["198.51.100.9, 203.0.113.7"], "203.0.113.7"),
            (&["198.51.100.9", "203.0.113.7"], "203.0.113.7"),
            (&["198.51.100.9, 203.0.113.7, 10.0.0.2"], "203.0.113.7"),
            (&["203.0.113.7", "10.0.0.3,fd00::2"], "203.0.113.7"),
            (&["10.0.0.9,10.0.0.8"], "10.0.0.9"),
            (&["garbage, 203.0.113.7"], "203.0.113.7"),
            (&["\"203.0.113.1, 203.0.113.7"], "203.0.113.7"),
            (&["203.0.113.7:4711"], "203.0.113.7"),
            (&["2001:db8::7"], "2001:db8::7"),
            (&["[2001:db8::7]"], "2001:db8::7"),
            (&["[2001:db8::7]:4711"], "2001:db8::7"),
            (&["\"[2001:db8::7]:4711\""], "2001:db8::7"),
            (&["::ffff:203.0.113.7"], "203.0.113.7"),
            (&["198.51.100.9, ::ffff:10.0.0.2"], "198.51.100.9"),
            // What one of ours wrote and is no address ends the walk.
            (&["198.51.100.9, unknown"], PEER),
            (&["198.51.100.9,"], PEER),
            (&["198.51.100.9, , 10.0.0.2"], "10.0.0.2"),
            (&[""], PEER),
            (&["198.51.100.9", ""], PEER),
            (&["203.0.113.07"], PEER),
        ];
        for (lines, expected) in rows {
            let lines: Vec<_> = lines.iter().map(|line| line.as_bytes()).collect();
            assert_eq!(client(Hops::XForwardedFor, PEER, &lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_peer_that_is_not_ours_is_the_client_whatever_it_says() {
        for (peer, expected) in
            [("203.0.113.1", "203.0.113.1"), ("::ffff:203.0.113.1", "203.0.113.1"), ("2001:db8::1", "2001:db8::1")]
        {
            assert_eq!(client(Hops::XForwardedFor, peer, &[b"198.51.100.9"]), expected);
            assert_eq!(client(Hops::Forwarded, peer, &[b"for=198.51.100.9"]), expected);
        }
        // A socket for both families shows its IPv4 peers mapped.
        assert_eq!(client(Hops::XForwardedFor, "::ffff:10.0.0.1", &[b"198.51.100.9"]), "198.51.100.9");
    }

    #[test]
    fn forwarded_is_read_from_the_right_as_well() {
        let rows: [(&str, &str); 27] = [
            ("for=203.0.113.7", "203.0.113.7"),
            ("FOR=203.0.113.7", "203.0.113.7"),
            ("For=\"203.0.113.7:4711\"", "203.0.113.7"),
            ("for=\"[2001:db8::7]\"", "2001:db8::7"),
            ("for=\"[2001:db8::7]:4711\"", "2001:db8::7"),
            ("for=\"[2001:db8::7]:_obf\"", "2001:db8::7"),
            ("for=\"[::ffff:203.0.113.7]\"", "203.0.113.7"),
            ("proto=https;for=203.0.113.7;by=10.0.0.1", "203.0.113.7"),
            ("by=\"_a,b;for=198.51.100.9\";for=203.0.113.7", "203.0.113.7"),
            ("for=203.0.113.7;by=\"_a,b;c\"", "203.0.113.7"),
            ("for=203.0.113.7;by=\"a,\\\"b\"", "203.0.113.7"),
            ("for=203.0.113.7;by=\"a,\\\\\"", "203.0.113.7"),
            ("for=198.51.100.9, for=203.0.113.7 ; proto=http", "203.0.113.7"),
            ("for=198.51.100.9, for=203.0.113.7, for=10.0.0.2", "203.0.113.7"),
            // What a client left open swallows nothing.
            ("for=\"198.51.100.9, for=203.0.113.7", "203.0.113.7"),
            ("for=\", for=\"203.0.113.7\"", "203.0.113.7"),
            ("for=\\\", for=\"203.0.113.7\"", "203.0.113.7"),
            ("for=198.51.100.9;for=\", for=203.0.113.7;by=\"x\"", "203.0.113.7"),
            // What one of ours wrote and is no address ends the walk.
            ("for=unknown", PEER),
            ("for=_hidden", PEER),
            ("proto=https", PEER),
            ("203.0.113.7", PEER),
            ("for=198.51.100.9;for=203.0.113.7", PEER),
            ("for=[2001:db8::7", PEER),
            ("for=[2001:db8::7]x", PEER),
            ("for=203.0.113.7:", PEER),
            ("", PEER),
        ];
        for (line, expected) in rows {
            assert_eq!(client(Hops::Forwarded, PEER, &[line.as_bytes()]), expected, "{line}");
        }
        assert_eq!(client(Hops::Forwarded, PEER, &[b"for=198.51.100.9", b"for=203.0.113.7"]), "203.0.113.7");
    }

    fn header_bytes() -> impl Strategy<Value = Vec<u8>> {
        let like_a_header =
            "([0-9a-f.:,;=\"\\\\ \\[\\]]|for=|10\\.0\\.0\\.2|unknown){0,40}".prop_map(String::into_bytes);
        prop_oneof![any::<Vec<u8>>(), like_a_header]
    }

    proptest! {
        #[test]
        fn nothing_that_a_client_sends_changes_who_it_is(
            sent in proptest::collection::vec(header_bytes(), 0..4),
            address in any::<IpAddr>(),
            same_line in any::<bool>(),
        ) {
            let address = address.to_canonical();
            prop_assume!(!is_ours(address));
            let quoted = if address.is_ipv6() { format!("for=\"[{address}]:4711\";by=\"_a\"") } else { format!("for={address}") };
            for (hops, element) in [(Hops::XForwardedFor, address.to_string()), (Hops::Forwarded, quoted)] {
                let mut lines = sent.clone();
                match lines.last_mut() {
                    Some(last) if same_line => last.extend(format!(", {element}").into_bytes()),
                    _ => lines.push(element.into_bytes()),
                }
                let lines = lines.iter().map(|line| &**line);
                prop_assert_eq!(hops.client(ip(PEER), lines, is_ours), address);
            }
        }

        #[test]
        fn no_header_panics(sent in proptest::collection::vec(header_bytes(), 0..4)) {
            for hops in [Hops::XForwardedFor, Hops::Forwarded] {
                hops.client(ip(PEER), sent.iter().map(|line| &**line), |_| true);
            }
        }
    }
}
