//! What a circuit breaker can be told, option by option, on a paused clock: `cargo run --example circuit_breaker`

use buttress::circuit_breaker::{CircuitBreakerHandle, CircuitBreakerSettings as S, OpenTime, Window};
use buttress::{BoxError, EventKind, Outcome};
use tokio::time::{Duration, sleep};
use tower::{Service, ServiceBuilder, ServiceExt};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), BoxError> {
    for (title, settings) in [
        ("Trip: 3 failures in a row", S::consecutive_failures(3)),
        ("Trip: half of the last 10 calls failed", S::failure_rate(0.5).window(Window::Calls(10)).minimum_calls(4)),
        ("Trip: half of a minute's calls failed", S::failure_rate(0.5).window(Window::Time(60 * SECOND))),
        ("Trip: half were slow, or 50 failed", S::slow_call_rate(0.5, SECOND).or_consecutive_failures(50)),
    ] {
        let circuit = narrated(title, settings)?;
        // Without tower: ask for a permit, and settle it. Dropping it means that the call was cancelled.
        while let Ok(permit) = circuit.try_acquire() {
            sleep(SECOND).await;
            permit.failure();
        }
    }

    let circuit = narrated("Trip: slow calls count before they end", S::consecutive_failures(2).slow_calls(SECOND))?;
    let _hanging = [circuit.try_acquire()?, circuit.try_acquire()?];
    sleep(SECOND).await;
    println!("  {} now", circuit.state());

    let growing = OpenTime::exponential(SECOND, 60 * SECOND).jitter(0.1).or_retry_after(600 * SECOND);
    let settings = S::consecutive_failures(1).open_time(growing).probes(2).successes(2).half_open_timeout(5 * SECOND);
    let circuit = narrated("Open: longer with each failed probe. Half-open: 2 probes at a time, 2 close it", settings)?;
    // The last failure says itself when to come back.
    for retry_after in [None, None, None, Some(90 * SECOND)] {
        circuit.try_acquire()?.record(Outcome::Transient { retry_after });
        let wait = circuit.snapshot().time_to_half_open.unwrap_or_default();
        println!("  for {wait:.1?}");
        sleep(wait).await;
    }
    let (first, second, _third) = (circuit.try_acquire()?, circuit.try_acquire()?, circuit.try_acquire());
    first.success();
    second.success();

    let circuit = narrated("Classifier: a 5xx is a failure, a 4xx is not", S::consecutive_failures(2))?;
    let by_status = |answer: Result<&u16, &BoxError>| match answer {
        Ok(500..) | Err(_) => Outcome::TRANSIENT,
        Ok(400..) => Outcome::Permanent,
        Ok(_) => Outcome::Success,
    };
    let layers = ServiceBuilder::new().layer(circuit.layer().classify(by_status));
    let mut stack = layers.service_fn(async |status: u16| Ok::<_, BoxError>(status));
    buttress::check::<u16, _>(&stack);
    for status in [404, 404, 503, 503, 200] {
        println!("  asked for {status}: {:?}", stack.ready().await?.call(status).await.ok());
    }

    let circuit = narrated("Handle: forced open, then in shadow, where it only talks", S::consecutive_failures(1))?;
    circuit.force_open();
    circuit.shadow();
    circuit.try_acquire()?.failure();
    circuit.try_acquire()?.success();
    circuit.reset();
    Ok(())
}

/// A circuit that tells what happens to it.
fn narrated(title: &str, settings: S) -> Result<CircuitBreakerHandle, BoxError> {
    println!("\n{title}");
    let circuit = CircuitBreakerHandle::try_new(settings)?;
    circuit.on_event(|event| match event.kind {
        EventKind::Transition { to, trip, .. } => {
            println!("  {to}{}", trip.map_or("".into(), |trip| format!(": {trip}")))
        }
        EventKind::Rejected { rejected, .. } => println!("  {rejected}"),
        _ => {}
    });
    Ok(circuit)
}
