//! The retry, on paused time.

#![cfg(feature = "full")]

#[path = "../support/mod.rs"]
mod support;

mod attempts;
mod budget;
mod requests;
mod time;

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use buttress::{
    Event, EventKind, GaveUp, Rejected,
    retry::{Backoff, Jitter, RetrySettings},
};
use support::AppError;
use tokio::time::{Instant, sleep};
use tower::Service;

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// Waits 1, 2, 4, 8 s and is never short of budget.
const PLAIN: RetrySettings =
    RetrySettings::new().backoff(Backoff::exponential(SECOND).jitter(Jitter::None)).without_budget();

type Answer = Result<u32, AppError>;

/// A dependency that answers each attempt as it is told, after a while, and keeps a diary.
#[derive(Clone)]
struct Dependency(Arc<Diary>);

struct Diary {
    began: Instant,
    answer: Box<dyn Fn(usize) -> (Duration, Answer) + Send + Sync>,
    attempts: Mutex<Vec<(Duration, u32)>>,
}

impl Dependency {
    /// Answers the attempts by their number, from 0.
    fn new(answer: impl Fn(usize) -> (Duration, Answer) + Send + Sync + 'static) -> Self {
        Self(Arc::new(Diary { began: Instant::now(), answer: Box::new(answer), attempts: Mutex::default() }))
    }

    fn at_once(answer: impl Fn(usize) -> Answer + Send + Sync + 'static) -> Self {
        Self::new(move |attempt| (Duration::ZERO, answer(attempt)))
    }

    fn down() -> Self {
        Self::at_once(|_| Err(AppError::Down))
    }

    fn attempts(&self) -> usize {
        self.0.attempts.lock().unwrap().len()
    }

    /// When the attempts began, in whole milliseconds.
    fn times(&self) -> Vec<u128> {
        self.0.attempts.lock().unwrap().iter().map(|(at, _)| at.as_millis()).collect()
    }

    fn requests(&self) -> Vec<u32> {
        self.0.attempts.lock().unwrap().iter().map(|(_, request)| *request).collect()
    }
}

impl Service<u32> for Dependency {
    type Response = u32;
    type Error = AppError;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), AppError>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u32) -> Self::Future {
        let number = {
            let mut attempts = self.0.attempts.lock().unwrap();
            attempts.push((self.0.began.elapsed(), request));
            attempts.len() - 1
        };
        let (after, answer) = (self.0.answer)(number);
        Box::pin(async move {
            if !after.is_zero() {
                sleep(after).await;
            }
            answer
        })
    }
}

/// What a listener has heard, without the parts that hang on chance.
#[derive(Clone, Debug, Default)]
struct Heard(Arc<Mutex<Vec<Told>>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Retry { attempt: u32, delay: Duration },
    Retried { attempts: u32, elapsed: Duration, gave_up: Option<GaveUp> },
}

impl Heard {
    fn listener(&self) -> impl Fn(&Event<'_>) + Send + Sync + 'static {
        let heard = self.clone();
        move |event| {
            let told = match event.kind {
                EventKind::Retry { attempt, delay, .. } => Told::Retry { attempt, delay },
                EventKind::Retried { attempts, elapsed, gave_up, .. } => Told::Retried { attempts, elapsed, gave_up },
                other => panic!("{other:?}"),
            };
            heard.0.lock().unwrap().push(told);
        }
    }

    fn all(&self) -> Vec<Told> {
        self.0.lock().unwrap().clone()
    }

    /// Why the last call that was told of gave up.
    fn gave_up(&self) -> Option<GaveUp> {
        match self.all().last() {
            Some(Told::Retried { gave_up, .. }) => *gave_up,
            _ => None,
        }
    }
}

fn refused(reason: buttress::Reason, retry_after: Option<Duration>) -> AppError {
    let rejected = Rejected::new("inside", reason);
    AppError::Rejected(retry_after.map_or(rejected, |wait| rejected.with_retry_after(wait)))
}
