//! What the tests share: an inner service that misbehaves on command, and notices when it is misused.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use buttress::{AsRejected, Rejected};
use tower::Service;

/// A user's own error, with a place for a refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    Rejected(#[from] Rejected),
    #[error("the dependency failed")]
    Down,
    #[error("not ready: {0}")]
    NotReady(&'static str),
}

impl AsRejected for AppError {
    fn as_rejected(&self) -> Option<Rejected> {
        Rejected::find(self)
    }
}

/// What the probe does when it is asked whether it is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    Yes,
    /// Pending, without a promise to wake: `Control::ready` wakes.
    Never,
    /// Pending so often, waking at once, before it is ready.
    After(u32),
    Error,
    Panic,
}

/// What the probe does when it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Ok,
    Err,
    /// Pending so often, waking at once, then `Ok`.
    After(u32),
    Never,
    PanicInCall,
    PanicInFuture,
}

/// An inner service that loses its readiness when it is cloned and panics when it is called without.
pub struct Probe {
    control: Arc<Control>,
    ready: bool,
    readiness_polls: u32,
}

/// The test's hand on every clone of a [`Probe`].
pub struct Control {
    script: Mutex<(Ready, Answer)>,
    wakers: Mutex<Vec<Waker>>,
    pub calls: AtomicUsize,
    pub readiness: AtomicUsize,
    /// Futures that exist.
    pub alive: AtomicUsize,
}

impl Probe {
    pub fn new() -> (Self, Arc<Control>) {
        let control = Arc::new(Control {
            script: Mutex::new((Ready::Yes, Answer::Ok)),
            wakers: Mutex::default(),
            calls: AtomicUsize::new(0),
            readiness: AtomicUsize::new(0),
            alive: AtomicUsize::new(0),
        });
        (Self { control: Arc::clone(&control), ready: false, readiness_polls: 0 }, control)
    }
}

impl Control {
    pub fn ready(&self, ready: Ready) {
        self.script.lock().unwrap().0 = ready;
        self.wakers.lock().unwrap().drain(..).for_each(Waker::wake);
    }

    pub fn answer(&self, answer: Answer) {
        self.script.lock().unwrap().1 = answer;
    }

    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    pub fn alive(&self) -> usize {
        self.alive.load(Ordering::SeqCst)
    }

    fn script(&self) -> (Ready, Answer) {
        *self.script.lock().unwrap()
    }
}

impl Clone for Probe {
    fn clone(&self) -> Self {
        // Readiness belongs to an instance: `ConcurrencyLimit`, `Buffer` and `LoadShed` do the same.
        Self { control: Arc::clone(&self.control), ready: false, readiness_polls: 0 }
    }
}

impl Service<u32> for Probe {
    type Response = u32;
    type Error = AppError;
    type Future = ProbeFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), AppError>> {
        self.control.readiness.fetch_add(1, Ordering::SeqCst);
        match self.control.script().0 {
            Ready::After(n) if self.readiness_polls < n => {
                self.readiness_polls += 1;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Ready::Yes | Ready::After(_) => {
                self.readiness_polls = 0;
                self.ready = true;
                Poll::Ready(Ok(()))
            }
            Ready::Never => {
                self.control.wakers.lock().unwrap().push(cx.waker().clone());
                Poll::Pending
            }
            Ready::Error => Poll::Ready(Err(AppError::NotReady("told so"))),
            Ready::Panic => panic!("readiness"),
        }
    }

    fn call(&mut self, request: u32) -> ProbeFuture {
        assert!(std::mem::take(&mut self.ready), "called without being ready");
        self.control.calls.fetch_add(1, Ordering::SeqCst);
        let answer = self.control.script().1;
        assert_ne!(answer, Answer::PanicInCall, "told so");
        self.control.alive.fetch_add(1, Ordering::SeqCst);
        ProbeFuture { control: Arc::clone(&self.control), answer, polls: 0, request }
    }
}

pub struct ProbeFuture {
    control: Arc<Control>,
    answer: Answer,
    polls: u32,
    request: u32,
}

impl Future for ProbeFuture {
    type Output = Result<u32, AppError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.polls += 1;
        match self.answer {
            Answer::After(n) if self.polls <= n => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Answer::Ok | Answer::After(_) => Poll::Ready(Ok(self.request)),
            Answer::Err => Poll::Ready(Err(AppError::Down)),
            Answer::Never => Poll::Pending,
            Answer::PanicInCall | Answer::PanicInFuture => panic!("told so"),
        }
    }
}

impl Drop for ProbeFuture {
    fn drop(&mut self) {
        self.control.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The clock of these tests is tokio's: with `quanta` none of them means anything.
#[test]
fn paused_time_drives_the_crate() {
    let quanta = cfg!(feature = "quanta");
    assert!(
        !quanta,
        "paused time does not drive feature `quanta`: run `scripts/test`, or `cargo test --features full`"
    );
}
