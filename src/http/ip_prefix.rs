//! A range of addresses.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use super::digits::digits;
use crate::error::ConfigError;

/// A range of addresses, such as `10.0.0.0/8`, `2001:db8::/32`, or one address.
///
/// An IPv4 range holds IPv4 addresses and an IPv6 range holds IPv6 addresses, also `::/0`. An IPv4 address mapped into
/// IPv6 (`::ffff:10.0.0.1`) is the IPv4 address, in ranges and in what is looked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct IpPrefix {
    /// The first address, as [`bits`] has it.
    first: u128,
    /// How many bits are the same in all of them, of 128.
    length: u32,
}

/// An address as an integer, an IPv4 address mapped into IPv6.
pub(super) fn bits(address: IpAddr) -> u128 {
    let mapped = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    mapped.to_bits()
}

/// The address of these bits.
pub(super) fn address(bits: u128) -> IpAddr {
    Ipv6Addr::from_bits(bits).to_canonical()
}

/// The bits with all but the first so many cleared.
pub(super) fn masked(bits: u128, length: u32) -> u128 {
    bits & u128::MAX.checked_shl(128 - length).unwrap_or(0)
}

const fn is_mapped(bits: u128) -> bool {
    bits >> 32 == 0xffff
}

impl IpPrefix {
    /// The addresses that have their first so many bits in common with this one.
    ///
    /// # Errors
    ///
    /// More bits than such an address has.
    pub fn new(address: IpAddr, length: u8) -> Result<Self, ConfigError> {
        let (all, offset) = if address.is_ipv4() { (32, 96) } else { (128, 0) };
        if length > all {
            return Err(ConfigError::new("prefix", "is longer than the address"));
        }
        let length = u32::from(length) + offset;
        Ok(Self { first: masked(bits(address), length), length })
    }

    /// Whether the address is one of these.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let bits = bits(address);
        masked(bits, self.length) == self.first && is_mapped(bits) == self.is_mapped()
    }

    const fn is_mapped(&self) -> bool {
        self.length >= 96 && is_mapped(self.first)
    }
}

impl FromStr for IpPrefix {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let error = ConfigError::new("prefix", "is neither an address nor a range such as `10.0.0.0/8`");
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(digits(length.as_bytes()).ok_or(error)?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| error)?;
        let length = length.unwrap_or(if address.is_ipv4() { 32 } else { 128 });
        Self::new(address, u8::try_from(length).unwrap_or(u8::MAX))
    }
}

impl fmt::Display for IpPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let offset = if self.is_mapped() { 96 } else { 0 };
        write!(f, "{}/{}", address(self.first), self.length - offset)
    }
}

impl fmt::Debug for IpPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> IpPrefix {
        text.parse().unwrap()
    }

    #[test]
    fn a_range_holds_the_addresses_of_its_own_kind() {
        let rows = [
            ("10.0.0.0/8", "10.255.255.255", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("::ffff:10.0.0.0/104", "10.1.2.3", true),
            ("::ffff:10.0.0.0/104", "11.1.2.3", false),
            ("10.9.8.7/8", "10.0.0.1", true),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("0.0.0.0/0", "203.0.113.7", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "203.0.113.7", false),
            ("::/64", "::ffff:203.0.113.7", false),
            ("::1", "::1", true),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("2001:db8::/33", "2001:db8:8000::1", false),
        ];
        for (range, address, expected) in rows {
            assert_eq!(prefix(range).contains(address.parse().unwrap()), expected, "{range} {address}");
        }
    }

    #[test]
    fn what_is_no_range_says_so() {
        for text in ["", "/8", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/+8", "10.0.0.0/256", "::/129", "10.0.0", "a/8"] {
            assert_eq!(text.parse::<IpPrefix>().unwrap_err().field(), "prefix", "{text}");
        }
    }

    #[test]
    fn a_range_is_written_as_it_is_read() {
        let rows = [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("::/0", "::/0"),
            ("::/96", "::/96"),
        ];
        for (text, written) in rows {
            assert_eq!(prefix(text).to_string(), written);
            assert_eq!(prefix(written), prefix(text));
        }
    }
}
