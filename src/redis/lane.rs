//! One place for a shared connection, and the one flight that fills it.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{
    failure::RedisFailure,
    source::{Shared, Source},
};
use crate::sync::Mutex;

/// A connection that many operations share, and its number in its slot.
#[derive(Clone)]
pub(super) struct Lane {
    pub(super) connection: Shared,
    number: u64,
}

#[derive(Clone, Default)]
pub(super) struct Slot(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    number: u64,
    is: Is,
}

#[derive(Default)]
enum Is {
    #[default]
    Empty,
    Connecting(watch::Receiver<Option<RedisFailure>>),
    Ready(Shared),
}

/// What a look at the slot finds.
enum Found {
    Lane(Lane),
    Flight(watch::Receiver<Option<RedisFailure>>),
}

impl Slot {
    /// The lane, once there is one. Whoever finds none has it made, in a task that outlives the asking.
    pub(super) async fn lane(&self, source: &Source, connect_timeout: Duration) -> Result<Lane, RedisFailure> {
        loop {
            let mut flight = match self.find(source, connect_timeout) {
                Found::Lane(lane) => return Ok(lane),
                Found::Flight(flight) => flight,
            };
            if flight.changed().await.is_err() {
                // The task was dropped with its runtime.
                self.clear();
                return Err(RedisFailure::Disconnected);
            }
            if let Some(failure) = *flight.borrow() {
                return Err(failure);
            }
        }
    }

    fn find(&self, source: &Source, connect_timeout: Duration) -> Found {
        let (tell, flight) = {
            let mut state = self.0.lock();
            match &state.is {
                Is::Ready(connection) => {
                    return Found::Lane(Lane { connection: connection.clone(), number: state.number });
                }
                Is::Connecting(flight) => return Found::Flight(flight.clone()),
                Is::Empty => {}
            }
            let (tell, flight) = watch::channel(None);
            state.is = Is::Connecting(flight.clone());
            (tell, flight)
        };
        let (slot, source) = (self.clone(), source.clone());
        tokio::spawn(async move {
            let connected = match tokio::time::timeout(connect_timeout, source.connect(connect_timeout)).await {
                Ok(connected) => connected,
                Err(_) => Err(RedisFailure::TimedOut),
            };
            let failure = connected.as_ref().err().copied();
            slot.land(connected.ok());
            tell.send_replace(failure);
        });
        Found::Flight(flight)
    }

    fn land(&self, connection: Option<Shared>) {
        let mut state = self.0.lock();
        state.number += 1;
        state.is = connection.map_or(Is::Empty, Is::Ready);
    }

    fn clear(&self) {
        let mut state = self.0.lock();
        if matches!(&state.is, Is::Connecting(flight) if flight.has_changed().is_err()) {
            state.is = Is::Empty;
        }
    }

    /// Forgets a lane that is broken, unless another one is in its place already. Whether it did.
    pub(super) fn drop_lane(&self, lane: &Lane) -> bool {
        let mut state = self.0.lock();
        let is_there = matches!(state.is, Is::Ready(_)) && state.number == lane.number;
        if is_there {
            state.is = Is::Empty;
        }
        is_there
    }

    /// Forgets whatever lane there is. Who asks on it goes on.
    pub(super) fn forget(&self) {
        let mut state = self.0.lock();
        if matches!(state.is, Is::Ready(_)) {
            state.is = Is::Empty;
        }
    }
}
