//! What a deadline is and who obeys it, on a paused clock: `cargo run --example deadline`
//!
//! It is a test as well: what it says has come out like this, or it fails.

use std::{convert::Infallible, future::pending};

use buttress::circuit_breaker::{CircuitBreakerLayer, CircuitBreakerSettings, CircuitState};
use buttress::retry::{Backoff, Jitter, RetryLayer, RetrySettings};
use buttress::{
    AsRejected, BoxError, Deadline, DeadlineLayer, EventKind, Reason, StampDeadlineLayer, timeout::TimeoutLayer,
};
use tokio::time::{Duration, Instant, sleep};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

const SECOND: Duration = Duration::from_secs(1);
const RETRY: RetrySettings =
    RetrySettings::new().attempts(10).backoff(Backoff::constant(SECOND).jitter(Jitter::None)).without_budget();

/// What our caller sends us, or we send on.
#[derive(Clone, Copy, Default)]
struct Request {
    /// How long its sender waits, if it says so: a field here, a header in real life.
    patience: Option<Duration>,
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), BoxError> {
    set_and_read().await?;
    retry().await?;
    timeout_or_deadline().await?;
    end_of_a_call().await?;
    tasks().await?;
    next_hop().await
}

async fn set_and_read() -> Result<(), BoxError> {
    title("Set by a layer (10 s) and by the request inside it: the earlier one holds");
    let stack = ServiceBuilder::new()
        .layer(DeadlineLayer::new(10 * SECOND))
        .layer(DeadlineLayer::from_request(|request: &Request| request.patience))
        .service_fn(|_| {
            let in_call = Deadline::current();
            async move { Ok::<_, Infallible>((in_call, Deadline::current())) }
        });
    println!("  the request says    read in `call`    read in the future");
    for (patience, expected) in [(Some(2 * SECOND), 2), (Some(60 * SECOND), 10), (None, 10)] {
        let (in_call, in_future) = stack.oneshot(Request { patience }).await?;
        let left = in_future.map(Deadline::remaining);
        println!("  {:<18}  {:<16}  {}", show(patience), show(in_call.map(Deadline::remaining)), show(left));
        claim(in_call.is_none(), "it is in force in a future, not in `call`")?;
        claim(is_about(left, expected * SECOND), "the earlier one holds")?;
    }
    claim(Deadline::current().is_none(), "there is none outside")
}

async fn retry() -> Result<(), BoxError> {
    title("Retry: ten attempts a second apart, and a caller who waits 2.5 s");
    let (began, client) = (Instant::now(), service_fn(refuse_connection));
    let stack = ServiceBuilder::new().layer(DeadlineLayer::new(SECOND * 5 / 2)).layer(RetryLayer::new(RETRY).on_event(
        move |event| match event.kind {
            EventKind::Retry { attempt, delay, .. } => {
                println!("  {}: attempt {attempt} failed, the next one is in {delay:?}", show(Some(began.elapsed())));
            }
            EventKind::Retried { attempts, gave_up: Some(why), .. } => {
                println!("  {}: no more after attempt {attempts}: {}", show(Some(began.elapsed())), why.as_str());
            }
            _ => {}
        },
    ));
    let result = stack.service(client).oneshot(Request::default()).await;
    println!("  the answer: {}", told(&result));
    claim(is_about(Some(began.elapsed()), 2 * SECOND), "it does not sleep until the deadline in vain")?;
    claim(result.is_err_and(|error| error.as_rejected().is_none()), "the last error is the answer")
}

async fn timeout_or_deadline() -> Result<(), BoxError> {
    title("Time-out of an attempt: 1 s, on a server that hangs, with a breaker outside that opens on 3 failures");
    let breaker = CircuitBreakerLayer::new(CircuitBreakerSettings::consecutive_failures(3));
    let circuit = breaker.handle();
    let stack = ServiceBuilder::new()
        .layer(DeadlineLayer::from_request(|request: &Request| request.patience))
        .layer(breaker)
        .layer(TimeoutLayer::new(SECOND))
        .service_fn(hang);
    for (caller, patience, calls, reason, state) in [
        ("by who waits for 0.3 s", Some(SECOND * 3 / 10), 20, Reason::DeadlineExceeded, CircuitState::Closed),
        ("by who waits for 5 s", Some(5 * SECOND), 2, Reason::TimedOut, CircuitState::Closed),
        ("by who waits for ever", None, 1, Reason::TimedOut, CircuitState::Open),
    ] {
        for _ in 0..calls {
            let result = stack.clone().oneshot(Request { patience }).await;
            claim(reason_of(&result) == Some(reason), "what came first is the reason")?;
        }
        let (reason, now) = (reason.to_string(), circuit.snapshot());
        println!(
            "  {calls:>2} calls, {caller:<22}  {reason:<17}  failures: {}  circuit: {}",
            now.consecutive_failures, now.state
        );
        claim(circuit.state() == state, "only a time-out is the server's failure")?;
    }
    Ok(())
}

async fn end_of_a_call() -> Result<(), BoxError> {
    title("Nothing ends a call at its deadline but a time-out, if only one without a limit");
    let deadline = || DeadlineLayer::from_request(|request: &Request| request.patience);
    let bare = ServiceBuilder::new().layer(deadline()).service_fn(answer_late);
    let ended = ServiceBuilder::new().layer(deadline()).layer(TimeoutLayer::new(Duration::MAX)).service_fn(answer_late);

    let hurried = Request { patience: Some(SECOND) };
    let (time, result) = timed(bare, hurried).await;
    println!("  a deadline of 1 s alone:           {} after {}", told(&result), show(Some(time)));
    claim(result.is_ok() && is_about(Some(time), 5 * SECOND), "a deadline alone ends nothing")?;

    let (time, result) = timed(ended.clone(), hurried).await;
    println!("  with TimeoutLayer(Duration::MAX):  {} after {}", told(&result), show(Some(time)));
    claim(reason_of(&result) == Some(Reason::DeadlineExceeded) && is_about(Some(time), SECOND), "it ends the call")?;

    let (time, result) = timed(ended, Request::default()).await;
    println!("  the same without any deadline:     {} after {}", told(&result), show(Some(time)));
    claim(result.is_ok() && is_about(Some(time), 5 * SECOND), "it has no limit of its own")
}

async fn tasks() -> Result<(), BoxError> {
    title("Tasks: a spawned one has no deadline, unless it is handed over");
    let look = async || Deadline::current().map(Deadline::remaining);
    let handler = service_fn(async |_: Request| {
        let alone = tokio::spawn(look()).await?;
        let handed = match Deadline::current() {
            Some(deadline) => tokio::spawn(deadline.scope(look())).await?,
            None => None,
        };
        Ok::<_, BoxError>((alone, handed))
    });
    let stack = ServiceBuilder::new().layer(DeadlineLayer::new(2 * SECOND)).service(handler);
    let (alone, handed) = stack.oneshot(Request::default()).await?;
    println!("  spawned as it is:       {}", show(alone));
    println!("  spawned in its scope:   {}", show(handed));
    claim(alone.is_none() && is_about(handed, 2 * SECOND), "it is there only where it was handed over")
}

async fn next_hop() -> Result<(), BoxError> {
    title("The next service is told what is left, by every attempt");
    let stack = ServiceBuilder::new()
        .layer(DeadlineLayer::new(SECOND * 5 / 2))
        .layer(RetryLayer::new(RETRY))
        .layer(StampDeadlineLayer::new(|request: &mut Request, left| request.patience = Some(left)))
        .service_fn(async |request: Request| {
            println!("  the request says: {}", show(request.patience));
            match request.patience {
                Some(left) if left < SECOND => Ok(left),
                _ => refuse_connection(request).await,
            }
        });
    let left = stack.oneshot(Request::default()).await?;
    claim(is_about(Some(left), SECOND / 2), "two seconds were spent on two retries")
}

async fn refuse_connection(_: Request) -> Result<Duration, BoxError> {
    Err("connection refused".into())
}

async fn hang(_: Request) -> Result<(), BoxError> {
    pending().await
}

async fn answer_late(_: Request) -> Result<(), BoxError> {
    sleep(5 * SECOND).await;
    Ok(())
}

async fn timed<S: Service<Request>>(stack: S, request: Request) -> (Duration, Result<S::Response, S::Error>) {
    let began = Instant::now();
    let result = stack.oneshot(request).await;
    (began.elapsed(), result)
}

fn reason_of<T>(result: &Result<T, BoxError>) -> Option<Reason> {
    result.as_ref().err()?.as_rejected().map(|rejected| rejected.reason())
}

/// Timers are up to a few milliseconds late.
fn is_about(time: Option<Duration>, expected: Duration) -> bool {
    time.is_some_and(|time| time.abs_diff(expected) < Duration::from_millis(20))
}

fn show(time: Option<Duration>) -> String {
    time.map_or("none".into(), |time| format!("{:.1} s", time.as_secs_f64()))
}

fn told<T>(result: &Result<T, BoxError>) -> String {
    result.as_ref().map_or_else(ToString::to_string, |_| "an answer".into())
}

fn title(title: &str) {
    println!("\n{title}");
}

fn claim(holds: bool, what: &str) -> Result<(), BoxError> {
    if holds { Ok(()) } else { Err(format!("it did not come out that {what}").into()) }
}
