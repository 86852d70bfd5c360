//! A body that can be sent once more.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::Ordering,
    task::Context,
};

use buttress::{
    BoxError,
    http::{Idempotent, ReplayBody, ReplayError, ReplayLayer, Replayable},
    retry::Resend,
};
use bytes::Bytes;
use futures::task::noop_waker_ref;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use proptest::prelude::*;
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::{
    body::{Do, Got, Script, poll_times, read},
    support::{Probe, Ready},
};

const LIMIT: usize = 8;

fn full(text: &'static str) -> impl Body<Data = Bytes, Error = BoxError> + Unpin {
    Full::new(Bytes::from_static(text.as_bytes())).map_err(|never| match never {})
}

pub fn why(got: &Got) -> ReplayError {
    *got.error.as_ref().unwrap_or_else(|| panic!("no error: {got:?}")).downcast_ref().expect("one of ours")
}

#[test]
fn a_copy_yields_the_whole_body_whatever_its_length_up_to_the_limit() {
    let rows: [&[Do]; 6] = [
        &[],
        &[Do::Data(b"a")],
        &[Do::Data(b"abcdefgh")],
        &[Do::Data(b"a"), Do::Data(b""), Do::Pend, Do::Data(b"bcd"), Do::Data(b"efgh")],
        &[Do::Data(b"ab"), Do::Trailers("1")],
        &[Do::Trailers("1")],
    ];
    for steps in rows {
        for script in [Script::new(steps), Script::new(steps).honest()] {
            let expected = read(&mut Script::new(steps));
            let mut first = ReplayBody::new(script, LIMIT);
            let mut second = first.clone();
            let mut third = first.clone();
            for attempt in [&mut first, &mut second, &mut third] {
                assert!(attempt.can_replay(), "{steps:?}");
                assert_eq!(read(attempt).whole(), expected.whole(), "{steps:?}");
                assert!(attempt.is_end_stream(), "{steps:?}");
            }
        }
    }
}

#[test]
fn a_body_over_the_limit_is_sent_once_and_whole() {
    for script in [
        Script::new(&[Do::Data(b"abcd"), Do::Data(b"efghi"), Do::Trailers("1")]),
        Script::new(&[Do::Data(b"abcd"), Do::Data(b"efghi"), Do::Trailers("1")]).honest(),
        Script::new(&[Do::Data(b"abcdefghi"), Do::Trailers("1")]),
    ] {
        let mut first = ReplayBody::new(script, LIMIT);
        let mut second = first.clone();
        assert_eq!(read(&mut first).whole(), ("abcdefghi", vec!["1"]));
        assert!(!second.can_replay());
        assert!(second.replay().is_none());
        assert!(!second.is_end_stream(), "it must not pass for an empty body");
        assert_eq!(why(&read(&mut second)), ReplayError::TooLong);
    }
}

#[test]
fn the_limit_is_for_trailers_too() {
    let steps = [Do::Data(b"abcd"), Do::Trailers("1234")];
    // Of data, of the name `x-sum`, and of the value.
    let length = 4 + 5 + 4;
    for limit in 4..=length {
        for script in [Script::new(&steps), Script::new(&steps).honest()] {
            let mut first = ReplayBody::new(script, limit);
            let mut second = first.clone();
            assert_eq!(read(&mut first).whole(), ("abcd", vec!["1234"]));
            assert!(first.is_end_stream());
            let got = read(&mut second);
            if limit == length {
                assert_eq!(got.whole(), ("abcd", vec!["1234"]));
            } else {
                assert_eq!(why(&got), ReplayError::TooLong, "{limit}");
            }
        }
    }
}

#[test]
fn a_body_that_says_it_is_too_long_is_never_kept() {
    let first = ReplayBody::new(Script::new(&[Do::Data(b"abcdefghi")]).honest(), LIMIT);
    assert!(!first.can_replay());
    assert_eq!(first.size_hint().exact(), Some(9));
    assert!(Idempotent::new().copy(&Request::put("/").body(first).unwrap()).is_none());
}

#[test]
fn the_limit_is_passed_in_the_middle_of_a_replay() {
    let script = Script::new(&[Do::Data(b"abcd"), Do::Data(b"efgh"), Do::Data(b"i"), Do::Data(b"j")]);
    let mut first = ReplayBody::new(script, LIMIT);
    let mut second = first.clone();
    let mut third = first.clone();
    assert_eq!(poll_times(&mut first, 2).text(), "abcdefgh");
    drop(first);
    assert!(second.can_replay());
    assert_eq!(read(&mut second).whole(), ("abcdefghij", vec![]));
    assert_eq!(why(&read(&mut third)), ReplayError::TooLong);
}

#[test]
fn linkerd2_proxy_4621_no_byte_is_duplicated_within_an_attempt() {
    let steps = [Do::Data(b"a"), Do::Data(b"b"), Do::Pend, Do::Data(b"c"), Do::Data(b"d"), Do::Trailers("1")];
    for polls in 0..steps.len() {
        let mut first = ReplayBody::new(Script::new(&steps), 2 * LIMIT);
        let mut second = first.clone();
        let mut third = first.clone();
        poll_times(&mut first, polls);
        drop(first);
        // It replays what was kept, goes on with the rest, and keeps that without playing it again.
        poll_times(&mut second, polls + 1);
        drop(second);
        assert_eq!(read(&mut third).whole(), ("abcd", vec!["1"]), "after {polls} polls");
    }
}

#[test]
fn failsafe_go_73_a_retry_has_the_body_that_the_first_attempt_had() {
    let mut first = ReplayBody::new(full("abcd"), LIMIT);
    let mut second = first.clone();
    assert_eq!(read(&mut first).whole().0, "abcd");
    drop(first);
    assert_eq!(second.size_hint().exact(), Some(4));
    assert!(!second.is_end_stream());
    assert_eq!(read(&mut second).whole().0, "abcd");
}

#[test]
fn linkerd2_6243_nothing_is_kept_when_nobody_has_a_copy() {
    let frame = Bytes::from(vec![7; 4]);
    let mut only = ReplayBody::new(Full::new(frame.clone()), LIMIT);
    assert_eq!(poll_times(&mut only, 1).data, frame);
    assert!(frame.is_unique(), "somebody kept it");

    let mut first = ReplayBody::new(Script::new(&[Do::Data(b"a"), Do::Data(b"b")]), LIMIT);
    poll_times(&mut first, 1);
    assert_eq!(why(&read(&mut first.clone())), ReplayError::NotKept);
    assert_eq!(read(&mut first).whole().0, "b");
}

#[test]
fn linkerd2_6243_an_attempt_streams() {
    let script = Script::new(&[Do::Data(b"a"), Do::Data(b"b"), Do::Data(b"c")]);
    let polls = script.polls.clone();
    let mut first = ReplayBody::new(script, LIMIT);
    let _copy = first.clone();
    assert_eq!(poll_times(&mut first, 1).text(), "a");
    assert_eq!(polls.load(Ordering::Relaxed), 1);
}

#[test]
fn an_attempt_that_has_read_everything_needs_not_be_dropped() {
    let mut first = ReplayBody::new(Script::new(&[Do::Data(b"a")]).honest(), LIMIT);
    let mut second = first.clone();
    assert_eq!(poll_times(&mut first, 1).text(), "a");
    assert_eq!(read(&mut second).whole().0, "a");
    assert_eq!(read(&mut first).whole().0, "", "and it has nothing more to say");
}

#[test]
fn an_error_of_the_body_is_passed_on_and_ends_its_replays() {
    let mut first = ReplayBody::new(Script::new(&[Do::Data(b"a"), Do::Fail, Do::Data(b"b")]), LIMIT);
    let mut second = first.clone();
    let got = read(&mut first);
    assert_eq!(got.text(), "a");
    assert_eq!(got.error.unwrap().to_string(), "the disk is gone");
    assert!(first.is_end_stream());
    assert!(!Idempotent::new().can_resend(&Request::new(second.clone())));
    assert_eq!(why(&read(&mut second)), ReplayError::Failed);
}

#[test]
fn a_body_that_panicked_is_not_replayed() {
    let mut first = ReplayBody::new(Script::new(&[Do::Data(b"a"), Do::Panic, Do::Data(b"b")]), LIMIT);
    let mut second = first.clone();
    catch_unwind(AssertUnwindSafe(|| read(&mut first))).unwrap_err();
    drop(first);
    assert!(!second.can_replay());
    assert_eq!(why(&read(&mut second)), ReplayError::Failed);
}

#[test]
fn a_body_that_panicked_is_not_replayed_even_if_it_is_read_on() {
    let mut first = ReplayBody::new(Script::new(&[Do::Data(b"a"), Do::Panic, Do::Data(b"b")]), LIMIT);
    let second = first.clone();
    catch_unwind(AssertUnwindSafe(|| read(&mut first))).unwrap_err();
    assert_eq!(read(&mut first).text(), "b");
    assert!(!second.can_replay());
}

#[test]
fn a_body_knows_its_length_at_every_point() {
    let steps = [Do::Data(b"ab"), Do::Data(b"cd"), Do::Data(b"ef")];
    let mut first = ReplayBody::new(Script::new(&steps).honest(), LIMIT);
    let mut second = first.clone();
    let left = |body: &ReplayBody<_>| body.size_hint().exact();
    assert_eq!((left(&first), left(&second)), (Some(6), Some(6)));
    poll_times(&mut first, 2);
    assert_eq!((left(&first), left(&second)), (Some(2), Some(6)));
    drop(first);
    // What was kept is one frame.
    for expected in [Some(2), Some(0)] {
        assert!(!second.is_end_stream());
        poll_times(&mut second, 1);
        assert_eq!(left(&second), expected);
    }
    assert!(second.is_end_stream());
}

#[test]
fn a_body_of_unknown_length_is_known_once_it_has_been_read() {
    let mut first = ReplayBody::new(Script::new(&[Do::Data(b"ab"), Do::Data(b"cd")]), LIMIT);
    let second = first.clone();
    assert_eq!((first.size_hint().lower(), first.size_hint().upper()), (0, None));
    poll_times(&mut first, 1);
    drop(first);
    assert_eq!((second.size_hint().lower(), second.size_hint().upper()), (2, None));
    let mut first = second.clone();
    read(&mut first);
    assert_eq!(second.size_hint().exact(), Some(4));
}

#[test]
fn a_body_that_is_over_from_the_start_stays_so() {
    let first = ReplayBody::new(Full::<Bytes>::default(), 0);
    let mut copy = first.replay().unwrap();
    assert!(first.is_end_stream() && copy.is_end_stream());
    assert_eq!((first.size_hint().exact(), copy.size_hint().exact()), (Some(0), Some(0)));
    assert_eq!(read(&mut copy).whole().0, "");
}

#[test]
fn a_debug_print_tells_nothing_of_the_content() {
    let mut body = ReplayBody::new(full("secret"), LIMIT);
    let _copy = body.clone();
    read(&mut body);
    assert_eq!(format!("{body:?}"), "ReplayBody { can_replay: true, .. }");
}

#[tokio::test]
async fn the_layer_gives_the_inner_service_a_body_to_copy() {
    let stack = ReplayLayer::new(LIMIT).layer(service_fn(async |request: Request<ReplayBody<Full<Bytes>>>| {
        let copy = Idempotent::new().copy(&request).expect("a PUT");
        let lost = read(&mut request.into_body());
        assert!(Idempotent::new().can_resend(&copy));
        let resent = read(&mut copy.into_body());
        Ok::<_, std::convert::Infallible>(Response::new((lost.data, resent.data)))
    }));
    let request = Request::put("/").body(Full::from("abcd")).unwrap();
    let (first, second) = stack.oneshot(request).await.unwrap().into_body();
    assert_eq!((first.as_slice(), second.as_slice()), (&b"abcd"[..], &b"abcd"[..]));
}

#[test]
fn the_layer_passes_readiness_through() {
    let (probe, control) = Probe::new();
    let probe = tower::util::MapRequest::new(probe, |_: Request<ReplayBody<Full<Bytes>>>| 1_u32);
    let mut stack = ReplayLayer::new(LIMIT).layer(probe);
    let cx = &mut Context::from_waker(noop_waker_ref());
    let mut ready = || Service::<Request<Full<Bytes>>>::poll_ready(&mut stack, cx);
    control.ready(Ready::Never);
    assert!(ready().is_pending());
    control.ready(Ready::Error);
    assert!(matches!(ready(), std::task::Poll::Ready(Err(_))));
    control.ready(Ready::Yes);
    assert!(ready().is_ready());
    // The probe panics if it is called on an instance that is not ready.
    drop(stack.call(Request::new(Full::default())));
}

/// What an attempt does before the next one begins: so many polls, and whether it is dropped.
fn attempts() -> impl Strategy<Value = Vec<(usize, bool)>> {
    prop::collection::vec((0..8_usize, any::<bool>()), 1..5)
}

fn steps() -> impl Strategy<Value = Vec<Do>> {
    let step = prop_oneof![
        4 => prop::sample::select(vec![&b""[..], b"a", b"bc", b"def", b"ghijklm"]).prop_map(Do::Data),
        1 => Just(Do::Pend),
    ];
    (prop::collection::vec(step, 0..6), any::<bool>()).prop_map(|(mut steps, trailers)| {
        steps.extend(trailers.then_some(Do::Trailers("1")));
        steps
    })
}

proptest! {
    /// Whatever the attempts read before they are dropped or superseded: each gets a prefix of the body, and the last
    /// all of it or one typed error, which `can_replay` foretold.
    #[test]
    fn every_attempt_gets_a_prefix_and_the_last_everything(
        steps in steps(),
        polls in attempts(),
        honest in any::<bool>(),
        limit in 0..12_usize,
    ) {
        let whole = read(&mut Script::new(&steps));
        let script = if honest { Script::new(&steps).honest() } else { Script::new(&steps) };
        let length = whole.data.len() + whole.trailers.len() * "x-sum1".len();
        let mut next = ReplayBody::new(script, limit);
        let mut earlier = Vec::new();
        for (polls, is_dropped) in polls {
            let mut attempt = next;
            next = attempt.clone();
            let lost = !attempt.can_replay();
            let got = poll_times(&mut attempt, polls);
            prop_assert!(whole.data.starts_with(&got.data), "{:?} of {:?}", got, whole);
            if let Some(error) = got.error {
                prop_assert!(lost && got.data.is_empty());
                prop_assert_eq!(error.downcast_ref(), Some(&ReplayError::TooLong));
            }
            if !is_dropped {
                earlier.push((attempt, got.data));
            }
        }
        let (can_replay, hint) = (next.can_replay(), next.size_hint());
        let got = read(&mut next);
        if can_replay {
            prop_assert_eq!(got.whole(), whole.whole());
            prop_assert!(hint.lower() <= whole.data.len() as u64);
            prop_assert!(hint.upper().is_none_or(|upper| whole.data.len() as u64 <= upper));
        } else {
            prop_assert!(length > limit);
            prop_assert_eq!(why(&got), ReplayError::TooLong);
        }
        for (mut attempt, mut data) in earlier {
            let got = read(&mut attempt);
            data.extend(got.data);
            prop_assert!(whole.data.starts_with(&data));
            prop_assert!(attempt.is_end_stream());
        }
    }
}
