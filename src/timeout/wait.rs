//! The wait for the inner readiness, where it counts.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::Sleep;

use crate::time::{self, Instant, nanos};

pub(super) struct Wait {
    began: Instant,
    ends: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
    spent: Spent,
}

/// What the call that follows has left.
enum Spent {
    /// The inner service is not ready yet.
    Waiting,
    Some(Duration),
    All,
}

/// Who waits comes when the timer says so. Who comes later than this has not waited, but given up in between and begun anew.
const GIVEN_UP: Duration = Duration::from_secs(1);

impl Wait {
    /// The inner service is not ready.
    pub(super) fn begin(limit: u64) -> Self {
        let began = time::now();
        let ends = began.saturating_add(Duration::from_nanos(limit));
        let sleep = if ends == Instant::NEVER { None } else { time::sleep_until(ends, began) };
        Self { began, ends, sleep, spent: Spent::Waiting }
    }

    /// Whether all the time is spent.
    pub(super) fn poll_spent(&mut self, limit: u64, cx: &mut Context<'_>) -> Poll<()> {
        if !matches!(self.spent, Spent::Waiting) || time::now() > self.ends.saturating_add(GIVEN_UP) {
            // It was ready, or refused, and not called since.
            *self = Self::begin(limit);
        }
        match &mut self.sleep {
            Some(sleep) => ready!(sleep.as_mut().poll(cx)),
            None => return Poll::Pending,
        }
        self.spent = Spent::All;
        Poll::Ready(())
    }

    /// The inner service is ready. How long the caller takes to make its call is its own affair.
    pub(super) fn end(&mut self) {
        let now = time::now();
        self.spent = match self.spent {
            Spent::Waiting if now <= self.ends.saturating_add(GIVEN_UP) => {
                Spent::Some(now.saturating_since(self.began))
            }
            Spent::Waiting | Spent::All => Spent::Some(Duration::ZERO),
            Spent::Some(spent) => Spent::Some(spent),
        };
        self.sleep = None;
    }

    /// What is left of the limit for the call, or `None` if it is not to be made.
    pub(super) fn left(&self, limit: u64) -> Option<u64> {
        match self.spent {
            Spent::All => None,
            // Endless stays endless.
            _ if limit == u64::MAX => Some(limit),
            Spent::Waiting => Some(limit),
            Spent::Some(spent) => Some(limit.saturating_sub(nanos(spent))),
        }
    }
}
