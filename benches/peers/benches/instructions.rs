//! How many instructions a call takes that goes well: time depends on the machine and its day, this does not. Valgrind counts them, in two runs of
//! this program for each row, one of them with so many calls more.
//!
//! ```text
//! cargo bench -p buttress-peers --bench instructions
//! ```
//!
//! Needs `valgrind`, and says so where it is not. What skews it: an atomic step, a reading of the clock and a miss of the cache count as one instruction each.

use std::{
    future::{Ready, ready},
    hint::black_box,
    pin::pin,
    process::{Command, ExitCode},
    task::{Context, Poll, Waker},
    time::Duration,
};

use buttress::{
    circuit_breaker::{CircuitBreakerLayer, CircuitBreakerSettings},
    rate_limit::{Quota, RateLimitLayer, RateLimitSettings},
    red::RedLayer,
    retry::{RetryLayer, RetrySettings},
    timeout::TimeoutLayer,
};
use tower::{Layer, Service, ServiceBuilder, service_fn};

#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("down")]
struct Down;

type Answer = Result<u64, buttress::Error<Down>>;
type Row = (&'static str, fn(u64));

/// Of the whole stack, with everything on.
const WANTED: u64 = 320;
const LIMIT: Duration = Duration::from_secs(30);
const ENDLESS: Quota = Quota::per_second(1_000_000_000);

const ROWS: [Row; 8] = [
    ("the whole stack, with RED", |calls| drive(RedLayer::new("stack").layer(stack()), calls)),
    ("the stack without RED", |calls| drive(stack(), calls)),
    ("RED", |calls| drive(RedLayer::new("client").layer(client()), calls)),
    ("retry", |calls| drive(RetryLayer::new(RetrySettings::new()).layer(client()), calls)),
    ("circuit breaker", |calls| drive(breaker().layer(client()), calls)),
    ("rate limit", |calls| drive(limiter().layer(client()), calls)),
    ("time-out", |calls| drive(TimeoutLayer::new(LIMIT).layer(client()), calls)),
    ("the bare service", |calls| drive(client(), calls)),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [row, calls] = args.as_slice()
        && let (Ok(row), Ok(calls)) = (row.parse::<usize>(), calls.parse())
    {
        ROWS[row].1(calls);
        return ExitCode::SUCCESS;
    }
    if !args.iter().any(|arg| arg == "--bench") {
        // Only whether they run.
        ROWS.iter().for_each(|(_, run)| run(2));
        return ExitCode::SUCCESS;
    }
    println!("| a call that goes well     | instructions |");
    println!("|---------------------------|-------------:|");
    for (row, (name, _)) in ROWS.iter().enumerate() {
        let Some([few, many]) = count(row, 10_000).zip(count(row, 1_010_000)).map(<[u64; 2]>::from) else {
            eprintln!("valgrind did not answer with a count; is it installed?");
            return ExitCode::FAILURE;
        };
        let each = (many - few) / 1_000_000;
        println!("| {name:<25} | {each:>12} |");
        if row == 0 {
            println!("| of it at most {WANTED:<11} | {:>12} |", if each <= WANTED { "ok" } else { "MISSED" });
        }
    }
    ExitCode::SUCCESS
}

/// Of a run with so many calls.
fn count(row: usize, calls: u64) -> Option<u64> {
    let this = std::env::current_exe().ok()?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(this)
        .args([row.to_string(), calls.to_string()])
        .output()
        .ok()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let (_, after) = said.split_once("Collected :")?;
    after.split_whitespace().next()?.parse().ok()
}

fn client() -> impl Service<u64, Response = u64, Error = buttress::Error<Down>, Future = Ready<Answer>> + Clone {
    service_fn(|n: u64| ready(Answer::Ok(n)))
}

fn breaker() -> CircuitBreakerLayer {
    CircuitBreakerLayer::new(CircuitBreakerSettings::consecutive_failures(5))
}

fn limiter() -> RateLimitLayer {
    RateLimitLayer::new(RateLimitSettings::token_bucket(ENDLESS))
}

fn stack() -> impl Service<u64, Response = u64, Error = buttress::Error<Down>> + Clone {
    ServiceBuilder::new()
        .layer(RetryLayer::new(RetrySettings::new()))
        .layer(breaker())
        .layer(limiter())
        .layer(TimeoutLayer::new(LIMIT))
        .service(client())
}

#[inline(never)]
fn drive(mut service: impl Service<u64>, calls: u64) {
    let cx = &mut Context::from_waker(Waker::noop());
    for n in 0..calls {
        assert!(matches!(service.poll_ready(cx), Poll::Ready(Ok(()))), "it is ready");
        let mut future = pin!(service.call(black_box(n)));
        let answer = future.as_mut().poll(cx);
        assert!(answer.is_ready(), "it answers at once");
        black_box(&answer);
    }
}
