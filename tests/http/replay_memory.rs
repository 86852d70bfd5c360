//! What a body that can be sent once more costs.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use allocation_counter::measure;
use buttress::{BoxError, http::ReplayBody};
use bytes::Bytes;
use futures::executor::block_on;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Body, Frame};
use http_body_util::BodyExt;

const KIB: usize = 1024;
/// For what is not the content.
const SLACK: u64 = 1024;

/// So many frames, made when they are asked for.
struct Frames<F>(usize, F);

impl<F: FnMut() -> Frame<Bytes> + Unpin> Body for Frames<F> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let left = self.0.checked_sub(1);
        self.0 = left.unwrap_or_default();
        Poll::Ready(left.map(|_| Ok((self.1)())))
    }
}

/// In memory after attempts that read so many frames each and one that reads everything, and at most.
fn cost<F: FnMut() -> Frame<Bytes> + Unpin>(body: Frames<F>, limit: usize, reads: &[usize]) -> (u64, u64) {
    let mut left = None;
    let measured = measure(|| {
        let mut attempt = ReplayBody::new(body, limit);
        for read in reads.iter().chain([&usize::MAX]) {
            let next = attempt.clone();
            for _ in 0..*read {
                if block_on(attempt.frame()).is_none() {
                    break;
                }
            }
            attempt = next;
        }
        left = Some(attempt);
    });
    (measured.bytes_current.try_into().unwrap(), measured.bytes_max)
}

#[test]
fn frames_of_one_byte_cost_a_byte() {
    let byte = || Frame::data(Bytes::from_static(b"a"));
    for frames in [10, KIB, 64 * KIB] {
        let (kept, max) = cost(Frames(frames, byte), 64 * KIB, &[]);
        assert!(kept <= 2 * frames as u64 + SLACK && kept <= 64 * KIB as u64 + SLACK, "{kept} for {frames}");
        assert!(max <= 2 * 64 * KIB as u64 + SLACK, "{max} while it grows");
    }
}

#[test]
fn attempts_that_read_a_part_each_keep_no_more_than_the_limit() {
    let byte = || Frame::data(Bytes::from_static(b"a"));
    let (kept, _) = cost(Frames(64 * KIB, byte), 64 * KIB, &[100, 1000, 10, 30_000, 1, 1, 17_000]);
    assert!(kept <= 64 * KIB as u64 + SLACK, "{kept}");
}

#[test]
fn the_limit_is_not_allocated_beforehand() {
    let (_, max) = cost(Frames(10, || Frame::data(Bytes::from_static(b"a"))), usize::MAX, &[3]);
    assert!(max <= SLACK, "{max}");
}

#[test]
fn a_slice_does_not_hold_on_to_its_buffer() {
    let slice = || Frame::data(Bytes::from(vec![0; 16 * KIB]).slice(..1));
    let (kept, _) = cost(Frames(1000, slice), KIB, &[]);
    assert!(kept <= KIB as u64 + SLACK, "{kept} of data");

    let trailers = || {
        let value = HeaderValue::from_maybe_shared(Bytes::from(vec![b'a'; 16 * KIB]).slice(..1)).unwrap();
        let mut trailers = HeaderMap::with_capacity(KIB);
        trailers.insert(HeaderName::from_static("x-sum"), value);
        Frame::trailers(trailers)
    };
    let (kept, _) = cost(Frames(1, trailers), KIB, &[]);
    assert!(kept <= KIB as u64 + SLACK, "{kept} of trailers");
}

#[test]
fn what_is_over_the_limit_is_not_kept() {
    let data = || Frame::data(Bytes::from_static(&[0; KIB]));
    let trailers = || {
        let value = HeaderValue::from_bytes(&[b'a'; KIB]).unwrap();
        Frame::trailers(HeaderMap::from_iter([(HeaderName::from_static("x-sum"), value)]))
    };
    let empty = || Frame::trailers(HeaderMap::new());
    for (kept, _) in [
        cost(Frames(100, data), 10 * KIB, &[]),
        cost(Frames(1, trailers), KIB, &[]),
        cost(Frames(10_000, empty), KIB, &[]),
    ] {
        assert!(kept <= SLACK, "{kept}");
    }
}
