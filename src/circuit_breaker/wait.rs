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
        if circuit.changes_at().is_some_and(|at| at <= now) {
            // Time changes a state only when somebody looks.
            circuit.state();
        }
        if !still_admitted() {
            return true;
        }
        // What is still in the past now will not come: a timer for it would be over at once, again and again.
        let at = circuit.changes_at().filter(|at| *at > now && *at != Instant::NEVER);
        if self.timer.as_ref().map(|(at, _)| *at) != at {
            let arm = |at: Instant| Some((at, time::sleep(at.saturating_since(now))?));
            self.timer = at.and_then(arm);
        }
        let is_over = self.timer.as_mut().is_some_and(|(_, sleep)| sleep.as_mut().poll(cx).is_ready());
        if is_over {
            self.timer = None;
            circuit.state();
        }
        is_over
    }
}
