//! `RUSTC_BOOTSTRAP=1 cargo fuzz run client_address -- -max_total_time=10`
//!
//! Whatever a client sends, on the same line or on one of its own: what our proxy writes behind it decides, and where our
//! proxy writes no address, it is the client itself.

#![no_main]

use std::net::IpAddr;

use buttress::http::{IpPrefix, fuzzing::Hops};
use libfuzzer_sys::fuzz_target;

const PROXY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

fuzz_target!(|input: &[u8]| {
    let Some((address, sent)) = input.split_first_chunk::<17>() else { return };
    let (kind, address) = address.split_first().unwrap();
    let address = if kind % 2 == 0 {
        IpAddr::from(<[u8; 4]>::try_from(&address[..4]).unwrap())
    } else {
        IpAddr::from(<[u8; 16]>::try_from(address).unwrap()).to_canonical()
    };
    let ours: IpPrefix = "10.0.0.0/8".parse().unwrap();
    let client = |hops: Hops, lines: &[Vec<u8>]| {
        hops.client(PROXY, lines.iter().map(|line| &**line), |address| ours.contains(address))
    };

    for hops in [Hops::XForwardedFor, Hops::Forwarded] {
        // As a header from one of ours: an address that is not ours, or one that is.
        client(hops, &[sent.to_vec()]);
        let unknown = if hops == Hops::Forwarded { "for=unknown" } else { "unknown" };
        let known = match (hops, address) {
            (Hops::Forwarded, IpAddr::V6(address)) => format!("for=\"[{address}]:80\";by=\"_x\\\"y\""),
            (Hops::Forwarded, IpAddr::V4(_)) => format!("proto=http;for={address}"),
            (Hops::XForwardedFor, _) => address.to_string(),
        };
        for (element, expected) in [(unknown, PROXY), (&known, address)] {
            let same_line = [sent, b", ", element.as_bytes()].concat();
            for lines in [vec![same_line], vec![sent.to_vec(), element.into()]] {
                let found = client(hops, &lines);
                assert!(found == expected || ours.contains(expected) && element == known, "{found}");
            }
        }
    }
});
