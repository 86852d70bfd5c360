//! A dependency has a bad day. Its callers live through it three times at once: with the client alone, with a naive
//! retry around it, and behind a stack that retries as often and makes nothing worse.
//!
//! `cargo run --example quickstart`, or with `-- --short` for the same day four times as fast.
//!
//! This file is the story and the stack, `day.rs` the server and its day, `drive.rs` the callers, `draw.rs` the screen.

#![expect(unreachable_pub, reason = "an example has no outside that `pub` could reach")]

mod day;
mod draw;
mod drive;

use std::{env, time::Duration};

use axum::http::Response;
use buttress::{
    BoxError, BudgetSettings, Classify, DeadlineLayer, ErrorsAreTransient, Outcome,
    circuit_breaker::{CircuitBreakerLayer, CircuitBreakerSettings, CircuitState},
    rate_limit::{Quota, RateLimitLayer, RateLimitSettings},
    retry::{Backoff, RetryLayer, RetrySettings},
    timeout::TimeoutLayer,
};
use hyper_util::{
    client::legacy::{Client, Error as HttpError},
    rt::TokioExecutor,
};
use tokio::{sync::mpsc::unbounded_channel, time::timeout};
use tower::ServiceBuilder;

use day::{Day, Health, QUOTA, Server};
use draw::Screen;
use drive::{Caller, Diary, Http, Request, Side, Stack, live_through, patience, transitions_to};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let day = Day::begins(length_of_a_second()?);
    let (tell, news) = unbounded_channel();
    let client: Http = Client::builder(TokioExecutor::new()).build_http();

    let breaker = CircuitBreakerLayer::new(breaker_settings(day)).classify(ServerErrorsAreFailures);
    let circuit = breaker.handle();
    circuit.on_event(transitions_to(tell.clone()));

    // A server for each, with the same day before it, so that no run can spoil the figures of another.
    let callers = [
        Caller::new(Side::Alone, alone(client.clone()), Server::start(day).await?, tell.clone())?,
        Caller::new(Side::Naive, naive(day, client.clone()), Server::start(day).await?, tell.clone())?,
        Caller::new(Side::Guarded, stack(day, breaker, client), Server::start(day).await?, tell)?,
    ];

    let mut screen = Screen::new(day);
    // Twice the day is far too long: whatever hangs then must not hang whoever runs this.
    let story = live_through(day, &callers, news, &circuit, &mut screen);
    let diary = timeout(day.time(40.0), story).await.map_err(|_| "the day did not end")??;

    let sick_hits = callers.each_ref().map(|caller| caller.server().hits_while_sick());
    screen.table(&diary, sick_hits)?;
    screen.line(&moral(&diary, sick_hits, circuit.state())?)?;
    Ok(())
}

/// The stack, outermost layer first. Every layer has its reason above it.
fn stack(day: Day, breaker: CircuitBreakerLayer<ServerErrorsAreFailures>, client: Http) -> impl Stack {
    let stack = ServiceBuilder::new()
        // Nobody waits longer. No retry is waited for, and no attempt goes on, past this instant.
        .layer(DeadlineLayer::new(patience(day)))
        // A failure by chance is hidden. In an outage everybody fails, and the budget leaves hardly a retry.
        .layer(RetryLayer::new(retry_settings(day)).classify(ServerErrorsAreFailures))
        // While the server is known to be sick, callers get their answer at once, and it is left alone to recover. It
        // is inside the retry, so that each attempt counts, and a refusal ends the retrying.
        .layer(breaker)
        // The server allows so much and no more, retries included. What is too much is refused inside the breaker, so
        // that an open circuit spends no quota; to breaker and retry it is no failure of the server.
        .layer(RateLimitLayer::new(rate_limit_settings(day)))
        // An attempt that takes too long is a failure, so that the breaker and the retry notice a server that hangs.
        .layer(TimeoutLayer::new(attempt_limit(day)))
        // From here up an error is a refusal or the client's own error: hyper's has no place for a refusal.
        .map_err(buttress::Error::Service)
        // One client with one pool of connections. Its clones share it.
        .service(client);
    // Costs nothing, and if a layer does not fit, the compiler says here which line is missing.
    buttress::check::<Request, _>(&stack);
    stack
}

/// What there was before: the client alone.
fn alone(client: Http) -> impl Stack {
    ServiceBuilder::new().map_err(buttress::Error::Service).service(client)
}

/// What is tried first: the same attempts, the same time-out, and nothing that counts what they add up to.
fn naive(day: Day, client: Http) -> impl Stack {
    ServiceBuilder::new()
        .layer(RetryLayer::new(retry_settings(day).without_budget()).classify(ServerErrorsAreFailures))
        .layer(TimeoutLayer::new(attempt_limit(day)))
        .map_err(buttress::Error::Service)
        .service(client)
}

/// Impatient like the others, because the whole day lasts seconds: compare the defaults of [`RetrySettings`].
fn retry_settings(day: Day) -> RetrySettings {
    RetrySettings::new()
        // All of them end before the caller's patience does: three time-outs and two short waits.
        .attempts(3)
        .backoff(Backoff::exponential(day.time(0.05)))
        // One retry for five calls, whatever happens.
        .budget(BudgetSettings::new().ratio(0.2).per_second(0).window(day.time(10.0)))
}

/// Compare the defaults of [`CircuitBreakerSettings`].
fn breaker_settings(day: Day) -> CircuitBreakerSettings {
    CircuitBreakerSettings::consecutive_failures(5)
        // Then one call probes whether the server is well again, and a second one makes sure.
        .open_for(day.time(1.5))
        .name("the sick server")
}

/// Never more in any second, which is how the server counts.
fn rate_limit_settings(day: Day) -> RateLimitSettings {
    RateLimitSettings::sliding_log(Quota::new(QUOTA.into(), day.time(1.0))).name("what the server allows")
}

/// A healthy server needs a small part of it.
fn attempt_limit(day: Day) -> Duration {
    day.time(0.5)
}

/// To hyper any answer is a success, but a 5xx is a failure of the server, and a 4xx one of the request.
#[derive(Clone, Copy)]
struct ServerErrorsAreFailures;

impl<Body> Classify<Response<Body>, buttress::Error<HttpError>> for ServerErrorsAreFailures {
    fn classify(&self, result: Result<&Response<Body>, &buttress::Error<HttpError>>) -> Outcome {
        match result.map(Response::status) {
            Ok(status) if status.is_server_error() => Outcome::TRANSIENT,
            Ok(status) if status.is_client_error() => Outcome::Permanent,
            // The default knows which errors are refusals by a layer further in.
            _ => ErrorsAreTransient.classify(result),
        }
    }
}

fn length_of_a_second() -> Result<Duration, BoxError> {
    match env::args().nth(1).as_deref() {
        None => Ok(Duration::from_secs(1)),
        Some("--short") => Ok(Duration::from_millis(250)),
        Some(unknown) => Err(format!("`{unknown}` is no argument of this example, the only one is `--short`").into()),
    }
}

/// The moral of the story, or an error if it did not come out: this example is a test as well.
///
/// The margins are wide: on a busy machine time-outs and retries come late, and some not at all.
fn moral(diary: &Diary, sick_hits: [u32; 3], state: CircuitState) -> Result<String, BoxError> {
    for sickness in [Health::Slow, Health::Failing, Health::Hanging] {
        if !diary.opened_while.contains(&sickness) {
            return Err(format!("the circuit did not open while the server was {}", sickness.as_str()).into());
        }
    }
    if state != CircuitState::Closed {
        return Err(format!("the server is healthy, and yet the circuit is {state}").into());
    }
    let ([alone_hits, naive_hits, guarded_hits], [alone, naive, guarded]) = (sick_hits, &diary.pages);
    if 2 * naive_hits < 3 * alone_hits {
        return Err("the naive retry made no outage worse".into());
    }
    if 2 * guarded_hits > alone_hits {
        return Err("the stack did not spare the sick server".into());
    }
    if naive.most_sent <= QUOTA {
        return Err("the naive retry kept to what the server allows".into());
    }
    if 2 * guarded.most_sent > 3 * QUOTA {
        return Err("the stack sent more than the server allows".into());
    }
    if 2 * guarded.unlucky > alone.unlucky {
        return Err("the retry did not hide what failed by chance".into());
    }
    if guarded.waited_in_vain >= alone.waited_in_vain {
        return Err("the stack saved nobody's time".into());
    }
    Ok(format!(
        "On good seconds a retry pays: of {} calls lost by chance, {} were still lost.\n\
         On bad ones it is a storm: the naive retry sent the sick server {naive_hits} calls in\n\
         place of {alone_hits}, {:.1} times as many. The same retry on a budget and with a breaker\n\
         inside sent {guarded_hits}; callers waited {:.0} s for nothing, not {:.0} s. It cost {} answers:\n\
         late ones of the slow server, and those until a probe found it well again.\n\
         Allowed are {QUOTA} calls a second: the naive retry sent up to {}, the stack {}.\n\
         (Most of that is the work of the breaker: `--example retry` has the budget alone.)",
        alone.unlucky,
        guarded.unlucky,
        f64::from(naive_hits) / f64::from(alone_hits.max(1)),
        guarded.waited_in_vain.as_secs_f64(),
        alone.waited_in_vain.as_secs_f64(),
        alone.day.answered.saturating_sub(guarded.day.answered),
        naive.most_sent,
        guarded.most_sent,
    ))
}
