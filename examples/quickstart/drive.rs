//! The callers: the same calls to either side on one beat, and a diary of what became of them.

use std::time::Duration;

use axum::{
    body::Bytes,
    http::{Uri, uri::InvalidUri},
};
use buttress::{
    AsRejected, BoxError, Event, EventKind, Trip,
    circuit_breaker::{CircuitBreakerHandle, CircuitState},
};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::{Client, Error as HttpError, connect::HttpConnector};
use tokio::{
    select,
    sync::mpsc::{UnboundedReceiver, UnboundedSender},
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tower::{Service, ServiceExt};

use crate::{
    day::{Day, Health, Server, health_at},
    draw::Screen,
};

/// On either side.
pub const CALLS_PER_SECOND: u32 = 20;

/// Seconds after which a caller gives up, with a circuit breaker or without.
const PATIENCE: f64 = 2.0;

pub type Request = axum::http::Request<Empty<Bytes>>;
pub type Http = Client<HttpConnector, Empty<Bytes>>;
pub type Reply = <Http as Service<Request>>::Response;
pub type Error = buttress::Error<HttpError>;

/// Any stack around the client, whatever its layers.
pub trait Stack: Service<Request, Response = Reply, Error = Error, Future: Send> + Clone + Send + 'static {}

impl<S> Stack for S where S: Service<Request, Response = Reply, Error = Error, Future: Send> + Clone + Send + 'static {}

/// Which of the two runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client alone.
    Without,
    /// The client behind the stack.
    With,
}

/// How a call ended, as its caller saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With an answer.
    Answered,
    /// With an error of the server or of the connection.
    Failed,
    /// With the caller's patience.
    GivenUp,
    /// By a layer of the stack, which did not ask the server.
    Refused,
}

/// What the diary hears of.
#[derive(Debug)]
pub enum News {
    /// A call ended after this time.
    Ended(Side, End, Duration),
    /// The circuit changed its state.
    Transition(CircuitState, Option<Trip>),
}

/// Those who call one side.
pub struct Caller<S> {
    side: Side,
    stack: S,
    uri: Uri,
    tell: UnboundedSender<News>,
}

/// How many calls ended how.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub answered: u32,
    pub failed: u32,
    pub given_up: u32,
    pub refused: u32,
}

/// One side of the diary.
#[derive(Clone, Copy, Debug, Default)]
pub struct Page {
    /// The present second alone.
    pub second: Tally,
    /// The whole day.
    pub day: Tally,
    /// Calls that have not ended.
    pub waiting: u32,
    pub most_waiting: u32,
    /// How long all callers together have waited.
    pub waited: Duration,
    /// How much of that was for nothing.
    pub waited_in_vain: Duration,
}

/// What happened on either side.
#[derive(Debug, Default)]
pub struct Diary {
    pub second: u32,
    pub without: Page,
    pub with: Page,
    /// How the server was whenever the circuit opened.
    pub opened_while: Vec<Health>,
}

// ===== impl Caller =====

impl<S: Stack> Caller<S> {
    /// Callers of this server through this stack.
    pub fn new(side: Side, stack: S, server: &Server, tell: UnboundedSender<News>) -> Result<Self, InvalidUri> {
        let uri = format!("http://{}/", server.address()).parse()?;
        Ok(Self { side, stack, uri, tell })
    }

    /// One call. It waits for no other: users do not stop coming because a server is slow.
    fn call(&self, patience: Duration) {
        let (side, stack, tell) = (self.side, self.stack.clone(), self.tell.clone());
        let mut request = Request::default();
        *request.uri_mut() = self.uri.clone();
        tokio::spawn(async move {
            let began = Instant::now();
            let end = timeout(patience, ask(stack, request)).await.unwrap_or(End::GivenUp);
            // Nobody listens when the terminal has gone away, and then nobody needs to know.
            let _ = tell.send(News::Ended(side, end, began.elapsed()));
        });
    }
}

async fn ask(stack: impl Stack, request: Request) -> End {
    match stack.oneshot(request).await {
        Ok(reply) => {
            let is_good = reply.status().is_success();
            // Read to its end, so that the connection can serve the next call.
            let body = reply.into_body().collect().await;
            if is_good && body.is_ok() { End::Answered } else { End::Failed }
        }
        Err(error) if error.as_rejected().is_some_and(|rejected| !rejected.reached_inner()) => End::Refused,
        Err(_) => End::Failed,
    }
}

/// A listener for the circuit's events. It is called in the middle of a call, so it only passes on what it hears.
pub fn transitions_to(tell: UnboundedSender<News>) -> impl Fn(&Event<'_>) + Send + Sync + 'static {
    move |event| {
        if let EventKind::Transition { to, trip, .. } = event.kind {
            let _ = tell.send(News::Transition(to, trip));
        }
    }
}

/// Makes the calls of the whole day, writes the diary and shows it as it grows.
pub async fn live_through(
    day: Day,
    without: &Caller<impl Stack>,
    with: &Caller<impl Stack>,
    mut news: UnboundedReceiver<News>,
    circuit: &CircuitBreakerHandle,
    screen: &mut Screen,
) -> Result<Diary, BoxError> {
    let mut diary = Diary::default();
    let mut beat = interval(day.time(1.0 / f64::from(CALLS_PER_SECOND)));
    // A machine that stalls must not look like a rush of callers.
    beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
    screen.heading()?;
    loop {
        select! {
            Some(news) = news.recv() => {
                if let News::Transition(to, trip) = news {
                    screen.transition(day.now(), to, trip)?;
                }
                diary.note(&news, day);
            }
            _ = beat.tick() => {
                while diary.second < day.now() as u32 && health_at(f64::from(diary.second + 1)).is_some() {
                    screen.second_is_over(&diary, circuit.state())?;
                    diary.next_second();
                }
                if !day.is_over() {
                    with.call(patience(day));
                    without.call(patience(day));
                    diary.with.begin();
                    diary.without.begin();
                } else if diary.with.waiting + diary.without.waiting == 0 {
                    screen.second_is_over(&diary, circuit.state())?;
                    return Ok(diary);
                }
                screen.second_so_far(&diary, circuit.state())?;
            }
        }
    }
}

/// How long a caller waits before it gives up.
pub fn patience(day: Day) -> Duration {
    day.time(PATIENCE)
}

// ===== impl Diary =====

impl Diary {
    fn note(&mut self, news: &News, day: Day) {
        match *news {
            News::Ended(Side::With, end, waited) => self.with.end(end, waited),
            News::Ended(Side::Without, end, waited) => self.without.end(end, waited),
            News::Transition(CircuitState::Open, _) => self.opened_while.extend(day.health()),
            News::Transition(..) => {}
        }
    }

    fn next_second(&mut self) {
        self.second += 1;
        self.with.second = Tally::default();
        self.without.second = Tally::default();
    }
}

impl Page {
    fn begin(&mut self) {
        self.waiting += 1;
        self.most_waiting = self.most_waiting.max(self.waiting);
    }

    fn end(&mut self, end: End, waited: Duration) {
        self.waiting -= 1;
        self.waited += waited;
        if end != End::Answered {
            self.waited_in_vain += waited;
        }
        self.second.count(end);
        self.day.count(end);
    }
}

impl Tally {
    fn count(&mut self, end: End) {
        match end {
            End::Answered => self.answered += 1,
            End::Failed => self.failed += 1,
            End::GivenUp => self.given_up += 1,
            End::Refused => self.refused += 1,
        }
    }

    /// Calls that ended without an answer although the server was asked.
    pub const fn lost(&self) -> u32 {
        self.failed + self.given_up
    }

    pub const fn all(&self) -> u32 {
        self.answered + self.lost() + self.refused
    }
}
