//! A body that can be sent once more.

use std::{
    fmt, mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{
    reading::{Reading, Step},
    replay_error::ReplayError,
    replayable::Replayable,
    tape::{Shared, Tape},
};
use crate::error::BoxError;

/// A body whose copies share what has been read of it. See the [chapter](super#a-body-that-is-read-once).
///
/// A copy yields the whole body from its beginning, however much this one has been read. Copy before the first poll:
/// what is read while there is no copy is not kept.
///
/// A body that is not `Unpin` goes in as `Box::pin(body)`.
pub struct ReplayBody<B> {
    /// `None` for a body that was over before it began, which costs nothing.
    shared: Option<Arc<Shared<B>>>,
    reader: Reader<B>,
}

enum Reader<B> {
    Unread,
    Reading(Reading<B>),
    Done,
}

impl<B: Body> ReplayBody<B> {
    /// Keeps at most `limit` bytes of this body.
    pub fn new(body: B, limit: usize) -> Self {
        if body.is_end_stream() {
            return Self { shared: None, reader: Reader::Done };
        }
        let hint = body.size_hint();
        let (shared, reader) = if hint.lower() > limit as u64 {
            let reading = Reading::without_keeping(Tape::new(body, hint));
            (Shared::lost(limit, ReplayError::TooLong), Reader::Reading(reading))
        } else {
            (Shared::new(limit, Tape::new(body, hint)), Reader::Unread)
        };
        Self { shared: Some(Arc::new(shared)), reader }
    }
}

impl<B> Body for ReplayBody<B>
where
    B: Body<Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let Some(shared) = &this.shared else { return Poll::Ready(None) };
        if matches!(this.reader, Reader::Unread) {
            match shared.take() {
                Ok(tape) => this.reader = Reader::Reading(Reading::new(tape)),
                Err(error) => {
                    this.reader = Reader::Done;
                    return Poll::Ready(Some(Err(error.into())));
                }
            }
        }
        let Reader::Reading(reading) = &mut this.reader else { return Poll::Ready(None) };
        let frame = match reading.play() {
            Some(frame) => Some(Ok(frame)),
            // This body is borrowed, so no copy of a last one can be made meanwhile.
            None => match ready!(reading.poll_rest(cx, shared, Arc::strong_count(shared) > 1)) {
                Step::Frame(frame) => Some(Ok(frame)),
                Step::Error(error) => Some(Err(error.into())),
                Step::End => None,
            },
        };
        if reading.is_over() {
            // Not only when it is dropped: a connection may hold on to a body that it has sent.
            this.give_back();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match (&self.shared, &self.reader) {
            (None, _) | (_, Reader::Done) => true,
            (Some(shared), Reader::Unread) => shared.is_empty(),
            (_, Reader::Reading(reading)) => reading.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.shared, &self.reader) {
            (None, _) | (_, Reader::Done) => SizeHint::with_exact(0),
            (Some(shared), Reader::Unread) => shared.size_hint(),
            (_, Reader::Reading(reading)) => reading.size_hint(),
        }
    }
}

impl<B> ReplayBody<B> {
    fn give_back(&mut self) {
        let reader = mem::replace(&mut self.reader, Reader::Done);
        if let (Some(shared), Reader::Reading(reading)) = (&self.shared, reader) {
            reading.give_back(shared);
        }
    }
}

impl<B> Drop for ReplayBody<B> {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl<B> Clone for ReplayBody<B> {
    /// A copy that has not been read. If there is nothing to be replayed any more, it yields the [`ReplayError`] that
    /// says why.
    fn clone(&self) -> Self {
        let reader = if self.shared.is_some() { Reader::Unread } else { Reader::Done };
        Self { shared: self.shared.clone(), reader }
    }
}

impl<B> Replayable for ReplayBody<B> {
    fn replay(&self) -> Option<Self> {
        self.can_replay().then(|| self.clone())
    }

    /// Whether nothing of the body is lost. One that another attempt still holds is not.
    fn can_replay(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| !shared.is_lost())
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    /// Without the content, which is nobody's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayBody").field("can_replay", &self.can_replay()).finish_non_exhaustive()
    }
}
