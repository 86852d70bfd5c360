//! A server with quotas and its clients, over a real wire and on a paused clock:
//! `cargo run --features http --example rate_limit`
//!
//! It is a test as well: what it says has come out like this, or it fails.

use std::{
    future::IntoFuture,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, Request, StatusCode},
};
use buttress::http::{ByStatus, RateLimitHeaders, respond, retry_after};
use buttress::rate_limit::{
    ActualCost, KeyedRateLimitHandle, KeyedRateLimitLayer, PauseWhenAsked, Quota, RateLimitHandle, RateLimitLayer,
    RateLimitSettings,
};
use buttress::{AsRejected, BoxError, EventKind, Reason};
use futures::future::join_all;
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client, Error as HttpError, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::net::TcpListener;
use tokio::time::{Duration, Instant, sleep};
use tower::{Service, ServiceBuilder, ServiceExt};

type Question = Request<Empty<Bytes>>;
type Http = Client<HttpConnector, Empty<Bytes>>;
type Reply = <Http as Service<Question>>::Response;
type Error = buttress::Error<HttpError>;
/// What a client sees.
type Answer = Result<(StatusCode, HeaderMap), BoxError>;

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Of each user, and of all together, who may rest for a while and then come at once.
const USER: RateLimitSettings = RateLimitSettings::token_bucket(Quota::per_second(5)).name("user");
const ALL: RateLimitSettings = RateLimitSettings::token_bucket(Quota::per_second(2).burst(8)).name("all");

/// A real server, and what holds its quotas.
struct Server {
    address: SocketAddr,
    users: KeyedRateLimitHandle<Option<HeaderValue>>,
    all: RateLimitHandle,
    /// How many requests have reached it, refused ones included.
    reached: Arc<AtomicU32>,
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), BoxError> {
    let server = Server::start().await?;
    let client = Client::builder(TokioExecutor::new()).build_http();
    two_users(&server, &client).await?;
    waits(&server, &client).await?;
    paces_itself(&server, &client).await?;
    tokens(&server, &client).await?;
    pauses(&server, &client).await?;
    shadow_and_change(&server, &client).await
}

async fn two_users(server: &Server, client: &Http) -> Result<(), BoxError> {
    title("Two users, 5 per second each, and all users together 2 per second, at most 8 at once");
    println!("  user   status   RateLimit                          Retry-After");
    let mut statuses = [Vec::new(), Vec::new()];
    let mut refusals = Vec::new();
    for (user, calls, seen) in [("ann", 6, 0), ("ben", 4, 1)] {
        for _ in 0..calls {
            let (status, headers) = ask(client.clone(), server.question(user)?).await?;
            let (limit, come_back) = (text(&headers, "ratelimit"), text(&headers, "retry-after"));
            println!("  {user}    {:<8} {limit:<34} {come_back}", status.as_u16());
            if status == 429 {
                refusals.push((limit.to_owned(), retry_after(&headers)));
            } else {
                claim(text(&headers, "ratelimit-policy") == r#""user";q=5;w=1, "all";q=8;w=4"#, "it tells its policy")?;
            }
            statuses[seen].push(status.as_u16());
        }
    }
    claim(statuses[0] == [200, 200, 200, 200, 200, 429], "five of Ann's six questions are answered")?;
    claim(statuses[1] == [200, 200, 200, 429], "her sixth took nothing of the eight, so Ben gets three")?;
    let refused = [(r#""user";r=0;t=1"#.to_owned(), Some(SECOND)), (r#""all";r=0;t=1"#.to_owned(), Some(SECOND))];
    claim(refusals == refused, "each refusal says by which limit, and when to come back")?;
    let left = server.users.check(&Some(HeaderValue::from_static("ben")), 0);
    claim(left.policy == "all" && left.remaining == 0, "it is not Ben's own limit that has refused him")?;

    sleep(SECOND).await;
    let (status, headers) = ask(client.clone(), server.question("ben")?).await?;
    println!("  ... a second later\n  ben    {:<8} {}", status.as_u16(), text(&headers, "ratelimit"));
    claim(text(&headers, "ratelimit") == r#""user";r=4;t=1, "all";r=1;t=1"#, "who comes back then is served")
}

async fn waits(server: &Server, client: &Http) -> Result<(), BoxError> {
    title("A client that waits: 2 per second, at most 1 s in line, and six questions at once");
    sleep(10 * SECOND).await;
    let own = RateLimitSettings::token_bucket(Quota::per_second(2)).name("our line").max_wait(SECOND);
    let stack =
        ServiceBuilder::new().layer(RateLimitLayer::new(own).waiting()).map_err(Error::Service).service(client.clone());
    buttress::check::<Question, _>(&stack);

    let before = server.reached();
    let began = Instant::now();
    let mut questions = Vec::new();
    for _ in 0..6 {
        let (question, stack) = (server.question("cid")?, stack.clone());
        questions.push(async move { (ask(stack, question).await, began.elapsed()) });
    }
    let answers = join_all(questions).await;
    for (index, (answer, waited)) in answers.iter().enumerate() {
        println!("  question {}, after {:>4} ms: {}", index + 1, waited.as_millis(), told(answer));
    }
    let (served, refused) = answers.split_at(4);
    let not_before = [0, 0, 500, 1000].map(|wait| wait * MILLI);
    for ((answer, waited), earliest) in served.iter().zip(not_before) {
        claim(is_answered(answer) && *waited >= earliest, "each is answered in its turn")?;
    }
    let is_refused = |(answer, waited): &(_, Duration)| *waited < MILLI && reason(answer) == Some(Reason::RateLimited);
    claim(refused.iter().all(is_refused), "who would wait too long is told so at once")?;
    claim(server.reached() - before == 4, "the server does not hear of them")
}

async fn paces_itself(server: &Server, client: &Http) -> Result<(), BoxError> {
    title("A client that paces itself: 2 per second, ready when there is a unit");
    sleep(10 * SECOND).await;
    let layer = RateLimitLayer::new(RateLimitSettings::token_bucket(Quota::per_second(2))).backpressure();
    let limiter = layer.handle();
    let mut stack = ServiceBuilder::new().layer(layer).map_err(Error::Service).service(client.clone());

    let mut impatient = stack.clone();
    impatient.ready().await?;
    claim(limiter.peek().remaining == 1, "to be ready is to have a unit")?;
    drop(impatient);
    claim(limiter.peek().remaining == 2, "who goes away gives it back")?;

    let began = Instant::now();
    for index in 1..=5 {
        let ready = stack.ready().await?;
        let ready_at = began.elapsed();
        let status = read(ready.call(server.question("dan")?).await?).await?.0;
        println!("  question {index}, ready after {:>4} ms: {}", ready_at.as_millis(), status.as_u16());
        claim(status == 200, "who paces himself is never refused")?;
    }
    claim(began.elapsed() >= 1500 * MILLI, "two come at once, and three more in a second and a half")
}

async fn tokens(server: &Server, client: &Http) -> Result<(), BoxError> {
    title("Tokens of a language model: 10,000 a minute, known when the answer is there");
    let layer = RateLimitLayer::new(RateLimitSettings::token_bucket(Quota::per_minute(10_000)).name("tokens"))
        .cost(|prompt: &Question| number(prompt.headers(), "x-thought"))
        .after(ActualCost(|reply: &Reply| number(reply.headers(), "x-tokens")));
    let limiter = layer.handle();
    let stack = ServiceBuilder::new().layer(layer).map_err(Error::Service).service(client.clone());
    buttress::check::<Question, _>(&stack);

    println!("  thought   actual     left");
    for (thought, actual, expected) in [(1000, 300, 9700), (1000, 4000, 5700), (1000, 9000, 0)] {
        ask(stack.clone(), server.prompt(thought, actual)?).await?;
        let left = limiter.check(0).remaining;
        println!("  {thought:>7}  {actual:>7}  {left:>7}");
        claim(left == expected, "what a call has cost is charged, and what it has not is given back")?;
    }
    let too_soon = ask(stack.clone(), server.prompt(1000, 1000)?).await;
    println!("  {:>7}  {}", 1000, told(&too_soon));
    let wait = too_soon.as_ref().err().and_then(|error| error.as_rejected()?.retry_after());
    claim(wait == Some(4300 * 6 * MILLI), "the debt of 3300 is paid first")?;
    let too_much = ask(stack, server.prompt(10_001, 10_001)?).await;
    println!("  {:>7}  {}", 10_001, told(&too_much));
    claim(reason(&too_much) == Some(Reason::CostTooHigh), "nobody waits for what can never be")
}

async fn pauses(server: &Server, client: &Http) -> Result<(), BoxError> {
    title("The server's 429 pauses the client's own limiter");
    sleep(10 * SECOND).await;
    let layer = RateLimitLayer::new(RateLimitSettings::token_bucket(Quota::per_second(100)).name("our own"))
        .after(PauseWhenAsked::new(ByStatus::new(), 30 * SECOND));
    let stack = ServiceBuilder::new().layer(layer).map_err(Error::Service).service(client.clone());
    buttress::check::<Question, _>(&stack);

    let before = server.reached();
    let mut answers = Vec::new();
    for index in 1..=9 {
        let answer = ask(stack.clone(), server.question("eve")?).await;
        println!("  question {index}: {}", told(&answer));
        answers.push(answer);
    }
    claim(matches!(answers[5], Ok((StatusCode::TOO_MANY_REQUESTS, _))), "the sixth is too much for the server")?;
    claim(answers[6..].iter().all(|answer| reason(answer) == Some(Reason::RateLimited)), "we refuse the others")?;
    claim(server.reached() - before == 6, "and spare the server the trouble")?;

    sleep(SECOND).await;
    let answer = ask(stack, server.question("eve")?).await;
    println!("  a second later: {}", told(&answer));
    claim(is_answered(&answer), "the pause ends when the server said")
}

async fn shadow_and_change(server: &Server, client: &Http) -> Result<(), BoxError> {
    title("Shadow mode, while twelve questions come at once, and then another quota");
    sleep(10 * SECOND).await;
    let reported = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&reported);
    server.users.on_event(move |event| {
        if let EventKind::Rejected { shadow: true, .. } = event.kind {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    let twelve = async || -> Result<usize, BoxError> {
        let mut answered = 0;
        for _ in 0..12 {
            answered += usize::from(ask(client.clone(), server.question("fay")?).await?.0 == 200);
        }
        Ok(answered)
    };
    let set_shadow = |shadow| {
        server.users.shadow(shadow);
        server.all.shadow(shadow);
    };

    set_shadow(true);
    let in_shadow = twelve().await?;
    let reported = reported.load(Ordering::Relaxed);
    println!("  in shadow:                {in_shadow:>2} answered, {reported} would have been refused");
    claim((in_shadow, reported) == (12, 7), "in shadow all pass, and what is too much is reported")?;

    set_shadow(false);
    server.users.set_quota(Quota::per_second(20))?;
    server.all.set_quota(Quota::per_second(50))?;
    let at_once = twelve().await?;
    println!("  20 per second, at once:   {at_once:>2} answered");
    sleep(SECOND).await;
    let later = twelve().await?;
    let (_, headers) = ask(client.clone(), server.question("fay")?).await?;
    println!("    a second later:         {later:>2} answered, by {}", text(&headers, "ratelimit-policy"));
    claim(at_once == 0, "another quota forgets nothing: what was used is used")?;
    claim(later == 12, "it holds from now on")?;
    claim(text(&headers, "ratelimit-policy") == r#""user";q=20;w=1, "all";q=50;w=1"#, "clients are told")
}

// ===== impl Server =====

impl Server {
    /// Starts it. It serves until the runtime ends.
    async fn start() -> Result<Self, BoxError> {
        let all = RateLimitHandle::try_new(ALL)?;
        let layer = KeyedRateLimitLayer::new(USER, |request: &Request<Body>| request.headers().get("x-user").cloned())
            // Who is refused by one of the two has taken nothing of the other.
            .and_all(&all)
            .after(RateLimitHeaders::new());
        let users = layer.handle();
        let reached = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&reached);
        let count = ServiceBuilder::new().map_request(move |request: Request<Body>| {
            counter.fetch_add(1, Ordering::Relaxed);
            request
        });
        let router = Router::new()
            .fallback(async || "an answer")
            // A refusal becomes a response, because axum asks for handlers that never fail.
            .layer(respond(layer))
            .route("/model", axum::routing::get(generate))
            .layer(count);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        tokio::spawn(axum::serve(listener, router).into_future());
        Ok(Self { address, users, all, reached })
    }

    fn question(&self, user: &str) -> Result<Question, BoxError> {
        let uri = format!("http://{}/", self.address);
        Ok(Request::get(uri).header("x-user", user).body(Empty::new())?)
    }

    /// A prompt that is thought to cost so many tokens, and will cost so many.
    fn prompt(&self, thought: u64, actual: u64) -> Result<Question, BoxError> {
        let prompt = Request::get(format!("http://{}/model", self.address));
        Ok(prompt.header("x-thought", thought).header("x-tokens", actual).body(Empty::new())?)
    }

    fn reached(&self) -> u32 {
        self.reached.load(Ordering::Relaxed)
    }
}

/// A model that uses as many tokens as the prompt says.
async fn generate(prompt: Request<Body>) -> ([(&'static str, String); 1], &'static str) {
    ([("x-tokens", number(prompt.headers(), "x-tokens").to_string())], "lorem ipsum")
}

/// One call, and what its client sees.
async fn ask<S>(stack: S, question: Question) -> Answer
where
    S: Service<Question, Response = Reply, Error: Into<BoxError>>,
{
    read(stack.oneshot(question).await.map_err(Into::into)?).await
}

/// Reads an answer to its end, so that the connection can serve the next call.
async fn read(reply: Reply) -> Answer {
    let (head, body) = reply.into_parts();
    body.collect().await?;
    Ok((head.status, head.headers))
}

fn is_answered(answer: &Answer) -> bool {
    matches!(answer, Ok((StatusCode::OK, _)))
}

fn reason(answer: &Answer) -> Option<Reason> {
    Some(answer.as_ref().err()?.as_rejected()?.reason())
}

fn told(answer: &Answer) -> String {
    match answer {
        Ok((status, headers)) if *status == StatusCode::TOO_MANY_REQUESTS => {
            format!("429, Retry-After: {}", text(headers, "retry-after"))
        }
        Ok((status, _)) => status.as_u16().to_string(),
        Err(error) => error.to_string(),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
}

fn number(headers: &HeaderMap, name: &str) -> u64 {
    text(headers, name).parse().unwrap_or(0)
}

fn title(title: &str) {
    println!("\n{title}");
}

fn claim(holds: bool, what: &str) -> Result<(), BoxError> {
    if holds { Ok(()) } else { Err(format!("it did not come out that {what}").into()) }
}
