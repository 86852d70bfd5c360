//! Attempts that are not dropped before the next one begins.

use std::{
    pin::Pin,
    sync::mpsc,
    task::{Context, Poll},
    thread,
};

use buttress::{
    BoxError,
    http::{ReplayBody, ReplayError, Replayable},
};
use bytes::Bytes;
use futures::executor::block_on;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio_test::task::spawn;

use crate::{
    body::{Do, Got, Script, poll_times, read},
    replay::why,
};

const LIMIT: usize = 8;

fn superseded(got: &Got) -> bool {
    why(got) == ReplayError::Superseded
}

#[test]
fn the_later_attempt_takes_over_and_the_earlier_one_is_told_so() {
    let steps = [Do::Data(b"a"), Do::Data(b"b"), Do::Data(b"c"), Do::Trailers("1")];
    for polls in 1..steps.len() {
        let mut first = ReplayBody::new(Script::new(&steps), 2 * LIMIT);
        let mut second = first.clone();
        let mut third = first.clone();
        poll_times(&mut first, polls);
        // One for what was kept, and one more.
        assert!(poll_times(&mut second, 2).error.is_none());
        let got = read(&mut first);
        assert!(superseded(&got) && got.data.is_empty(), "after {polls} polls: {got:?}");
        assert!(first.is_end_stream());
        assert!(read(&mut first).ended);
        assert!(third.can_replay() && first.can_replay());
        assert_eq!(read(&mut third).whole(), ("abc", vec!["1"]));
        assert!(superseded(&read(&mut second)) || polls + 1 == steps.len());
    }
}

#[test]
fn a_later_attempt_knows_its_length() {
    let steps = [Do::Data(b"ab"), Do::Data(b"c"), Do::Data(b"de")];
    let mut first = ReplayBody::new(Script::new(&steps).honest(), LIMIT);
    let mut second = first.clone();
    poll_times(&mut first, 2);
    for left in [5, 2, 0] {
        assert_eq!((second.size_hint().exact(), second.is_end_stream()), (Some(left), left == 0));
        poll_times(&mut second, 1);
    }
    assert!(superseded(&read(&mut first)));
}

#[test]
fn a_copy_that_is_not_polled_changes_nothing() {
    let mut first = ReplayBody::new(Script::new(&[Do::Data(b"a"), Do::Data(b"b")]), LIMIT);
    let second = first.clone();
    let mut third = first.clone();
    poll_times(&mut first, 1);
    assert_eq!((second.is_end_stream(), second.size_hint().lower()), (false, 1));
    drop(second);
    assert_eq!(read(&mut first).whole().0, "b");
    assert_eq!(read(&mut third).whole().0, "ab");
}

#[test]
fn the_order_is_that_of_the_first_polls() {
    let mut first = ReplayBody::new(Script::new(&[Do::Data(b"a"), Do::Data(b"b"), Do::Data(b"c")]), LIMIT);
    let (mut second, mut third) = (first.clone(), first.clone());
    poll_times(&mut first, 1);
    poll_times(&mut third, 1);
    poll_times(&mut second, 1);
    assert!(superseded(&read(&mut first)) && superseded(&read(&mut third)));
    assert_eq!(read(&mut second).whole().0, "bc");
}

#[test]
fn a_dropped_attempt_stays_the_last_to_have_begun() {
    let mut first = ReplayBody::new(Script::new(&[Do::Data(b"a"), Do::Data(b"b")]), LIMIT);
    let mut second = first.clone();
    poll_times(&mut first, 1);
    poll_times(&mut second, 1);
    drop(second);
    let mut third = first.clone();
    assert!(superseded(&read(&mut first)));
    assert_eq!(read(&mut third).whole().0, "ab");
}

#[test]
fn the_original_does_not_take_over_from_a_copy_that_reads() {
    let script = || Script::new(&[Do::Data(b"a"), Do::Data(b"b")]);
    let mut first = ReplayBody::new(script(), LIMIT);
    let mut second = first.clone();
    poll_times(&mut second, 1);
    assert!(superseded(&read(&mut first)));
    assert_eq!(read(&mut second).whole().0, "b");

    for reads_all in [false, true] {
        let mut first = ReplayBody::new(script(), LIMIT);
        let mut second = first.clone();
        poll_times(&mut second, if reads_all { 3 } else { 1 });
        if !reads_all {
            drop(second);
        }
        assert_eq!(read(&mut first).whole().0, "ab", "and it may come last");
    }
}

#[test]
fn an_attempt_that_nobody_can_follow_is_not_superseded() {
    let steps = [Do::Data(b"abcdefgh"), Do::Data(b"i"), Do::Data(b"j")];
    let mut first = ReplayBody::new(Script::new(&steps), LIMIT);
    let mut second = first.clone();
    assert_eq!(poll_times(&mut first, 2).text(), "abcdefghi");
    assert!(!second.can_replay());
    assert_eq!(why(&read(&mut second)), ReplayError::TooLong);
    assert_eq!(read(&mut first).whole().0, "j");
}

/// Frames as they come.
struct Piped(tokio::sync::mpsc::UnboundedReceiver<&'static str>);

impl Body for Piped {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.poll_recv(cx).map(|data| data.map(|data| Ok(Frame::data(data.into()))))
    }
}

#[test]
fn an_attempt_that_waits_is_woken_to_hear_that_it_is_over() {
    let (send, frames) = tokio::sync::mpsc::unbounded_channel();
    let mut first = ReplayBody::new(Piped(frames), LIMIT);
    let mut second = first.clone();
    let _third = first.clone();
    send.send("a").unwrap();
    poll_times(&mut first, 1);
    poll_times(&mut second, 0);
    let (mut first, mut second) = (spawn(first.collect()), spawn(second.collect()));
    assert!(first.poll().is_pending());
    assert!(!first.is_woken());
    assert!(second.poll().is_pending());
    assert!(first.is_woken() && !second.is_woken());
    let Poll::Ready(Err(error)) = first.poll() else { panic!("it is over") };
    assert_eq!(error.downcast_ref(), Some(&ReplayError::Superseded));
    // The waker of the later one has replaced that of the earlier one.
    send.send("b").unwrap();
    assert!(second.is_woken());
    drop(send);
    let Poll::Ready(Ok(collected)) = second.poll() else { panic!("it is there") };
    assert_eq!(collected.to_bytes(), "ab");
}

/// Says when it is polled, and goes on when it is told what to do.
struct Blocks(mpsc::Sender<()>, mpsc::Receiver<Do>);

impl Body for Blocks {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.send(()).unwrap();
        let steps: Vec<_> = self.1.recv().into_iter().collect();
        Pin::new(&mut Script::new(&steps)).poll_frame(cx)
    }
}

/// The first attempt is in the middle of a poll when the second begins. What both get, if that poll does this.
fn in_the_middle_of_a_poll(step: Do, rest: &[Do]) -> (Option<Got>, Got) {
    let (polled, is_polled) = mpsc::channel();
    let (go, step_of) = mpsc::channel();
    let mut first = ReplayBody::new(Blocks(polled, step_of), LIMIT);
    let mut second = spawn(first.clone());
    let mut third = first.clone();
    go.send(Do::Data(b"abcd")).unwrap();
    assert_eq!(poll_times(&mut first, 1).text(), "abcd");
    is_polled.recv().unwrap();
    let thread = thread::spawn(move || {
        let mut got = poll_times(&mut first, 1);
        if got.error.is_none() && !got.ended {
            let next = read(&mut first);
            assert!(next.data.is_empty());
            got.error = next.error;
        }
        assert!(first.is_end_stream());
        got
    });
    is_polled.recv().unwrap();
    assert!(second.enter(|cx, body| body.poll_frame(cx)).is_pending());
    assert!(!second.is_woken());
    assert!(second.can_replay());
    go.send(step).unwrap();
    let first = thread.join().ok();
    assert!(second.is_woken());
    for step in rest {
        go.send(step.clone()).unwrap();
    }
    drop(go);
    let got = read(&mut *second);
    assert_eq!(third.can_replay(), read(&mut third).error.is_none());
    (first, got)
}

#[test]
fn the_later_attempt_waits_for_the_end_of_a_poll() {
    let (first, second) = in_the_middle_of_a_poll(Do::Data(b"ef"), &[Do::Data(b"gh")]);
    let first = first.unwrap();
    assert!(superseded(&first) && first.text() == "ef");
    assert_eq!(second.whole().0, "abcdefgh");

    let (first, second) = in_the_middle_of_a_poll(Do::Pend, &[Do::Data(b"gh")]);
    let first = first.unwrap();
    assert!(superseded(&first) && !first.pending, "or nobody wakes it");
    assert_eq!(second.whole().0, "abcdgh");
}

#[test]
fn the_later_attempt_gets_everything_if_that_poll_passes_the_limit() {
    for rest in [&[][..], &[Do::Data(b"j")], &[Do::Data(b"j"), Do::Trailers("1")]] {
        let (first, second) = in_the_middle_of_a_poll(Do::Data(b"efghi"), rest);
        assert!(superseded(&first.unwrap()));
        let (data, _) = second.whole();
        assert_eq!(data, if rest.is_empty() { "abcdefghi" } else { "abcdefghij" });
    }
}

#[test]
fn the_later_attempt_hears_of_it_if_that_poll_fails() {
    let (first, second) = in_the_middle_of_a_poll(Do::Fail, &[]);
    assert_eq!(first.unwrap().error.unwrap().to_string(), "the disk is gone");
    assert_eq!(why(&second), ReplayError::Failed);

    let (first, second) = in_the_middle_of_a_poll(Do::Panic, &[]);
    assert!(first.is_none(), "it has panicked");
    assert_eq!(why(&second), ReplayError::Failed);
}

#[test]
fn attempts_on_many_threads_get_a_prefix_and_the_last_everything() {
    let steps = [Do::Data(b"a"), Do::Pend, Do::Data(b"bc"), Do::Data(b"d"), Do::Pend, Do::Data(b"e"), Do::Pend];
    for _ in 0..500 {
        let first = ReplayBody::new(Script::new(&steps), LIMIT);
        let bodies = [first.clone(), first.clone(), first.clone()];
        let threads = bodies.map(|mut body| {
            thread::spawn(move || {
                block_on(async {
                    let mut data = Vec::new();
                    while let Some(frame) = body.frame().await {
                        match frame {
                            Ok(frame) => data.extend(frame.into_data().unwrap()),
                            Err(error) => {
                                assert_eq!(error.downcast_ref(), Some(&ReplayError::Superseded));
                                assert!(b"abcde".starts_with(&data));
                                return false;
                            }
                        }
                        thread::yield_now();
                    }
                    assert_eq!(data, b"abcde");
                    true
                })
            })
        });
        let whole = threads.map(|thread| thread.join().unwrap());
        assert!(whole.contains(&true));
        assert_eq!(read(&mut first.clone()).whole().0, "abcde");
    }
}
