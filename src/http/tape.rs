//! What has been read of a body, and what has not.

use std::mem;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Frame, SizeHint};

use super::replay_error::ReplayError;

pub(super) struct Tape<B> {
    kept: Vec<Kept>,
    /// The data after `kept`, which grows.
    open: Vec<u8>,
    /// Bytes of data, in both.
    data: u64,
    /// Bytes of names and values, in `kept`.
    trailers: u64,
    /// `None` once it is over.
    pub(super) rest: Option<B>,
    /// Of the whole: what is kept and the rest.
    hint: SizeHint,
}

/// Copied, because a slice holds on to all of what it is a slice of.
enum Kept {
    Data(Bytes),
    // Boxed because there is one among many.
    Trailers(Box<HeaderMap>),
}

impl<B> Tape<B> {
    pub(super) const fn new(body: B, hint: SizeHint) -> Self {
        Self { kept: Vec::new(), open: Vec::new(), data: 0, trailers: 0, rest: Some(body), hint }
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        plus(0, &self.hint)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.open.is_empty() && self.rest.is_none()
    }

    /// The number of frames to be played. What is kept later has a higher one.
    pub(super) fn seal(&mut self) -> usize {
        if !self.open.is_empty() {
            self.open.shrink_to_fit();
            self.kept.push(Kept::Data(mem::take(&mut self.open).into()));
        }
        self.kept.len()
    }

    pub(super) fn play(&self, index: usize) -> Frame<Bytes> {
        match &self.kept[index] {
            Kept::Data(data) => Frame::data(data.clone()),
            Kept::Trailers(trailers) => Frame::trailers(HeaderMap::clone(trailers)),
        }
    }

    /// The rest is over.
    pub(super) fn end(&mut self) {
        self.hint = SizeHint::with_exact(self.data);
        self.rest = None;
    }

    /// Keeps a frame, or nothing of it if it and what must follow are more than the limit.
    pub(super) fn keep(&mut self, frame: &Frame<Bytes>, rest: &SizeHint, limit: u64) -> Result<(), ReplayError> {
        let (data, trailers) = (frame.data_ref(), frame.trailers_ref());
        if data.is_none() && trailers.is_none() {
            // A kind of frame that does not exist yet.
            return Err(ReplayError::NotKept);
        }
        let (data_len, trailers_len) = (data.map_or(0, |data| data.len() as u64), trailers.map_or(0, length));
        let whole = plus(self.data + data_len, rest);
        if whole.lower().saturating_add(self.trailers + trailers_len) > limit {
            return Err(ReplayError::TooLong);
        }
        if let Some(data) = data {
            self.append(data, limit);
        }
        self.push_trailers(trailers);
        (self.data, self.trailers, self.hint) = (self.data + data_len, self.trailers + trailers_len, whole);
        Ok(())
    }

    /// Keeps a frame that is over the limit, without a copy.
    pub(super) fn keep_all_the_same(&mut self, frame: &Frame<Bytes>, rest: &SizeHint) {
        self.seal();
        if let Some(data) = frame.data_ref() {
            self.data += data.len() as u64;
            self.kept.push(Kept::Data(data.clone()));
        }
        self.trailers += frame.trailers_ref().map_or(0, length);
        self.push_trailers(frame.trailers_ref());
        self.hint = plus(self.data, rest);
    }

    fn append(&mut self, data: &Bytes, limit: u64) {
        let needed = self.open.len() + data.len();
        if needed > self.open.capacity() {
            let sealed = self.data - self.open.len() as u64;
            let room = usize::try_from(limit.saturating_sub(sealed)).unwrap_or(usize::MAX);
            let capacity = needed.max(room.min(2 * self.open.capacity()));
            self.open.reserve_exact(capacity - self.open.len());
        }
        self.open.extend_from_slice(data);
    }

    fn push_trailers(&mut self, trailers: Option<&HeaderMap>) {
        // Any number of empty ones is within the limit.
        if let Some(trailers) = trailers.filter(|trailers| !trailers.is_empty()) {
            self.seal();
            self.kept.push(Kept::Trailers(Box::new(copy(trailers))));
        }
    }
}

fn length(trailers: &HeaderMap) -> u64 {
    trailers.iter().map(|(name, value)| (name.as_str().len() + value.len()) as u64).sum()
}

fn copy(trailers: &HeaderMap) -> HeaderMap {
    let copied = |(name, value): (&HeaderName, &HeaderValue)| {
        let name = HeaderName::from_bytes(name.as_str().as_bytes()).unwrap_or_else(|_| name.clone());
        let mut copied = HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| value.clone());
        copied.set_sensitive(value.is_sensitive());
        (name, copied)
    };
    let mut all = HeaderMap::with_capacity(trailers.keys_len());
    all.extend(trailers.iter().map(copied));
    all
}

// Also where a copy would do: `SizeHint` is not `Copy` before http-body 1.1.
pub(super) fn plus(bytes: u64, rest: &SizeHint) -> SizeHint {
    let mut sum = SizeHint::new();
    sum.set_lower(rest.lower().saturating_add(bytes));
    if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(bytes)) {
        sum.set_upper(upper);
    }
    sum
}

pub(super) fn minus(whole: &SizeHint, bytes: u64) -> SizeHint {
    let mut rest = SizeHint::new();
    rest.set_lower(whole.lower().saturating_sub(bytes));
    if let Some(upper) = whole.upper() {
        rest.set_upper(upper.saturating_sub(bytes));
    }
    rest
}
