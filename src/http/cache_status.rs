//! `Cache-Status`, after RFC 9211.

use std::{fmt::Write as _, time::Duration};

use http::{HeaderValue, Response, header::CACHE_STATUS};

use crate::cache::{CacheStatus, Tell};

/// Writes a `Cache-Status` header (RFC 9211) on each response of a cache: `.tell(CacheStatusHeader::new("shop"))`.
///
/// | answer | header |
/// |---|---|
/// | fresh | `shop; hit; ttl=42` |
/// | stale | `shop; hit; ttl=-7; detail=failed`, or `revalidating`, or `slow` |
/// | loaded | `shop; fwd=miss; stored`, with `collapsed` where another call had begun to load it |
/// | without a key | `shop; fwd=bypass` |
///
/// Those of caches nearer to the origin stay in front of it.
#[derive(Clone, Copy, Debug)]
pub struct CacheStatusHeader {
    cache: &'static str,
}

impl CacheStatusHeader {
    /// The name of the cache in the header.
    ///
    /// # Panics
    ///
    /// If the name is no token: a letter, then letters, digits and some marks.
    #[must_use]
    #[track_caller]
    pub const fn new(cache: &'static str) -> Self {
        assert!(is_token(cache.as_bytes()), "the name of a cache must be a token");
        Self { cache }
    }
}

impl<B> Tell<Response<B>> for CacheStatusHeader {
    type Response = Response<B>;

    fn tell(&self, mut response: Response<B>, status: CacheStatus) -> Response<B> {
        if let Ok(value) = HeaderValue::from_str(&format(self.cache, status)) {
            response.headers_mut().append(CACHE_STATUS, value);
        }
        response
    }
}

fn format(cache: &str, status: CacheStatus) -> String {
    let mut value = String::with_capacity(cache.len() + 40);
    value.push_str(cache);
    // Writing to a string does not fail.
    let _ = match status {
        CacheStatus::Bypassed => write!(value, "; fwd=bypass"),
        // A part of a second is not a second that is left.
        CacheStatus::Fresh { ttl } => write!(value, "; hit; ttl={}", digits(ttl.as_secs())),
        CacheStatus::Stale { stale_for, why } => {
            let ago = digits(stale_for.saturating_add(Duration::from_nanos(999_999_999)).as_secs());
            let sign = if ago == 0 { "" } else { "-" };
            write!(value, "; hit; ttl={sign}{ago}; detail={}", why.as_str())
        }
        CacheStatus::Loaded { stored, collapsed } => {
            let (stored, collapsed) =
                (if stored { "; stored" } else { "" }, if collapsed { "; collapsed" } else { "" });
            write!(value, "; fwd=miss{stored}{collapsed}")
        }
    };
    value
}

/// A structured integer has fifteen digits at most.
fn digits(seconds: u64) -> u64 {
    seconds.min(999_999_999_999_999)
}

const fn is_token(name: &[u8]) -> bool {
    let Some((first, rest)) = name.split_first() else { return false };
    let mut at = 0;
    while at < rest.len() {
        if !(rest[at].is_ascii_alphanumeric()
            || matches!(
                rest[at],
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
                    | b':'
                    | b'/'
            ))
        {
            return false;
        }
        at += 1;
    }
    first.is_ascii_alphabetic() || *first == b'*'
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::WhyStale;

    #[test]
    fn a_status_reads_as_rfc_9211_has_it() {
        let stale = |stale_for, why| CacheStatus::Stale { stale_for, why };
        let rows = [
            (CacheStatus::Bypassed, "shop; fwd=bypass"),
            (CacheStatus::Fresh { ttl: Duration::from_millis(42_900) }, "shop; hit; ttl=42"),
            (CacheStatus::Fresh { ttl: Duration::MAX }, "shop; hit; ttl=999999999999999"),
            (stale(Duration::ZERO, WhyStale::Slow), "shop; hit; ttl=0; detail=slow"),
            (stale(Duration::from_nanos(1), WhyStale::Failed), "shop; hit; ttl=-1; detail=failed"),
            (stale(Duration::MAX, WhyStale::Revalidating), "shop; hit; ttl=-999999999999999; detail=revalidating"),
            (CacheStatus::Loaded { stored: true, collapsed: false }, "shop; fwd=miss; stored"),
            (CacheStatus::Loaded { stored: false, collapsed: true }, "shop; fwd=miss; collapsed"),
            (CacheStatus::Loaded { stored: false, collapsed: false }, "shop; fwd=miss"),
        ];
        for (status, header) in rows {
            assert_eq!(format("shop", status), header);
        }
    }

    #[test]
    fn a_name_that_is_no_token_is_none() {
        for (name, is_one) in [
            ("shop", true),
            ("*", true),
            ("a.b/c:8080", true),
            ("", false),
            ("1a", false),
            ("a b", false),
            ("a;b", false),
            ("\u{e4}", false),
        ] {
            assert_eq!(is_token(name.as_bytes()), is_one, "{name}");
        }
    }
}
