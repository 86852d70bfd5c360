//! Who a client is, by its address.

use std::{fmt, net::IpAddr};

use http::{Extensions, Request};

use super::{
    hops::Hops,
    ip_prefix::{IpPrefix, address, bits, masked},
};
use crate::{error::ConfigError, shared::Shared};

/// Finds out from which client a request came, as a key for limits and circuits.
///
/// See the [module docs](super#clients-by-their-addresses).
///
/// # Defaults
///
/// | setting | default |
/// |---|---|
/// | the peer of the connection | none: it is the constructor's |
/// | [`trust`](Self::trust) | nobody: the peer is the client |
/// | [`forwarded`](Self::forwarded) | `X-Forwarded-For` is read |
/// | [`ipv6_prefix`](Self::ipv6_prefix) | 64 bits |
#[derive(Clone)]
pub struct ClientKeys<P> {
    peer: P,
    trusted: Shared<Vec<IpPrefix>>,
    hops: Hops,
    ipv6_prefix: u32,
}

/// A client: its IPv4 address, or the network of its IPv6 address. 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientKey(u128);

impl ClientKey {
    /// Every client whose connection has no known peer. All of them share it.
    pub const UNKNOWN: Self = Self(0xffff_0000_0000);

    /// The IPv4 address, or the first one of the network.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        address(self.0)
    }
}

impl<P: Fn(&Extensions) -> Option<IpAddr>> ClientKeys<P> {
    /// Takes the peer of the connection from the extensions of the request.
    ///
    /// `None` makes the client [`ClientKey::UNKNOWN`], whatever the headers say. A proxy behind a Unix socket has no
    /// address, so give it one that nobody else has, such as `127.0.0.1`, and trust that.
    pub fn new(peer: P) -> Self {
        Self { peer, trusted: Shared::new(Vec::new()), hops: Hops::XForwardedFor, ipv6_prefix: 64 }
    }

    /// Believes what these proxies say about who called them. Ranges add up.
    ///
    /// Everybody in the range can be whom they like, so trust your proxies and not the whole of a network in which clients
    /// live. Defaults to nobody.
    #[must_use]
    pub fn trust(mut self, proxies: impl IntoIterator<Item = IpPrefix>) -> Self {
        self.trusted = Shared::new(self.trusted.iter().copied().chain(proxies).collect());
        self
    }

    /// Reads `Forwarded` (RFC 7239) instead, because that is what the trusted proxies write.
    ///
    /// There is no way to read both: a proxy passes the one on that it does not write, and with it what the client put
    /// there. Defaults to `X-Forwarded-For`.
    #[must_use]
    pub fn forwarded(mut self) -> Self {
        self.hops = Hops::Forwarded;
        self
    }

    /// Takes so many bits of an IPv6 address for the client, because a household has at least 64 bits to choose its
    /// addresses from. Defaults to 64.
    ///
    /// # Panics
    ///
    /// If it is not from 1 to 128; [`try_ipv6_prefix`](Self::try_ipv6_prefix) says so instead.
    #[must_use]
    #[track_caller]
    pub fn ipv6_prefix(self, bits: u8) -> Self {
        match self.try_ipv6_prefix(bits) {
            Ok(keys) => keys,
            Err(error) => panic!("{error}"),
        }
    }

    /// As [`ipv6_prefix`](Self::ipv6_prefix).
    ///
    /// # Errors
    ///
    /// If it is not from 1 to 128.
    pub fn try_ipv6_prefix(mut self, bits: u8) -> Result<Self, ConfigError> {
        if !(1..=128).contains(&bits) {
            return Err(ConfigError::new("ipv6_prefix", "must be from 1 to 128"));
        }
        self.ipv6_prefix = u32::from(bits);
        Ok(self)
    }

    /// The client's key.
    pub fn key<B>(&self, request: &Request<B>) -> ClientKey {
        self.address(request).map_or(ClientKey::UNKNOWN, |address| self.key_of(address))
    }

    /// The key of a client of this address.
    pub fn key_of(&self, address: IpAddr) -> ClientKey {
        let bits = bits(address);
        ClientKey(if address.to_canonical().is_ipv4() { bits } else { masked(bits, self.ipv6_prefix) })
    }

    /// The client's whole address, if the connection has a peer.
    pub fn address<B>(&self, request: &Request<B>) -> Option<IpAddr> {
        let peer = (self.peer)(request.extensions())?;
        let is_trusted = |address| self.trusted.iter().any(|prefix| prefix.contains(address));
        let lines = request.headers().get_all(self.hops.header());
        Some(self.hops.client(peer, lines.iter().map(|line| line.as_bytes()), is_trusted))
    }
}

impl<P> fmt::Debug for ClientKeys<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientKeys")
            .field("trusted", &*self.trusted)
            .field("hops", &self.hops)
            .field("ipv6_prefix", &self.ipv6_prefix)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientKey").field(&self.address()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy)]
    struct Peer(IpAddr);

    fn peer(extensions: &Extensions) -> Option<IpAddr> {
        Some(extensions.get::<Peer>()?.0)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn keys() -> ClientKeys<fn(&Extensions) -> Option<IpAddr>> {
        ClientKeys::new(peer as fn(&_) -> _).trust(["10.0.0.1".parse().unwrap()])
    }

    fn request(peer: &str) -> Request<()> {
        let request = Request::builder().extension(Peer(ip(peer)));
        request.header("x-forwarded-for", "203.0.113.7").header("forwarded", "for=203.0.113.9").body(()).unwrap()
    }

    /// express_rate_limit_667_ipv4_in_ipv6
    #[test]
    fn one_client_has_one_key_however_its_address_is_written() {
        let rows = [
            ("203.0.113.7", "::ffff:203.0.113.7", true),
            ("203.0.113.7", "203.0.113.8", false),
            ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", true),
            ("2001:db8:1:2::1", "2001:db8:1:3::1", false),
            ("::203.0.113.7", "203.0.113.7", false),
        ];
        for (one, other, same) in rows {
            assert_eq!(keys().key_of(ip(one)) == keys().key_of(ip(other)), same, "{one} {other}");
        }
        assert_eq!(format!("{:?}", keys().key_of(ip("2001:db8:1:2::1"))), "ClientKey(2001:db8:1:2::)");
        assert_eq!(format!("{:?}", keys().key_of(ip("::ffff:203.0.113.7"))), "ClientKey(203.0.113.7)");
        assert_eq!(size_of::<ClientKey>(), 16);
    }

    #[test]
    fn the_prefix_says_how_much_of_an_ipv6_address_is_the_client() {
        let count = |bits| {
            let addresses = ["2001:db8::", "2001:db8::1", "2001:db8:0:1::", "2001:db8:1::", "2001:db9::"];
            addresses
                .map(|address| keys().ipv6_prefix(bits).key_of(ip(address)))
                .into_iter()
                .collect::<HashSet<_>>()
                .len()
        };
        assert_eq!([1, 32, 48, 64, 128].map(count), [1, 2, 3, 4, 5]);
        assert_ne!(keys().ipv6_prefix(1).key_of(ip("1.2.3.4")), keys().ipv6_prefix(1).key_of(ip("1.2.3.5")));
        assert_eq!([0, 129].map(|bits| keys().try_ipv6_prefix(bits).unwrap_err().field()), ["ipv6_prefix"; 2]);
    }

    #[test]
    #[should_panic = "must be from 1 to 128"]
    fn no_prefix_at_all_panics() {
        let _ = keys().ipv6_prefix(0);
    }

    #[test]
    fn only_the_header_that_our_proxies_write_is_read_and_only_from_them() {
        assert_eq!(keys().key(&request("10.0.0.1")), keys().key_of(ip("203.0.113.7")));
        assert_eq!(keys().forwarded().key(&request("10.0.0.1")), keys().key_of(ip("203.0.113.9")));
        for keys in [keys(), keys().forwarded()] {
            assert_eq!(keys.key(&request("10.0.0.2")), keys.key_of(ip("10.0.0.2")));
            assert_eq!(keys.key(&request("::ffff:10.0.0.2")), keys.key_of(ip("10.0.0.2")));
        }
        assert_eq!(ClientKeys::new(peer).key(&request("10.0.0.1")), keys().key_of(ip("10.0.0.1")));
        let both = keys().trust(["10.0.0.2".parse().unwrap()]);
        assert_eq!(both.address(&request("10.0.0.2")), Some(ip("203.0.113.7")));
        assert_eq!(["10.0.0.1", "10.0.0.2"].map(|peer| both.key(&request(peer)).address()), [ip("203.0.113.7"); 2]);
    }

    #[test]
    fn without_a_peer_nobody_is_believed() {
        let request = Request::builder().header("x-forwarded-for", "203.0.113.7").body(()).unwrap();
        assert_eq!(keys().trust(["0.0.0.0/0".parse().unwrap()]).key(&request), ClientKey::UNKNOWN);
        assert_eq!(keys().address(&request), None);
        assert_eq!(ClientKey::UNKNOWN.address(), ip("0.0.0.0"));
    }

    proptest! {
        #[test]
        fn an_ipv6_client_never_has_the_key_of_an_ipv4_client(address in any::<u128>(), bits in 1_u8..=128, low in 0_u8..3) {
            // Near the mapped ones, too.
            let address = address >> [0, 32, 80][usize::from(low)];
            let address = IpAddr::from(address.to_be_bytes());
            let key = keys().ipv6_prefix(bits).key_of(address);
            prop_assert_eq!(key.address().is_ipv4(), address.to_canonical().is_ipv4());
            prop_assert_eq!(keys().ipv6_prefix(bits).key_of(key.address()), key);
        }
    }
}
