//! A dependency has a bad day. Its callers live through it three times at once: with the client alone, with a naive
//! retry around it, and behind a stack that retries as often, makes nothing worse, and has the last answers at hand.
//!
//! `cargo run --example quickstart`, or with `-- --short` for the same day four times as fast, and with `-- --serve` for a page with
//! live charts beside it.
//!
//! This file is the story and the stack, `day.rs` the server and its day, `drive.rs` the callers, `draw.rs` the screen, `serve.rs` and
//! `page.html` the page, `moral.rs` what is claimed at the end.

#![expect(unreachable_pub, reason = "an example has no outside that `pub` could reach")]

mod day;
mod draw;
mod drive;
mod moral;
mod serve;

use std::{env, time::Duration};

use axum::{
    body::{Bytes, HttpBody as Body},
    http::Response,
};
use buttress::{
    BoxError, BudgetSettings, Classify, DeadlineLayer, ErrorsAreTransient, Outcome,
    cache::{CacheHandle, CacheKey, CacheSettings},
    circuit_breaker::{CircuitBreakerLayer, CircuitBreakerSettings},
    rate_limit::{Quota, RateLimitLayer, RateLimitSettings},
    red::{RedHandle, RedLayer},
    retry::{Backoff, RetryLayer, RetrySettings},
    timeout::TimeoutLayer,
};
use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::{sync::mpsc::unbounded_channel, time::timeout};
use tower::{Layer, ServiceBuilder};

use day::{Day, QUOTA, SHARED, Server};
use draw::Screen;
use drive::{Caller, Reply, Request, Side, Stack, live_through, patience, transitions_to};
use moral::{moral, moral_of_the_cache, moral_of_the_figures};
use serve::Live;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let Arguments { second, serves } = arguments()?;
    let day = Day::begins(second);
    let (tell, news) = unbounded_channel();
    let client = client();

    let cache = CacheHandle::new(cache_settings(day));
    let breaker = CircuitBreakerLayer::new(breaker_settings(day)).classify(ServerErrorsAreFailures);
    let circuit = breaker.handle();
    circuit.on_event(transitions_to(tell.clone()));

    // Outermost on each side, so that it counts and times what callers see.
    let red = ["alone", "naive", "guarded"].map(|name| RedLayer::new(name).classify(ServerErrorsAreFailures));
    let figures = red.each_ref().map(RedLayer::handle);
    let [alone, naive, guarded] = red;
    let alone = alone.layer(client.clone());
    let naive = naive.layer(naive_stack(day, client.clone()));
    let guarded = guarded.layer(stack(day, &cache, breaker, client));

    let live = Live::new(day, figures.clone(), cache.clone(), circuit.clone());
    let mut screen = Screen::new(day);
    if serves {
        screen.line(&format!("Watch it at http://{}/\n", live.serve().await?))?;
    }

    // A server for each, with the same day before it, so that no run can spoil the figures of another.
    let callers = [
        Caller::new(Side::Alone, alone, Server::start(day).await?, tell.clone()),
        Caller::new(Side::Naive, naive, Server::start(day).await?, tell.clone()),
        Caller::new(Side::Guarded, guarded, Server::start(day).await?, tell),
    ];

    // Twice the day is far too long: whatever hangs then must not hang whoever runs this.
    let story = live_through(&live, &callers, news, &mut screen);
    let diary = timeout(day.time(40.0), story).await.map_err(|_| "the day did not end")??;

    let sick_hits = callers.each_ref().map(|caller| caller.server().hits_while_sick());
    let shared_hits = callers.each_ref().map(|caller| caller.server().shared_hits());
    screen.table(&diary, sick_hits, shared_hits)?;
    screen.line(&moral(&diary, sick_hits, circuit.state())?)?;
    screen.line(&moral_of_the_cache(&diary, cache.stats(), shared_hits)?)?;
    let figures = figures.each_ref().map(RedHandle::snapshot);
    screen.red(&figures)?;
    screen.line(&moral_of_the_figures(&diary, &figures)?)?;
    if serves {
        screen.line("\nThe page stays until Ctrl-C.")?;
        tokio::signal::ctrl_c().await?;
    }
    Ok(())
}

/// The stack, outermost layer first. Every layer has its reason above it.
fn stack(
    day: Day,
    cache: &CacheHandle<CacheKey, Reply>,
    breaker: CircuitBreakerLayer<ServerErrorsAreFailures>,
    client: impl Stack + Sync,
) -> impl Stack {
    let stack = ServiceBuilder::new()
        // Nobody waits longer. No retry is waited for, and no attempt goes on, past this instant.
        .layer(DeadlineLayer::new(patience(day)))
        // What is the same for everybody is asked for once, and kept. In an outage the last answer is better than none. It is outside
        // all that follows, so that what is in hand spends neither quota nor retries, and needs no circuit.
        .layer(cache.layer(key).classify(ServerErrorsAreFailures))
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
        // One client with one pool of connections. Its clones share it.
        .service(client);
    // Costs nothing, and if a layer does not fit, the compiler says here which line is missing.
    buttress::check::<Request, _>(&stack);
    stack
}

/// What there was before: the client alone. It reads each body to its end, so that an answer is whole, and can be kept.
fn client() -> impl Stack + Sync {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    ServiceBuilder::new()
        .and_then(|response: Response<_>| async {
            let (head, body) = response.into_parts();
            // A boxed error has room for a refusal of the layers further out as well.
            Ok::<Reply, BoxError>(Response::from_parts(head, collect(body).await?))
        })
        .service(client)
}

async fn collect(body: impl Body<Data = Bytes, Error: Into<BoxError>>) -> Result<Bytes, BoxError> {
    Ok(body.collect().await.map_err(Into::into)?.to_bytes())
}

/// What everybody sees alike has a key, and all that it depends on is in it. What is somebody's own has none: it passes the cache by.
fn key(request: &Request) -> Option<CacheKey> {
    let path = request.uri().path();
    path.starts_with(SHARED).then(|| CacheKey::new("pages", 1).str(path))
}

/// What is tried first: the same attempts, the same time-out, and nothing that counts what they add up to.
fn naive_stack(day: Day, client: impl Stack + Sync) -> impl Stack {
    ServiceBuilder::new()
        .layer(RetryLayer::new(retry_settings(day).without_budget()).classify(ServerErrorsAreFailures))
        .layer(TimeoutLayer::new(attempt_limit(day)))
        .service(client)
}

/// Compare the defaults of [`CacheSettings`].
fn cache_settings(day: Day) -> CacheSettings {
    CacheSettings::new()
        .name("pages")
        // Nobody minds a page that is so old.
        .ttl(day.time(3.0))
        // An older one is better than none, whatever happens,
        .stale_if_error(day.time(60.0))
        // and better than to wait longer for a new one, which is loaded meanwhile.
        .soft_timeout(day.time(0.1))
        .hard_timeout(patience(day))
        // After a load that failed, there is no other one for so long.
        .throttle(day.time(1.0))
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

impl<B> Classify<Response<B>, BoxError> for ServerErrorsAreFailures {
    fn classify(&self, result: Result<&Response<B>, &BoxError>) -> Outcome {
        match result.map(Response::status) {
            Ok(status) if status.is_server_error() => Outcome::TRANSIENT,
            Ok(status) if status.is_client_error() => Outcome::Permanent,
            // The default knows which errors are refusals by a layer further in.
            _ => ErrorsAreTransient.classify(result),
        }
    }
}

struct Arguments {
    /// How long a second of the day is.
    second: Duration,
    /// Whether there is a page.
    serves: bool,
}

fn arguments() -> Result<Arguments, BoxError> {
    let mut arguments = Arguments { second: Duration::from_secs(1), serves: false };
    for argument in env::args().skip(1) {
        match argument.as_str() {
            "--short" => arguments.second = Duration::from_millis(250),
            "--serve" => arguments.serves = true,
            unknown => return Err(format!("`{unknown}` is no argument: there are `--short` and `--serve`").into()),
        }
    }
    Ok(arguments)
}
