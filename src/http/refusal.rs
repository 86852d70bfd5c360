//! The response that a refusal becomes.

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};

use super::{
    rate_limit_headers::{LIMIT, nothing_left},
    retry_after::seconds,
};
use crate::error::{Reason, Rejected};

/// Makes a response of a refusal, for [`respond`](super::respond). A closure wants its argument spelled out,
/// `|rejected: Rejected| ..`.
pub trait RespondWith<B> {
    /// The response.
    fn response(&self, rejected: Rejected) -> Response<B>;
}

/// The status and headers of the [table](super#refusals), and a small `application/problem+json` (RFC 9457).
///
/// The body names the limiter whose quota is used up, as the headers do, and nothing else of what goes on inside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Problem;

/// The status and headers of the [table](super#refusals), and no body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoBody;

impl<B: From<Bytes>> RespondWith<B> for Problem {
    fn response(&self, rejected: Rejected) -> Response<B> {
        let body = Bytes::from(problem(rejected));
        let mut response = with_headers(rejected, B::from(body));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}

impl<B: Default> RespondWith<B> for NoBody {
    fn response(&self, rejected: Rejected) -> Response<B> {
        with_headers(rejected, B::default())
    }
}

impl<B, F: Fn(Rejected) -> Response<B>> RespondWith<B> for F {
    fn response(&self, rejected: Rejected) -> Response<B> {
        self(rejected)
    }
}

/// The status of a refusal.
#[must_use]
pub const fn refusal_status(reason: Reason) -> StatusCode {
    match reason {
        Reason::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        // Not 429, which says to come back: this request never passes, a smaller one may.
        Reason::CostTooHigh => StatusCode::PAYLOAD_TOO_LARGE,
        Reason::CircuitOpen(_)
        | Reason::LimitUnknown
        | Reason::BulkheadFull
        | Reason::Overloaded
        | Reason::LoadFailed(_) => StatusCode::SERVICE_UNAVAILABLE,
        Reason::TimedOut | Reason::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
    }
}

fn with_headers<B>(rejected: Rejected, body: B) -> Response<B> {
    let mut response = Response::new(body);
    *response.status_mut() = refusal_status(rejected.reason());
    if let Some(wait) = rejected.retry_after() {
        // A refusal that says to come back at once would be the next one.
        response.headers_mut().insert(RETRY_AFTER, seconds(wait).max(1).into());
        if rejected.reason() == Reason::RateLimited {
            response.headers_mut().insert(LIMIT, nothing_left(rejected.policy(), wait));
        }
    }
    response
}

fn problem(rejected: Rejected) -> String {
    let status = refusal_status(rejected.reason());
    let (kind, title) = match rejected.reason() {
        Reason::RateLimited => ("quota-exceeded", "the quota is used up"),
        Reason::LimitUnknown | Reason::BulkheadFull | Reason::Overloaded => {
            ("temporary-reduced-capacity", "there is too much to do at present")
        }
        Reason::CostTooHigh => ("", "the request costs more than its quota ever has at once"),
        _ => ("", status.canonical_reason().unwrap_or_default()),
    };
    let mut body = String::from("{");
    if !kind.is_empty() {
        body.push_str(r#""type":"https://iana.org/assignments/http-problem-types#"#);
        body.push_str(kind);
        body.push_str(r#"","#);
    }
    body.push_str(r#""title":""#);
    body.push_str(title);
    body.push_str(r#"","status":"#);
    body.push_str(status.as_str());
    if rejected.reason() == Reason::RateLimited {
        body.push_str(r#","violated-policies":["#);
        push_json(&mut body, rejected.policy());
        body.push(']');
    }
    body.push('}');
    body
}

fn push_json(body: &mut String, text: &str) {
    body.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => body.extend(['\\', character]),
            '\0'..' ' => body.push_str(&format!("\\u{:04x}", u32::from(character))),
            _ => body.push(character),
        }
    }
    body.push('"');
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderName;

    use super::*;
    use crate::error::Trip;

    fn response(rejected: Rejected) -> Response<Bytes> {
        Problem.response(rejected)
    }

    fn header(response: &Response<Bytes>, name: HeaderName) -> Option<&str> {
        response.headers().get(name).map(|value| value.to_str().unwrap())
    }

    const NOTHING: Option<&str> = None;

    #[test]
    fn every_refusal_has_its_status_its_time_and_its_problem() {
        let iana = |kind: &str| format!(r#""type":"https://iana.org/assignments/http-problem-types#{kind}","#);
        let none = String::new;
        let rows = [
            (
                Reason::RateLimited,
                429,
                Some(r#""name";r=0;t=2"#),
                iana("quota-exceeded"),
                r#","violated-policies":["name"]"#,
            ),
            (Reason::CostTooHigh, 413, NOTHING, none(), ""),
            (Reason::CircuitOpen(Trip::Forced), 503, NOTHING, none(), ""),
            (Reason::BulkheadFull, 503, NOTHING, iana("temporary-reduced-capacity"), ""),
            (Reason::Overloaded, 503, NOTHING, iana("temporary-reduced-capacity"), ""),
            (Reason::LoadFailed(crate::error::LoadFailure::Transient), 503, NOTHING, none(), ""),
            (Reason::TimedOut, 504, NOTHING, none(), ""),
            (Reason::DeadlineExceeded, 504, NOTHING, none(), ""),
        ];
        for (reason, status, limit, kind, end) in rows {
            let rejected = Rejected::new("name", reason);
            let unknown = response(rejected);
            assert_eq!((unknown.status().as_u16(), unknown.headers().len()), (status, 1), "{reason}");
            assert_eq!(header(&unknown, CONTENT_TYPE), Some("application/problem+json"));

            let response = response(rejected.with_retry_after(Duration::from_millis(1500)));
            assert_eq!((header(&response, RETRY_AFTER), header(&response, LIMIT)), (Some("2"), limit), "{reason}");
            let body = str::from_utf8(response.body()).unwrap();
            assert!(body.starts_with(&format!(r#"{{{kind}"title":""#)), "{body}");
            assert!(body.ends_with(&format!(r#"","status":{status}{end}}}"#)), "{body}");

            let bare: Response<Bytes> = NoBody.response(rejected);
            assert_eq!((bare.status().as_u16(), bare.body().len()), (status, 0), "{reason}");
            assert!(bare.headers().is_empty());
        }
    }

    /// tower_governor_retry_after_is_zero
    #[test]
    fn a_refused_client_is_never_told_to_come_back_at_once() {
        let rows = [(0, "1"), (1, "1"), (999_999_999, "1"), (1_000_000_000, "1"), (1_000_000_001, "2")];
        for (nanos, seconds) in rows {
            for reason in [Reason::RateLimited, Reason::CircuitOpen(Trip::Forced)] {
                let response = response(Rejected::new("name", reason).with_retry_after(Duration::from_nanos(nanos)));
                assert_eq!(header(&response, RETRY_AFTER), Some(seconds), "{nanos}");
            }
        }
        let longest = response(Rejected::new("name", Reason::RateLimited).with_retry_after(Duration::MAX));
        assert_eq!(header(&longest, RETRY_AFTER), Some("18446744074"));
    }

    #[test]
    fn a_name_of_any_characters_makes_valid_json_and_a_valid_header() {
        let name = "a\"b\\c\r\n\u{0}\u{ef}";
        let response = response(Rejected::new(name, Reason::RateLimited).with_retry_after(Duration::ZERO));
        let body = str::from_utf8(response.body()).unwrap();
        assert!(body.ends_with("[\"a\\\"b\\\\c\\u000d\\u000a\\u0000\u{ef}\"]}"), "{body}");
        assert_eq!(header(&response, LIMIT), Some(r#""a\"b\\c%0d%0a%00%c3%af";r=0;t=1"#));
    }
}
