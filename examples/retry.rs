//! What a retry can be told, option by option, on a paused clock: `cargo run --example retry`
//!
//! It is a test as well: what it says has come out like this, or it fails.

use std::{
    future::pending,
    sync::atomic::{AtomicU32, Ordering},
};

use buttress::retry::{Backoff, Jitter, RetryLayer, RetrySettings as S, TimeoutsCostDouble};
use buttress::timeout::TimeoutLayer;
use buttress::{BoxError, Budget, BudgetSettings, Classify, ErrorsAreTransient, Event, EventKind};
use buttress::{Outcome, Reason, Rejected};
use futures::FutureExt;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn, util::BoxCloneService};

type Dependency = BoxCloneService<u16, u16, BoxError>;

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// Ten attempts are enough to see which other setting ends them.
const TEN: S = S::new().attempts(10).backoff(Backoff::constant(SECOND).jitter(Jitter::None)).without_budget();

/// What a call asks for, beside a status.
const HANGS: u16 = 0;
const REFUSED: u16 = 1;

/// How many calls have reached the dependency.
static REACHED: AtomicU32 = AtomicU32::new(0);

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), BoxError> {
    delays()?;
    attempts().await?;
    what_is_retried().await?;
    requests().await?;
    outage().await?;
    nested().await?;
    costs().await
}

fn delays() -> Result<(), BoxError> {
    title("Backoff: the delays before the retries, in milliseconds");
    let exponential = Backoff::exponential(100 * MILLI).jitter(Jitter::None);
    let seeded = exponential.clone().seed(7);
    for (what, backoff) in [
        ("exponential", exponential.clone()),
        ("  by a factor of 1.5", exponential.clone().factor(1.5)),
        ("  capped at 1 s", exponential.cap(SECOND)),
        ("linear", Backoff::linear(100 * MILLI, 50 * MILLI).jitter(Jitter::None)),
        ("constant", Backoff::constant(100 * MILLI).jitter(Jitter::None)),
        ("custom: the cubes", Backoff::custom(|retry| MILLI * retry.pow(3)).jitter(Jitter::None)),
        ("exponential, full jitter, the default", seeded.clone().jitter(Jitter::Full)),
        ("  equal jitter", seeded.clone().jitter(Jitter::Equal)),
        ("  decorrelated jitter", seeded.clone().jitter(Jitter::Decorrelated)),
        ("  decorrelated jitter, another seed", seeded.clone().jitter(Jitter::Decorrelated).seed(8)),
    ] {
        let delays = backoff.take(7).map(|delay| format!("{:>6}", delay.as_millis())).collect::<String>();
        println!("  {what:<38}{delays}");
    }
    let full = seeded.jitter(Jitter::Full);
    claim(full.clone().take(7).eq(full.take(7)), "the same seed makes the same delays")
}

async fn attempts() -> Result<(), BoxError> {
    let in_vain = |settings| call(RetryLayer::new(settings).classify(by_status).on_event(narrate), 503);

    title("Attempts: three, the first included");
    claim(in_vain(TEN.attempts(3)).await == 3, "there are three attempts")?;

    title("Within 2.5 s: no attempt begins later");
    claim(in_vain(TEN.within(2_500 * MILLI)).await == 3, "they begin at 0, 1 and 2 s")?;

    title("Delays of any iterator: it ends, and with it the attempts");
    let delays = RetryLayer::new(TEN).delays([5 * MILLI, 70 * MILLI].into_iter());
    claim(call(delays.classify(by_status).on_event(narrate), 503).await == 3, "two delays make three attempts")?;

    title("Retry-After: the dependency asks for 30 s, the cap allows 10 s, and the delay comes on top");
    let began = Instant::now();
    let busy = |_: Result<&u16, &BoxError>| Outcome::Transient { retry_after: Some(30 * SECOND) };
    let layer = RetryLayer::new(TEN.attempts(2).retry_after_cap(10 * SECOND));
    call(layer.classify(busy).on_event(narrate), 429).await;
    claim(began.elapsed().as_secs() == 11, "10 s were asked for, and the delay is 1 s")
}

async fn what_is_retried() -> Result<(), BoxError> {
    title("What is tried again, of three attempts");
    let settings = TEN.attempts(3);
    for (what, settings, answer, expected) in [
        ("a success", settings.clone(), 200, 1),
        ("a failure of the dependency", settings.clone(), 503, 3),
        ("a failure of the request", settings.clone(), 404, 1),
        ("a refusal by a layer inside", settings.clone(), REFUSED, 1),
        ("  when asked for", settings.retry_rejections(), REFUSED, 3),
    ] {
        let reached = call(RetryLayer::new(settings).classify(by_status), answer).await;
        println!("  {what:<30} {reached} of 3");
        claim(reached == expected, &format!("{what} makes {expected} attempts"))?;
    }
    Ok(())
}

#[derive(Clone)]
struct Order {
    is_idempotent: bool,
    attempt: u32,
}

async fn requests() -> Result<(), BoxError> {
    title("Requests: sent again if that does no harm, with the attempt's number in them");
    let layer = RetryLayer::new(TEN.attempts(3))
        .resend(|order: &Order| order.is_idempotent.then(|| order.clone()))
        .prepare(|order: &mut Order, attempt| order.attempt = attempt)
        .on_event(narrate);
    let stack = ServiceBuilder::new().layer(layer).service_fn(async |order: Order| {
        println!("  the dependency gets attempt {}", order.attempt);
        if order.attempt < 3 { Err(BoxError::from("connection reset")) } else { Ok(()) }
    });
    for (is_idempotent, comes_through) in [(true, true), (false, false)] {
        println!("  an order that {} be repeated:", if is_idempotent { "may" } else { "must not" });
        let order = Order { is_idempotent, attempt: 1 };
        claim(stack.clone().oneshot(order).await.is_ok() == comes_through, "only what may be repeated is")?;
    }
    Ok(())
}

async fn outage() -> Result<(), BoxError> {
    title("Budget: an outage of a minute, 20 calls per second, three attempts");
    let layer = RetryLayer::new(TEN.attempts(3)).classify(by_status);
    let without = minute(layer, 503).await;
    println!("  without: 1200 calls, {without} of them reach the dependency");

    let layer = RetryLayer::new(TEN.attempts(3).budget(BudgetSettings::new())).classify(by_status);
    let handle = layer.handle();
    let with = minute(layer, 503).await;
    println!("  with:    1200 calls, {with}: a fifth more, and 3 per second");
    if let Some(balance) = handle.budget().map(Budget::balance) {
        let (spent, left) = (balance.spent.as_percent() / 100, balance.available.as_percent() / 100);
        println!("           after the last one, in its 10 s: {} calls, {spent} retries, {left} left", balance.calls);
    }
    claim(without == 3 * 1200, "without a budget, the load is three times as high")?;
    claim((1200..=1700).contains(&with), "with a budget, it hardly rises")
}

async fn nested() -> Result<(), BoxError> {
    title("Three layers of three attempts, and an outage of a minute");
    let layer = || RetryLayer::new(TEN.attempts(3)).classify(by_status);
    let without = minute(ServiceBuilder::new().layer(layer()).layer(layer()).layer(layer()), 503).await;
    println!("  without a budget:   1200 calls, {without} of them reach the dependency");

    let budget = Budget::new(BudgetSettings::new());
    let layer = || RetryLayer::new(TEN.attempts(3)).budget(budget.clone()).classify(by_status);
    let with = minute(ServiceBuilder::new().layer(layer()).layer(layer()).layer(layer()), 503).await;
    println!("  on a shared budget: 1200 calls, {with}");
    claim(without == 27 * 1200, "three times three times three")?;
    claim((1200..=1700).contains(&with), "together they stay inside the budget of one")
}

async fn costs() -> Result<(), BoxError> {
    title("Cost: a minute of time-outs, two attempts, and a budget of half the calls");
    let settings = TEN.attempts(2).budget(BudgetSettings::new().ratio(0.5).per_second(0));
    let timeout = TimeoutLayer::new(100 * MILLI);
    let retry = RetryLayer::new(settings.clone());
    let flat = minute(ServiceBuilder::new().layer(retry).layer(timeout.clone()), HANGS).await;
    println!("  each retry costs one:               1200 calls, {flat} of them reach the dependency");

    let retry = RetryLayer::new(settings).cost(TimeoutsCostDouble);
    let double = minute(ServiceBuilder::new().layer(retry).layer(timeout), HANGS).await;
    println!("  one that follows a time-out, two:   1200 calls, {double}");
    claim((1750..=1850).contains(&flat), "half of the calls are retried")?;
    claim((1450..=1550).contains(&double), "at double the price, a quarter is")
}

/// Calls to the dependency, and how often one of them has reached it.
async fn call<L, S>(retry: L, answer: u16) -> u32
where
    L: Layer<Dependency, Service = S>,
    S: Service<u16, Error = BoxError>,
{
    // How it ends is told by the events, where that matters.
    let _ = retry.layer(dependency()).oneshot(answer).await;
    REACHED.swap(0, Ordering::Relaxed)
}

/// Twenty calls per second for a minute, and how many calls have reached the dependency.
async fn minute<L, S>(layers: L, answer: u16) -> u32
where
    L: Layer<Dependency, Service = S>,
    S: Service<u16, Future: Send> + Clone + Send + 'static,
{
    let stack = layers.layer(dependency());
    let mut calls = JoinSet::new();
    for _ in 0..1200 {
        calls.spawn(stack.clone().oneshot(answer).map(drop));
        sleep(50 * MILLI).await;
    }
    calls.join_all().await;
    REACHED.swap(0, Ordering::Relaxed)
}

/// It does what the request says.
fn dependency() -> Dependency {
    BoxCloneService::new(service_fn(async |answer| {
        REACHED.fetch_add(1, Ordering::Relaxed);
        match answer {
            HANGS => pending().await,
            REFUSED => Err(Rejected::new("limiter", Reason::RateLimited).with_retry_after(SECOND).into()),
            status => Ok(status),
        }
    }))
}

fn by_status(result: Result<&u16, &BoxError>) -> Outcome {
    match result {
        Ok(500..) => Outcome::TRANSIENT,
        Ok(400..) => Outcome::Permanent,
        // The default knows which errors are refusals.
        _ => ErrorsAreTransient.classify(result),
    }
}

fn narrate(event: &Event<'_>) {
    match event.kind {
        EventKind::Retry { attempt, delay, .. } => println!("  attempt {attempt} failed, the next one is in {delay:?}"),
        EventKind::Retried { attempts, gave_up: Some(why), .. } => {
            println!("  no more after attempt {attempts}: {}", why.as_str());
        }
        EventKind::Retried { attempts, .. } => println!("  attempt {attempts} came through"),
        _ => {}
    }
}

fn title(title: &str) {
    println!("\n{title}");
}

fn claim(holds: bool, what: &str) -> Result<(), BoxError> {
    if holds { Ok(()) } else { Err(format!("it did not come out that {what}").into()) }
}
