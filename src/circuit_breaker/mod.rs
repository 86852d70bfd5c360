//! Middleware that stops calling a dependency that is known to be down.

mod consecutive;
mod future;
mod handle;
mod in_flight;
mod keyed;
mod layer;
mod machine;
#[cfg(all(test, not(buttress_loom)))]
mod model;
mod policy;
mod ring;
mod service;
mod snapshot;
mod state;
mod tally;
mod time_window;

pub use self::{
    future::ResponseFuture,
    handle::CircuitBreakerHandle,
    keyed::{KeyedCircuitBreaker, KeyedCircuitBreakerHandle, KeyedCircuitBreakerLayer},
    layer::CircuitBreakerLayer,
    policy::{CircuitBreakerSettings, OpenTime, Opening, Window},
    service::CircuitBreaker,
    snapshot::{CircuitBreakerSnapshot, CircuitMode},
    state::Permit,
};
pub use crate::event::CircuitState;
