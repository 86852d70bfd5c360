//! A body that can be sent once more.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{
    place::Place,
    reading::Reader,
    replay_error::ReplayError,
    replayable::Replayable,
    tape::{Tape, plus},
};
use crate::error::BoxError;

/// A body whose copies share what has been read of it. See the [chapter](super#a-body-that-is-read-once).
///
/// A copy yields the whole body from its beginning, however much this one has been read. Copy before the first poll:
/// what is read while there is no copy is not kept.
///
/// Only one of them reads: the one that was the last to begin, and the others yield [`ReplayError::Superseded`] from
/// then on. The original does not take over from a copy that still reads: send it first.
///
/// A body that is not `Unpin` goes in as `Box::pin(body)`.
pub struct ReplayBody<B> {
    /// `None` for a body that was over before it began, which costs nothing.
    place: Option<Arc<Place<B>>>,
    reader: Reader<B>,
}

impl<B: Body> ReplayBody<B> {
    /// Keeps at most `limit` bytes of this body, data and trailers.
    pub fn new(body: B, limit: usize) -> Self {
        if body.is_end_stream() {
            return Self { place: None, reader: Reader::Done };
        }
        let hint = body.size_hint();
        let (place, reader) = if hint.lower() > limit as u64 {
            (Place::lost(limit, ReplayError::TooLong), Reader::Alone(body))
        } else {
            (Place::new(limit, Tape::new(body, hint)), Reader::Unread { original: true })
        };
        Self { place: Some(Arc::new(place)), reader }
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
        let Some(place) = &this.place else { return Poll::Ready(None) };
        // This body is borrowed, so no copy of a last one can be made meanwhile.
        this.reader.poll(cx, place, Arc::strong_count(place) > 1)
    }

    fn is_end_stream(&self) -> bool {
        match (&self.place, &self.reader) {
            (None, _) | (_, Reader::Done) => true,
            (Some(place), Reader::Unread { .. }) => place.is_empty(),
            // It is done once it is over.
            (_, Reader::Reading(_)) => false,
            (_, Reader::Alone(body)) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.place, &self.reader) {
            (None, _) | (_, Reader::Done) => SizeHint::with_exact(0),
            (Some(place), Reader::Unread { .. }) => place.size_hint(),
            (_, Reader::Reading(reading)) => plus(0, &reading.left),
            (_, Reader::Alone(body)) => body.size_hint(),
        }
    }
}

impl<B> Drop for ReplayBody<B> {
    fn drop(&mut self) {
        if let (Some(place), Reader::Reading(reading)) = (&self.place, &self.reader) {
            place.leave(reading.number);
        }
    }
}

impl<B> Clone for ReplayBody<B> {
    /// A copy that has not been read. If there is nothing to be replayed any more, it yields the [`ReplayError`] that
    /// says why.
    fn clone(&self) -> Self {
        let reader = if self.place.is_some() { Reader::Unread { original: false } } else { Reader::Done };
        Self { place: self.place.clone(), reader }
    }
}

impl<B> Replayable for ReplayBody<B> {
    fn replay(&self) -> Option<Self> {
        self.can_replay().then(|| self.clone())
    }

    /// Whether nothing of the body is lost. One that another attempt reads is not.
    fn can_replay(&self) -> bool {
        self.place.as_ref().is_none_or(|place| !place.is_lost())
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    /// Without the content, which is nobody's business.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayBody").field("can_replay", &self.can_replay()).finish_non_exhaustive()
    }
}
