//! A caller that waits for the readiness of the inner service, and must hear of a trip and of the time.

use std::{pin::Pin, task::Context};

use tokio::time::Sleep;

use super::state::{Circuit, Seat};
use crate::time::{self, Instant};

#[derive(Default)]
pub(super) struct Wait {
    seat: Option<Seat>,
    /// Ends the wait when time alone changes the answer. Made once there is something to wait for.
    timer: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Wait {
    /// Asks to be woken by a trip, and by the clock where that alone will change the answer.
    ///
    /// Returns whether to ask again at once: between the answer and here, a trip would not have found the waker.
    pub(super) fn park(
        &mut self,
        circuit: &Circuit,
        still_admitted: impl FnOnce() -> bool,
        cx: &mut Context<'_>,
    ) -> bool {
        circuit.park(&mut self.seat, cx.waker());
        let now = time::now();
        if circuit.changes_at(now).is_some_and(|at| at <= now) {
            // Time changes a state only when somebody looks.
            circuit.state();
        }
        if !still_admitted() {
            return true;
        }
        // What is still in the past now will not come: a timer for it would be over at once, again and again.
        let at = circuit.changes_at(now).filter(|at| *at > now && *at != Instant::NEVER);
        // A timer that is over earlier does no harm, and need not be made anew.
        if let Some(at) = at
            && self.timer.as_ref().is_none_or(|(armed, _)| *armed > at)
        {
            self.timer = time::sleep(at.saturating_since(now)).map(|sleep| (at, sleep));
        }
        let is_over = self.timer.as_mut().is_some_and(|(_, sleep)| sleep.as_mut().poll(cx).is_ready());
        if is_over {
            self.timer = None;
            circuit.state();
        }
        is_over
    }
}
