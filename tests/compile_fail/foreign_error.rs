//! A client with an error of its own, and the line forgotten that gives a refusal a place in it.

use buttress::circuit_breaker::{CircuitBreakerLayer, CircuitBreakerSettings};
use tower::{ServiceBuilder, service_fn};

fn main() {
    let client = service_fn(|_: u32| std::future::ready(Err::<(), _>(std::io::Error::other("down"))));
    let stack = ServiceBuilder::new().layer(CircuitBreakerLayer::new(CircuitBreakerSettings::new())).service(client);
    buttress::check::<u32, _>(&stack);
}
