//! The callers: the same calls to each side on one beat, and a diary of what became of them.

use std::time::Duration;

use axum::{
    body::Bytes,
    http::{Uri, uri::InvalidUri},
};
use buttress::{
    AsRejected, BoxError, Event, EventKind, Reason, Trip,
    circuit_breaker::{CircuitBreakerHandle, CircuitState},
};
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::{Client, Error as HttpError, connect::HttpConnector};
use tokio::{
    select,
    sync::mpsc::{UnboundedReceiver, UnboundedSender},
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tower::{Service, ServiceExt, util::BoxCloneService};

use crate::{
    day::{Day, Health, Server, health_at},
    draw::Screen,
};

/// On each side.
pub const CALLS_PER_SECOND: u32 = 20;

/// Seconds after which a caller gives up, on each side.
const PATIENCE: f64 = 2.0;

pub type Request = axum::http::Request<Empty<Bytes>>;
pub type Http = Client<HttpConnector, Empty<Bytes>>;
pub type Reply = <Http as Service<Request>>::Response;
pub type Error = buttress::Error<HttpError>;

/// Any stack around the client, whatever its layers.
pub trait Stack: Service<Request, Response = Reply, Error = Error, Future: Send> + Clone + Send + 'static {}

impl<S> Stack for S where S: Service<Request, Response = Reply, Error = Error, Future: Send> + Clone + Send + 'static {}

/// Which of the three runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client alone.
    Alone,
    /// The client behind a retry without a budget.
    Naive,
    /// The client behind the stack.
    Guarded,
}

/// How a call ended, as its caller saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With an answer.
    Answered,
    /// With an error of the server or of the connection, or with the time-out of the last attempt.
    Failed,
    /// With the caller's patience.
    GivenUp,
    /// By the open circuit, or as more than the server allows.
    Refused,
}

/// What the diary hears of.
#[derive(Debug)]
pub enum News {
    /// A call ended.
    Ended(Side, Call),
    /// The circuit changed its state.
    Transition(CircuitState, Option<Trip>),
}

/// A call that ended.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    end: End,
    waited: Duration,
    /// Whether the server was healthy when the call began, and when it ended.
    was_healthy: bool,
}

/// Those who call one side.
pub struct Caller {
    side: Side,
    stack: BoxCloneService<Request, Reply, Error>,
    server: Server,
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
    /// Calls that failed although the server was healthy.
    pub unlucky: u32,
    /// Calls that have reached the server, retries included.
    pub hits: u32,
    /// How many of them had before the present second.
    hits_before: u32,
    /// In the second with the most.
    pub most_sent: u32,
    /// Calls that have not ended.
    waiting: u32,
    pub most_waiting: u32,
    /// How long all callers together have waited for nothing.
    pub waited_in_vain: Duration,
}

/// What happened on each side.
#[derive(Debug, Default)]
pub struct Diary {
    pub second: u32,
    /// By [`Side`].
    pub pages: [Page; 3],
    /// How the server was whenever the circuit opened.
    pub opened_while: Vec<Health>,
}

// ===== impl Caller =====

impl Caller {
    /// Callers of this server through this stack.
    pub fn new(side: Side, stack: impl Stack, server: Server, tell: UnboundedSender<News>) -> Result<Self, InvalidUri> {
        let uri = format!("http://{}/", server.address()).parse()?;
        Ok(Self { side, stack: BoxCloneService::new(stack), server, uri, tell })
    }

    /// The server that they call.
    pub const fn server(&self) -> &Server {
        &self.server
    }

    /// One call. It waits for no other: users do not stop coming because a server is slow.
    fn call(&self, day: Day) {
        let (side, stack, tell) = (self.side, self.stack.clone(), self.tell.clone());
        let mut request = Request::default();
        *request.uri_mut() = self.uri.clone();
        tokio::spawn(async move {
            let (began, before) = (Instant::now(), day.health());
            let end = timeout(patience(day), ask(stack, request)).await.unwrap_or(End::GivenUp);
            let was_healthy = [before, day.health()] == [Some(Health::Healthy); 2];
            // Nobody listens when the terminal has gone away, and then nobody needs to know.
            let _ = tell.send(News::Ended(side, Call { end, waited: began.elapsed(), was_healthy }));
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
        Err(error) => match error.as_rejected().map(|rejected| rejected.reason()) {
            Some(Reason::CircuitOpen(_) | Reason::RateLimited) => End::Refused,
            // The stack knows the caller's patience, and may find it at its end a moment before the caller does.
            Some(Reason::DeadlineExceeded) => End::GivenUp,
            _ => End::Failed,
        },
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
    callers: &[Caller; 3],
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
                diary.count_hits(callers);
                while diary.second < day.now() as u32 && health_at(f64::from(diary.second + 1)).is_some() {
                    screen.second_is_over(&diary, circuit.state())?;
                    diary.next_second();
                }
                if !day.is_over() {
                    for (caller, page) in callers.iter().zip(&mut diary.pages) {
                        caller.call(day);
                        page.begin();
                    }
                } else if diary.pages.iter().all(|page| page.waiting == 0) {
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
            News::Ended(side, call) => self.pages[side as usize].end(call),
            News::Transition(CircuitState::Open, _) => self.opened_while.extend(day.health()),
            News::Transition(..) => {}
        }
    }

    fn count_hits(&mut self, callers: &[Caller; 3]) {
        for (caller, page) in callers.iter().zip(&mut self.pages) {
            page.hits = caller.server.hits();
            page.most_sent = page.most_sent.max(page.sent());
        }
    }

    fn next_second(&mut self) {
        self.second += 1;
        for page in &mut self.pages {
            page.second = Tally::default();
            page.hits_before = page.hits;
        }
    }
}

impl Page {
    /// Calls that have reached the server in the present second.
    pub const fn sent(&self) -> u32 {
        self.hits - self.hits_before
    }

    fn begin(&mut self) {
        self.waiting += 1;
        self.most_waiting = self.most_waiting.max(self.waiting);
    }

    fn end(&mut self, Call { end, waited, was_healthy }: Call) {
        self.waiting -= 1;
        if end != End::Answered {
            self.waited_in_vain += waited;
        }
        if was_healthy && matches!(end, End::Failed | End::GivenUp) {
            self.unlucky += 1;
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

    /// Calls that ended without an answer although the circuit, if there was one, let them pass.
    pub const fn lost(&self) -> u32 {
        self.failed + self.given_up
    }

    pub const fn all(&self) -> u32 {
        self.answered + self.lost() + self.refused
    }
}
