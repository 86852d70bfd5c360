//! Reading a tape.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

use super::{
    replay_error::ReplayError,
    tape::{Kept, Shared, Tape, plus},
};

/// A tape that somebody reads.
pub(super) struct Reading<B> {
    tape: Tape<B>,
    /// The first of `kept` that has not been played.
    next: usize,
    /// Of data, in `kept` from `next`.
    unplayed: u64,
    /// Whether the tape goes back.
    keeps: bool,
    /// The body is being polled; it has panicked if this is still so afterwards.
    polling: bool,
}

pub(super) enum Step<E> {
    Frame(Frame<Bytes>),
    End,
    Error(E),
}

impl<B> Reading<B> {
    pub(super) const fn new(tape: Tape<B>) -> Self {
        Self { next: 0, unplayed: tape.bytes, keeps: true, polling: false, tape }
    }

    pub(super) const fn without_keeping(tape: Tape<B>) -> Self {
        Self { next: 0, unplayed: tape.bytes, keeps: false, polling: false, tape }
    }

    /// Ends this attempt.
    pub(super) fn give_back(self, shared: &Shared<B>) {
        if !self.keeps {
            return;
        }
        if self.polling {
            shared.lose(ReplayError::Failed);
        } else {
            shared.give_back(self.tape);
        }
    }

    /// The next frame of what is kept.
    pub(super) fn play(&mut self) -> Option<Frame<Bytes>> {
        let kept = self.tape.kept.get(self.next)?.clone();
        self.next += 1;
        Some(match kept {
            Kept::Data(data) => {
                self.unplayed -= data.len() as u64;
                Frame::data(data)
            }
            Kept::Trailers(trailers) => Frame::trailers(*trailers),
        })
    }

    pub(super) fn is_over(&self) -> bool {
        self.next == self.tape.kept.len() && self.tape.rest.is_none()
    }
}

impl<B: Body + Unpin> Reading<B> {
    /// The next frame of the rest. It is kept if there is a copy to be played to.
    pub(super) fn poll_rest(&mut self, cx: &mut Context<'_>, shared: &Shared<B>, copied: bool) -> Poll<Step<B::Error>> {
        if self.polling {
            self.lose(ReplayError::Failed, shared);
        }
        let Some(rest) = &mut self.tape.rest else { return Poll::Ready(Step::End) };
        self.polling = true;
        let Poll::Ready(polled) = Pin::new(&mut *rest).poll_frame(cx) else {
            self.polling = false;
            return Poll::Pending;
        };
        let step = match polled {
            Some(Ok(frame)) => Step::Frame(frame.map_data(|mut data| data.copy_to_bytes(data.remaining()))),
            Some(Err(error)) => Step::Error(error),
            None => Step::End,
        };
        let mut hint = rest.size_hint();
        if !matches!(step, Step::Frame(_)) || rest.is_end_stream() {
            self.tape.rest = None;
            hint = SizeHint::with_exact(0);
        }
        match &step {
            Step::Frame(frame) if self.keeps => self.keep(frame, &hint, shared, copied),
            Step::Frame(_) => {}
            Step::End => self.tape.hint = SizeHint::with_exact(self.tape.bytes),
            Step::Error(_) => self.lose(ReplayError::Failed, shared),
        }
        self.polling = false;
        Poll::Ready(step)
    }

    fn keep(&mut self, frame: &Frame<Bytes>, rest: &SizeHint, shared: &Shared<B>, copied: bool) {
        let bytes = self.tape.bytes + frame.data_ref().map_or(0, Bytes::len) as u64;
        let whole = plus(bytes, rest);
        let kept = match (frame.data_ref(), frame.trailers_ref()) {
            // Without a copy nobody asks for it again.
            _ if !copied => Err(ReplayError::NotKept),
            _ if whole.lower() > shared.limit => Err(ReplayError::TooLong),
            // Any number of empty frames is within the limit.
            (Some(data), _) if data.is_empty() => Ok(None),
            (Some(data), _) => Ok(Some(Kept::Data(data.clone()))),
            (_, Some(trailers)) => Ok(Some(Kept::Trailers(Box::new(trailers.clone())))),
            // A kind of frame that does not exist yet.
            (None, None) => Err(ReplayError::NotKept),
        };
        match kept {
            Ok(kept) => {
                self.tape.kept.extend(kept);
                self.tape.bytes = bytes;
                self.tape.hint = whole;
                // This attempt has it already.
                self.next = self.tape.kept.len();
            }
            Err(why) => self.lose(why, shared),
        }
    }

    /// Everything that was kept has been played.
    fn lose(&mut self, why: ReplayError, shared: &Shared<B>) {
        if self.keeps {
            shared.lose(why);
        }
        self.keeps = false;
        self.tape.kept = Vec::new();
        self.next = 0;
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.next == self.tape.kept.len() && self.tape.rest.as_ref().is_none_or(B::is_end_stream)
    }

    /// Of what this attempt has not got yet.
    pub(super) fn size_hint(&self) -> SizeHint {
        let rest = self.tape.rest.as_ref().map_or_else(|| SizeHint::with_exact(0), B::size_hint);
        plus(self.unplayed, &rest)
    }
}
