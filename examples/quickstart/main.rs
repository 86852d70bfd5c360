//! A dependency has a bad day. Its callers live through it twice at once: behind a circuit breaker, and without.
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
    BoxError, Classify, ErrorsAreTransient, Outcome,
    circuit_breaker::{CircuitBreakerLayer, CircuitBreakerSettings, CircuitState},
};
use hyper_util::{
    client::legacy::{Client, Error as HttpError},
    rt::TokioExecutor,
};
use tokio::{sync::mpsc::unbounded_channel, time::timeout};
use tower::ServiceBuilder;

use day::{Day, Health, Server};
use draw::Screen;
use drive::{Caller, Diary, Http, Request, Side, Stack, live_through, transitions_to};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let day = Day::begins(length_of_a_second()?);
    let (tell, news) = unbounded_channel();

    // Two servers with the same day before them, so that neither run can spoil the other's figures.
    let (exposed, guarded) = (Server::start(day).await?, Server::start(day).await?);
    let client: Http = Client::builder(TokioExecutor::new()).build_http();

    let breaker = CircuitBreakerLayer::new(breaker_settings(day)).classify(ServerErrorsAreFailures);
    let circuit = breaker.handle();
    circuit.on_event(transitions_to(tell.clone()));

    let without = Caller::new(Side::Without, bare(client.clone()), &exposed, tell.clone())?;
    let with = Caller::new(Side::With, stack(breaker, client), &guarded, tell)?;

    let mut screen = Screen::new(day);
    // Twice the day is far too long: whatever hangs then must not hang whoever runs this.
    let story = live_through(day, &without, &with, news, &circuit, &mut screen);
    let diary = timeout(day.time(40.0), story).await.map_err(|_| "the day did not end")??;

    let sick_hits = [exposed.hits_while_sick(), guarded.hits_while_sick()];
    screen.table(&diary, sick_hits)?;
    screen.line(&moral(&diary, sick_hits, circuit.state())?)?;
    Ok(())
}

/// The stack, outermost layer first. Every layer has its reason above it.
fn stack(breaker: CircuitBreakerLayer<ServerErrorsAreFailures>, client: Http) -> impl Stack {
    let stack = ServiceBuilder::new()
        // While the server is known to be sick, callers get their answer at once, and it is left alone to recover.
        .layer(breaker)
        // From here up an error is a refusal or the client's own error: hyper's has no place for a refusal.
        .map_err(buttress::Error::Service)
        // One client with one pool of connections. Its clones share it.
        .service(client);
    // Costs nothing, and if a layer does not fit, the compiler says here which line is missing.
    buttress::check::<Request, _>(&stack);
    stack
}

/// What there was before: the client alone.
fn bare(client: Http) -> impl Stack {
    ServiceBuilder::new().map_err(buttress::Error::Service).service(client)
}

/// Impatient, because the whole day lasts seconds: compare the defaults of [`CircuitBreakerSettings`].
fn breaker_settings(day: Day) -> CircuitBreakerSettings {
    CircuitBreakerSettings::consecutive_failures(5)
        // A call that takes this long is a failure from then on: a server that hangs is noticed although no call ends.
        .slow_calls(day.time(0.4))
        // Then one call probes whether the server is well again, and a second one makes sure.
        .open_for(day.time(1.5))
        .name("the sick server")
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
fn moral(diary: &Diary, [hits_without, hits_with]: [u32; 2], state: CircuitState) -> Result<String, BoxError> {
    for sickness in [Health::Slow, Health::Failing, Health::Hanging] {
        if !diary.opened_while.contains(&sickness) {
            return Err(format!("the circuit did not open while the server was {}", sickness.as_str()).into());
        }
    }
    if state != CircuitState::Closed {
        return Err(format!("the server is healthy, and yet the circuit is {state}").into());
    }
    let (without, with) = (&diary.without, &diary.with);
    let (Some(spared @ 1..), Some(saved)) =
        (hits_without.checked_sub(hits_with), without.waited_in_vain.checked_sub(with.waited_in_vain))
    else {
        return Err("the circuit breaker saved nothing".into());
    };
    Ok(format!(
        "So the breaker spared the sick server {spared} of {hits_without} calls, and its callers\n\
         {:.0} of {:.0} seconds of waiting for nothing. The price was {} answers: late ones\n\
         of the slow server, and those until a probe found the server well again.",
        saved.as_secs_f64(),
        without.waited_in_vain.as_secs_f64(),
        without.day.answered.saturating_sub(with.day.answered),
    ))
}
