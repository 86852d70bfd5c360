//! Whether Redis is away, and who hears of it.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use crate::{
    event::{EventKind, Events},
    time::{self, Instant},
};

/// As of the last question.
#[derive(Default)]
pub(super) struct Away {
    is: AtomicBool,
    /// When the first call began that was decided alone in the last absence, and when Redis answered again: in nanoseconds.
    from: AtomicU64,
    back: AtomicU64,
}

impl Away {
    pub(super) fn is(&self) -> bool {
        self.is.load(Ordering::Relaxed)
    }

    /// Each change is told once.
    pub(super) fn set(&self, is_away: bool, events: &Events) {
        if self.is() != is_away && self.is.swap(is_away, Ordering::Relaxed) != is_away {
            if !is_away {
                self.back.store(time::now().as_nanos(), Ordering::Relaxed);
            }
            events.emit(|| EventKind::StoreSwitched { shared: !is_away });
        }
    }

    /// A call that began then had no answer, because Redis is away or only its key is.
    pub(super) fn decided_alone(&self, began: Instant, is_away: bool, events: &Events) {
        let (began, back) = (began.as_nanos(), self.back.load(Ordering::Relaxed));
        let goes_on = self.is() || began <= back;
        let from = |from| if goes_on || from > back { began.min(from) } else { began };
        self.from.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| Some(from(old))).ok();
        if !is_away {
            self.back.fetch_max(time::now().as_nanos(), Ordering::Relaxed);
        }
        self.set(is_away, events);
    }

    /// Whether a call may have been decided alone that was so long ago: during the last absence.
    pub(super) fn was_at(&self, ago: Duration) -> bool {
        let at = time::now().saturating_sub(ago).as_nanos();
        let (from, back) = (self.from.load(Ordering::Relaxed), self.back.load(Ordering::Relaxed));
        from <= at && (self.is() || at < back)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Pattern;

    const SECOND: Duration = Duration::from_secs(1);

    /// Calls that began one second after another, and each was decided a second later.
    #[tokio::test(start_paused = true)]
    async fn what_was_decided_alone_is_known_while_redis_is_away_and_afterwards() {
        for is_away in [true, false] {
            let (away, events) = (Away::default(), Events::keyed(Pattern::RateLimit, "away"));
            for _ in 0..3 {
                assert!(!away.was_at(Duration::ZERO));
                let before = time::now();
                tokio::time::advance(SECOND).await;
                let began = [time::now(), time::now().saturating_add(SECOND)];
                tokio::time::advance(2 * SECOND).await;
                for began in began {
                    away.decided_alone(began, is_away, &events);
                }
                assert_eq!(away.is(), is_away);
                tokio::time::advance(SECOND).await;
                away.set(false, &events);
                tokio::time::advance(SECOND).await;
                let ago = |at| time::now().saturating_since(at);
                assert!(began.iter().all(|began| away.was_at(ago(*began))));
                assert!(!away.was_at(ago(before)) && !away.was_at(Duration::ZERO));
            }
        }
    }
}
