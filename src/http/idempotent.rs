//! Which requests may be sent twice.

use http::{HeaderName, Request};

use super::replayable::Replayable;
use crate::retry::Resend;

/// Copies the requests that may be executed twice, for a retry: those with an idempotent method (`GET`, `HEAD`,
/// `OPTIONS`, `TRACE`, `PUT`, `DELETE`), and those with an idempotency key that is not empty.
///
/// A call that failed may have been executed. A key is only worth something if the server honours it.
///
/// The copy has everything that the request has, its extensions too. Its body comes from [`Replayable`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idempotent {
    key: HeaderName,
    any_method: bool,
}

impl Idempotent {
    /// Idempotent methods, and requests with an `Idempotency-Key`.
    #[must_use]
    pub const fn new() -> Self {
        Self { key: HeaderName::from_static("idempotency-key"), any_method: false }
    }

    /// Looks for the key in this header. Defaults to `Idempotency-Key`.
    #[must_use]
    pub fn header(mut self, key: HeaderName) -> Self {
        self.key = key;
        self
    }

    /// Copies every request, for who knows that all of them may be executed twice.
    #[must_use]
    pub const fn any_method(mut self) -> Self {
        self.any_method = true;
        self
    }

    /// Whether this request may be executed twice.
    pub fn allows<B>(&self, request: &Request<B>) -> bool {
        let has_key = || request.headers().get_all(&self.key).iter().any(|key| !key.as_bytes().trim_ascii().is_empty());
        self.any_method || request.method().is_idempotent() || has_key()
    }
}

impl Default for Idempotent {
    fn default() -> Self {
        Self::new()
    }
}

impl<B: Replayable> Resend<Request<B>> for Idempotent {
    fn copy(&self, request: &Request<B>) -> Option<Request<B>> {
        if !self.allows(request) {
            return None;
        }
        let mut copy = Request::new(request.body().replay()?);
        copy.method_mut().clone_from(request.method());
        copy.uri_mut().clone_from(request.uri());
        *copy.version_mut() = request.version();
        copy.headers_mut().clone_from(request.headers());
        copy.extensions_mut().clone_from(request.extensions());
        Some(copy)
    }

    fn can_resend(&self, copy: &Request<B>) -> bool {
        copy.body().can_replay()
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, Version};

    use super::*;

    const KEY: HeaderName = HeaderName::from_static("idempotency-key");
    const OTHER: HeaderName = HeaderName::from_static("x-request-token");

    fn copied(idempotent: &Idempotent, method: Method, key: Option<(HeaderName, &str)>) -> bool {
        let mut request = Request::builder().method(method).body("body").unwrap();
        if let Some((name, value)) = key {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        idempotent.copy(&request).is_some()
    }

    #[test]
    fn only_idempotent_methods_are_copied_without_a_key() {
        let idempotent = Idempotent::new();
        for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE] {
            assert!(copied(&idempotent, method.clone(), None), "{method}");
        }
        let purge = Method::from_bytes(b"PURGE").unwrap();
        for method in [Method::POST, Method::PATCH, Method::CONNECT, purge] {
            assert!(!copied(&idempotent, method.clone(), None), "{method}");
            assert!(copied(&idempotent.clone().any_method(), method.clone(), None), "{method}");
        }
    }

    #[test]
    fn a_key_makes_any_method_idempotent_unless_it_is_empty() {
        let idempotent = Idempotent::new();
        assert!(copied(&idempotent, Method::POST, Some((KEY, "a1"))));
        assert!(!copied(&idempotent, Method::POST, Some((KEY, ""))));
        assert!(!copied(&idempotent, Method::POST, Some((KEY, "  "))));
        assert!(!copied(&idempotent, Method::POST, Some((OTHER, "a1"))));
        assert!(copied(&idempotent.header(OTHER), Method::POST, Some((OTHER, "a1"))));
    }

    #[test]
    fn a_copy_has_everything() {
        let request = Request::builder()
            .method(Method::PUT)
            .uri("https://example.org/a?b=c")
            .version(Version::HTTP_2)
            .header("x-many", "1")
            .header("x-many", "2")
            .extension(7_u8)
            .body("body")
            .unwrap();
        let copy = Idempotent::new().copy(&request).unwrap();
        assert_eq!(copy.method(), request.method());
        assert_eq!(copy.uri(), request.uri());
        assert_eq!(copy.version(), request.version());
        assert_eq!(copy.headers(), request.headers());
        assert_eq!(copy.extensions().get::<u8>(), Some(&7));
        assert_eq!(copy.body(), request.body());
        assert!(Idempotent::new().can_resend(&copy));
    }
}
