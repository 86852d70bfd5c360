//! A handler that has no errors, and so no place for a refusal.

use std::convert::Infallible;

use buttress::circuit_breaker::{CircuitBreakerLayer, CircuitBreakerSettings};
use tower::{ServiceBuilder, service_fn};

fn main() {
    let handler = service_fn(async |n: u32| Ok::<_, Infallible>(n));
    let stack = ServiceBuilder::new().layer(CircuitBreakerLayer::new(CircuitBreakerSettings::new())).service(handler);
    buttress::check::<u32, _>(&stack);
}
