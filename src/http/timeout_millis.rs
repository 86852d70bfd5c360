//! Time-outs in milliseconds, in a header of any name.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Request};

use super::digits::digits;

/// Reads the time that the caller has left from a header in milliseconds, such as `x-envoy-expected-rq-timeout-ms`.
///
/// Digits only, with or without whitespace around them; too large a number is `u64::MAX`. Anything else is `None`. The
/// first header counts.
pub fn timeout_millis<B>(name: HeaderName) -> impl Fn(&Request<B>) -> Option<Duration> + Clone {
    move |request| {
        let value = request.headers().get(&name)?;
        digits(value.as_bytes().trim_ascii()).map(Duration::from_millis)
    }
}

/// Tells the next hop how many milliseconds there are, in place of what the request said before.
///
/// Rounds down, so that nobody is promised more than there is. Some proxies take 0 for no time-out at all, so do not
/// send a request that has less than a millisecond left.
pub fn set_timeout_millis<B>(request: &mut Request<B>, name: HeaderName, remaining: Duration) {
    let millis = u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX);
    request.headers_mut().insert(name, HeaderValue::from(millis));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAME: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");

    fn read(value: &str) -> Option<Duration> {
        timeout_millis(NAME)(&Request::builder().header(NAME, value).body(()).unwrap())
    }

    #[test]
    fn only_digits_are_milliseconds() {
        assert_eq!(read("0"), Some(Duration::ZERO));
        assert_eq!(read(" 1500 "), Some(Duration::from_millis(1500)));
        assert_eq!(read("99999999999999999999999"), Some(Duration::from_millis(u64::MAX)));
        for garbage in ["", "-1", "1.5", "15s", "soon"] {
            assert_eq!(read(garbage), None, "{garbage}");
        }
        assert_eq!(timeout_millis(NAME)(&Request::new(())), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_at_most_what_there_is(remaining in any::<Duration>()) {
            let mut request = Request::new(());
            set_timeout_millis(&mut request, NAME, remaining);
            let read = timeout_millis(NAME)(&request).unwrap();
            prop_assert!(read <= remaining);
            prop_assert!(remaining - read < Duration::from_millis(1) || read == Duration::from_millis(u64::MAX));
        }
    }
}
