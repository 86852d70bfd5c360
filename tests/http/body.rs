//! A body that follows a script, and a reader that writes down what it got.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use buttress::BoxError;
use bytes::Bytes;
use futures::task::noop_waker_ref;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

#[derive(Clone, Debug)]
pub enum Do {
    Data(&'static [u8]),
    Trailers(&'static str),
    Pend,
    Fail,
    Panic,
}

/// Counts its polls. Says how long it is only if it is told to.
#[derive(Debug)]
pub struct Script {
    steps: VecDeque<Do>,
    pub polls: Arc<AtomicUsize>,
    hint: SizeHint,
    knows_its_end: bool,
}

impl Script {
    pub fn new(steps: &[Do]) -> Self {
        Self {
            steps: steps.iter().cloned().collect(),
            polls: Arc::default(),
            hint: SizeHint::new(),
            knows_its_end: false,
        }
    }

    /// Says how many bytes are left at least, and when it is over.
    pub fn honest(mut self) -> Self {
        let bytes = self.steps.iter().map(|step| if let Do::Data(data) = step { data.len() as u64 } else { 0 }).sum();
        self.hint = SizeHint::with_exact(bytes);
        self.knows_its_end = true;
        self
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.polls.fetch_add(1, Ordering::Relaxed);
        match self.steps.pop_front() {
            None => Poll::Ready(None),
            Some(Do::Data(data)) => {
                if let Some(left) = self.hint.exact() {
                    self.hint = SizeHint::with_exact(left - data.len() as u64);
                }
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(data)))))
            }
            Some(Do::Trailers(value)) => {
                let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), value.parse().unwrap())]);
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            Some(Do::Pend) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Do::Fail) => Poll::Ready(Some(Err("the disk is gone".into()))),
            Some(Do::Panic) => panic!("the body panics"),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.knows_its_end && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        self.hint
    }
}

/// What a reader got.
#[derive(Debug, Default)]
pub struct Got {
    pub data: Vec<u8>,
    pub trailers: Vec<String>,
    pub pending: bool,
    pub ended: bool,
    pub error: Option<BoxError>,
}

impl Got {
    pub fn text(&self) -> &str {
        str::from_utf8(&self.data).unwrap()
    }

    pub fn whole(&self) -> (&str, Vec<&str>) {
        assert!(self.ended, "not to the end: {self:?}");
        (self.text(), self.trailers.iter().map(String::as_str).collect())
    }
}

/// Polls so often at most, and stops at what is no frame.
pub fn poll_times<B: Body<Data = Bytes, Error = BoxError> + Unpin>(body: &mut B, times: usize) -> Got {
    let mut got = Got::default();
    for _ in 0..times {
        match Pin::new(&mut *body).poll_frame(&mut Context::from_waker(noop_waker_ref())) {
            Poll::Pending => got.pending = true,
            Poll::Ready(None) => got.ended = true,
            Poll::Ready(Some(Err(error))) => got.error = Some(error),
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(trailers) = frame.trailers_ref() {
                    got.trailers.push(trailers["x-sum"].to_str().unwrap().into());
                }
                got.data.extend(frame.into_data().unwrap_or_default());
                continue;
            }
        }
        break;
    }
    got
}

/// Reads to the end or to an error, past every `Pending`.
pub fn read<B: Body<Data = Bytes, Error = BoxError> + Unpin>(body: &mut B) -> Got {
    let mut all = Got::default();
    loop {
        let got = poll_times(body, usize::MAX);
        all.data.extend(got.data);
        all.trailers.extend(got.trailers);
        (all.ended, all.error) = (got.ended, got.error);
        if !got.pending {
            return all;
        }
    }
}
