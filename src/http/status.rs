//! A classifier by status code.

use http::{Response, StatusCode};

use super::retry_after::retry_after;
use crate::outcome::{Classify, ErrorsAreTransient, Outcome};

const FIRST: u16 = 400;
const LAST: u16 = 599;

/// Classifies an answer by its status and an error as [`ErrorsAreTransient`] does.
///
/// | status | outcome |
/// |---|---|
/// | below 400 | [`Success`](Outcome::Success) |
/// | 408, 429, 502, 503, 504 | [`Transient`](Outcome::Transient), with the answer's `Retry-After` |
/// | any other | [`Permanent`](Outcome::Permanent) |
///
/// A 500 is permanent here, because the same request meets the same bug again and the first one may have done half of
/// its work. A circuit breaker may see it differently: a dependency that answers nothing but 500 is down, so give the
/// breaker `ByStatus::new().transient(StatusCode::INTERNAL_SERVER_ERROR)` and the retry the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByStatus {
    /// One bit for each status from [`FIRST`].
    transient: [u64; 4],
}

impl ByStatus {
    /// The table above.
    #[must_use]
    pub const fn new() -> Self {
        Self { transient: [0; 4] }
            .transient(StatusCode::REQUEST_TIMEOUT)
            .transient(StatusCode::TOO_MANY_REQUESTS)
            .transient(StatusCode::BAD_GATEWAY)
            .transient(StatusCode::SERVICE_UNAVAILABLE)
            .transient(StatusCode::GATEWAY_TIMEOUT)
    }

    /// Makes a status transient as well.
    ///
    /// # Panics
    ///
    /// If it is not from 400 to 599.
    #[must_use]
    pub const fn transient(mut self, status: StatusCode) -> Self {
        let (word, bit) = place(status);
        self.transient[word] |= bit;
        self
    }

    /// Makes a status permanent.
    ///
    /// # Panics
    ///
    /// If it is not from 400 to 599.
    #[must_use]
    pub const fn permanent(mut self, status: StatusCode) -> Self {
        let (word, bit) = place(status);
        self.transient[word] &= !bit;
        self
    }

    const fn is_transient(&self, status: StatusCode) -> bool {
        if status.as_u16() > LAST {
            return false;
        }
        let (word, bit) = place(status);
        self.transient[word] & bit != 0
    }
}

/// The word and the bit of a status.
const fn place(status: StatusCode) -> (usize, u64) {
    let status = status.as_u16();
    assert!(FIRST <= status && status <= LAST, "only a status from 400 to 599 is transient or permanent");
    let index = status - FIRST;
    (index as usize / 64, 1 << (index % 64))
}

impl Default for ByStatus {
    fn default() -> Self {
        Self::new()
    }
}

impl<B, E> Classify<Response<B>, E> for ByStatus
where
    ErrorsAreTransient: Classify<Response<B>, E>,
{
    #[inline]
    fn classify(&self, result: Result<&Response<B>, &E>) -> Outcome {
        match result {
            Ok(response) if response.status().as_u16() < FIRST => Outcome::Success,
            Ok(response) if self.is_transient(response.status()) => {
                Outcome::Transient { retry_after: retry_after(response.headers()) }
            }
            Ok(_) => Outcome::Permanent,
            Err(_) => ErrorsAreTransient.classify(result),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, time::Duration};

    use http::header::RETRY_AFTER;

    use super::*;
    use crate::error::{Error, Reason, Rejected};

    fn outcome(by: ByStatus, status: u16) -> Outcome {
        let response = Response::builder().status(status).body(()).unwrap();
        by.classify(Ok::<_, &Infallible>(&response))
    }

    #[test]
    fn every_status_has_its_outcome() {
        for status in 100..=999 {
            let expected = match status {
                ..400 => Outcome::Success,
                408 | 429 | 502 | 503 | 504 => Outcome::TRANSIENT,
                _ => Outcome::Permanent,
            };
            assert_eq!(outcome(ByStatus::new(), status), expected, "{status}");
        }
    }

    #[test]
    fn a_status_can_be_moved_and_no_other_moves_with_it() {
        for moved in 400..=599 {
            let status = StatusCode::from_u16(moved).unwrap();
            let added = ByStatus::new().transient(status);
            let removed = ByStatus::new().permanent(status);
            for other in (400..=599).filter(|other| *other != moved) {
                assert_eq!(outcome(added, other), outcome(ByStatus::new(), other), "{moved} moved {other}");
                assert_eq!(outcome(removed, other), outcome(ByStatus::new(), other), "{moved} moved {other}");
            }
            assert_eq!(outcome(added, moved), Outcome::TRANSIENT);
            assert_eq!(outcome(removed, moved), Outcome::Permanent);
        }
    }

    #[test]
    #[should_panic(expected = "400 to 599")]
    fn a_success_cannot_be_made_transient() {
        let _ = ByStatus::new().transient(StatusCode::OK);
    }

    #[test]
    fn the_answer_says_when_to_come_back_if_it_is_transient() {
        let response = |status: u16| Response::builder().status(status).header(RETRY_AFTER, "7").body(()).unwrap();
        let wait = Outcome::Transient { retry_after: Some(Duration::from_secs(7)) };
        assert_eq!(ByStatus::new().classify(Ok::<_, &Infallible>(&response(503))), wait);
        assert_eq!(ByStatus::new().classify(Ok::<_, &Infallible>(&response(500))), Outcome::Permanent);
    }

    #[test]
    fn an_error_is_classified_as_everywhere() {
        let classify =
            |error: &Error<std::io::Error>| Classify::<Response<()>, _>::classify(&ByStatus::new(), Err(error));
        let refused = Rejected::new("p", Reason::RateLimited);
        assert_eq!(classify(&Error::Service(std::io::Error::other("down"))), Outcome::TRANSIENT);
        assert_eq!(classify(&refused.into()), Outcome::Rejected { reason: Reason::RateLimited, retry_after: None });
    }
}
