//! The wait for the inner readiness, where it counts.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Sleep;

use crate::time::{self, Instant, nanos};

pub(super) struct Wait {
    began: Instant,
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

impl Wait {
    /// The inner service is not ready.
    pub(super) fn begin(limit: u64) -> Self {
        let began = time::now();
        let until = began.saturating_add(Duration::from_nanos(limit));
        let sleep = if until == Instant::NEVER { None } else { time::sleep_until(until, began) };
        Self { began, sleep, spent: Spent::Waiting }
    }

    /// Whether all the time is spent.
    pub(super) fn poll_spent(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Spent::Waiting = self.spent {
            match &mut self.sleep {
                Some(sleep) => std::task::ready!(sleep.as_mut().poll(cx)),
                None => return Poll::Pending,
            }
            self.spent = Spent::All;
        }
        match self.spent {
            Spent::All => Poll::Ready(()),
            Spent::Waiting | Spent::Some(_) => Poll::Pending,
        }
    }

    /// The inner service is ready. How long the caller takes to make its call is its own affair.
    pub(super) fn end(&mut self) {
        if let Spent::Waiting = self.spent {
            self.spent = Spent::Some(time::now().saturating_since(self.began));
        }
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
