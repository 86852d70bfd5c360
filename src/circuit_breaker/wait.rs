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
        if !still_admitted() {
            return true;
        }
        let at = circuit.changes_at().filter(|at| *at != Instant::NEVER);
        if self.timer.as_ref().map(|(at, _)| *at) != at {
            let arm = |at: Instant| Some((at, time::sleep(at.saturating_since(time::now()))?));
            self.timer = at.and_then(arm);
        }
        let is_over = self.timer.as_mut().is_some_and(|(_, sleep)| sleep.as_mut().poll(cx).is_ready());
        if is_over {
            self.timer = None;
            // Time changes a state only when somebody looks.
            circuit.state();
        }
        is_over
    }
}
