//! Reading a tape.

use std::{
    mem,
    ops::Range,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

use super::{
    place::{Place, Take},
    replay_error::ReplayError,
    tape::{Tape, minus},
};
use crate::error::BoxError;

pub(super) enum Reader<B> {
    Unread {
        original: bool,
    },
    Reading(Reading),
    /// What nobody else can have any more: all that was kept has been played.
    Alone(B),
    Done,
}

/// An attempt that has begun and is not over.
pub(super) struct Reading {
    pub(super) number: u64,
    /// Of the frames that were kept before it had the tape.
    unplayed: Option<Range<usize>>,
    /// Of data.
    got: u64,
    /// Of what it has not got yet.
    pub(super) left: SizeHint,
}

/// The length of one poll.
struct Turn<'a, B> {
    place: &'a Place<B>,
    /// Done, until the turn is over.
    reader: &'a mut Reader<B>,
    /// Still here when it is dropped: the body has panicked.
    held: Option<(Reading, Tape<B>)>,
}

type Polled = Option<Result<Frame<Bytes>, BoxError>>;

impl<B: Body<Error: Into<BoxError>> + Unpin> Reader<B> {
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, place: &Place<B>, copied: bool) -> Poll<Polled> {
        if let Self::Unread { original } = *self {
            match place.begin(original) {
                Ok((number, left)) => *self = Self::Reading(Reading { number, unplayed: None, got: 0, left }),
                Err(why) => return self.fail(why),
            }
        }
        match self {
            Self::Reading(reading) => {
                let tape = loop {
                    match place.take(reading.number) {
                        Take::Tape(tape) => break tape,
                        Take::Wait if place.wait(reading.number, cx.waker().clone()) => return Poll::Pending,
                        Take::Wait => {}
                        Take::Error(why) => return self.fail(why),
                    }
                };
                if let Self::Reading(reading) = mem::replace(self, Self::Done) {
                    return Turn { place, reader: self, held: Some((reading, tape)) }.poll(cx, copied);
                }
                Poll::Ready(None)
            }
            Self::Alone(body) => {
                let polled = ready!(pull(body, cx));
                if !matches!(polled, Some(Ok(_))) {
                    *self = Self::Done;
                }
                Poll::Ready(polled)
            }
            Self::Unread { .. } | Self::Done => Poll::Ready(None),
        }
    }

    fn fail(&mut self, why: ReplayError) -> Poll<Polled> {
        *self = Self::Done;
        Poll::Ready(Some(Err(why.into())))
    }
}

impl<B: Body<Error: Into<BoxError>> + Unpin> Turn<'_, B> {
    fn poll(mut self, cx: &mut Context<'_>, copied: bool) -> Poll<Polled> {
        let (reading, tape) = self.held.as_mut().expect("it is held until the turn is over");
        if let Some(index) = reading.unplayed.get_or_insert_with(|| 0..tape.seal()).next() {
            let frame = tape.play(index);
            reading.got += length(&frame);
            self.put_back(None);
            return Poll::Ready(Some(Ok(frame)));
        }
        let Some(rest) = &mut tape.rest else {
            self.put_back(None);
            return Poll::Ready(None);
        };
        let Poll::Ready(polled) = pull(rest, cx) else {
            if self.put_back(Some(cx.waker().clone())) {
                return Poll::Pending;
            }
            // Nobody would wake this one any more.
            return self.reader.fail(ReplayError::Superseded);
        };
        match &polled {
            Some(Ok(frame)) => {
                reading.got += length(frame);
                let mut hint = rest.size_hint();
                if rest.is_end_stream() {
                    tape.rest = None;
                    hint = SizeHint::with_exact(0);
                }
                // Without a copy nobody asks for it again.
                let kept = if copied { tape.keep(frame, &hint, self.place.limit) } else { Err(ReplayError::NotKept) };
                match kept {
                    Err(ReplayError::TooLong) if !self.place.lose_if_latest(reading.number, ReplayError::TooLong) => {
                        // The one that waits for the tape has had nothing yet.
                        tape.keep_all_the_same(frame, &hint);
                        self.put_back(None);
                    }
                    Err(why) => self.lose(why),
                    Ok(()) => drop(self.put_back(None)),
                }
            }
            Some(Err(_)) => {
                tape.rest = None;
                self.lose(ReplayError::Failed);
            }
            None => {
                tape.end();
                self.put_back(None);
            }
        }
        Poll::Ready(polled)
    }
}

impl<B> Turn<'_, B> {
    /// Whether this attempt is still the latest.
    fn put_back(&mut self, waker: Option<Waker>) -> bool {
        let Some((mut reading, tape)) = self.held.take() else { return true };
        let is_over = tape.rest.is_none() && reading.unplayed.as_ref().is_none_or(Range::is_empty);
        let number = reading.number;
        reading.left = minus(&tape.size_hint(), reading.got);
        let is_latest = self.place.put_back(number, tape, waker);
        if is_over {
            // Not only when it is dropped: a connection may hold on to a body that it has sent.
            self.place.leave(number);
        } else {
            *self.reader = Reader::Reading(reading);
        }
        is_latest
    }

    fn lose(&mut self, why: ReplayError) {
        if let Some((reading, tape)) = self.held.take() {
            self.place.lose(reading.number, why);
            *self.reader = tape.rest.map_or(Reader::Done, Reader::Alone);
        }
    }
}

impl<B> Drop for Turn<'_, B> {
    fn drop(&mut self) {
        self.lose(ReplayError::Failed);
    }
}

fn length(frame: &Frame<Bytes>) -> u64 {
    frame.data_ref().map_or(0, |data| data.len() as u64)
}

fn pull<B: Body<Error: Into<BoxError>> + Unpin>(body: &mut B, cx: &mut Context<'_>) -> Poll<Polled> {
    let polled = ready!(Pin::new(body).poll_frame(cx));
    Poll::Ready(polled.map(|frame| match frame {
        Ok(frame) => Ok(frame.map_data(|mut data| data.copy_to_bytes(data.remaining()))),
        Err(error) => Err(error.into()),
    }))
}
