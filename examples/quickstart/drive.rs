//! The callers: the same calls to each side on one beat, and a diary of what became of them.

use std::time::Duration;

use axum::{
    body::Bytes,
    http::{Response, uri::InvalidUri},
};
use buttress::{AsRejected, BoxError, Event, EventKind, Reason, Trip, circuit_breaker::CircuitState};
use http_body_util::Empty;
use tokio::{
    select,
    sync::mpsc::{UnboundedReceiver, UnboundedSender},
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tower::{Service, ServiceExt, util::BoxCloneService};

use crate::{
    day::{Day, Health, RUSH, SHARED, Server, health_at},
    draw::Screen,
    serve::Live,
};

/// On each side.
pub const CALLS_PER_SECOND: u32 = 20;

/// How many times as many callers come in the second of the rush.
pub const CROWD: u32 = 3;

/// How many things there are that everybody asks for.
const PAGES: u32 = 5;

/// Seconds after which a caller gives up, on each side.
const PATIENCE: f64 = 2.0;

pub type Request = axum::http::Request<Empty<Bytes>>;
/// Its body has been read to its end, so it can be cloned and kept.
pub type Reply = Response<Bytes>;

/// Any stack around the client, whatever its layers.
pub trait Stack: Service<Request, Response = Reply, Error = BoxError, Future: Send> + Clone + Send + 'static {}

impl<S> Stack for S where S: Service<Request, Response = Reply, Error = BoxError, Future: Send> + Clone + Send + 'static {}

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
    is_shared: bool,
    waited: Duration,
    /// Whether the server was healthy when the call began, and when it ended.
    was_healthy: bool,
}

/// Those who call one side.
pub struct Caller {
    side: Side,
    stack: BoxCloneService<Request, Reply, BoxError>,
    server: Server,
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
    /// Calls for what is the same for everybody that ended without it.
    pub without_page: u32,
    /// Calls that have reached the server, retries included.
    pub hits: u32,
    /// How many of them had before the present second.
    hits_before: u32,
    /// In the second with the most, wherever it begins.
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
    /// Times that callers have come, to each side.
    beats: u32,
    /// Calls to each side for what is the same for everybody.
    pub asked_shared: u32,
    /// By [`Side`].
    pub pages: [Page; 3],
    /// How the server was whenever the circuit opened.
    pub opened_while: Vec<Health>,
}

// ===== impl Caller =====

impl Caller {
    /// Callers of this server through this stack.
    pub fn new(side: Side, stack: impl Stack, server: Server, tell: UnboundedSender<News>) -> Self {
        Self { side, stack: BoxCloneService::new(stack), server, tell }
    }

    /// The server that they call.
    pub const fn server(&self) -> &Server {
        &self.server
    }

    /// One call. It waits for no other: users do not stop coming because a server is slow.
    fn call(&self, day: Day, path: &str) -> Result<(), InvalidUri> {
        let (side, stack, tell) = (self.side, self.stack.clone(), self.tell.clone());
        let mut request = Request::default();
        *request.uri_mut() = format!("http://{}{path}", self.server.address()).parse()?;
        let is_shared = path.starts_with(SHARED);
        tokio::spawn(async move {
            let (began, before) = (Instant::now(), day.health());
            let end = timeout(patience(day), ask(stack, request)).await.unwrap_or(End::GivenUp);
            let was_healthy = [before, day.health()] == [Some(Health::Healthy); 2];
            // Nobody listens when the terminal has gone away, and then nobody needs to know.
            let _ = tell.send(News::Ended(side, Call { end, is_shared, waited: began.elapsed(), was_healthy }));
        });
        Ok(())
    }
}

async fn ask(stack: impl Stack, request: Request) -> End {
    match stack.oneshot(request).await {
        Ok(reply) if reply.status().is_success() => End::Answered,
        Ok(_) => End::Failed,
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
    live: &Live,
    callers: &[Caller; 3],
    mut news: UnboundedReceiver<News>,
    screen: &mut Screen,
) -> Result<Diary, BoxError> {
    let (day, circuit) = (live.day, &live.circuit);
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
                    live.note(&diary, false);
                    diary.next_second();
                }
                if !day.is_over() {
                    for path in diary.paths(day) {
                        for (caller, page) in callers.iter().zip(&mut diary.pages) {
                            caller.call(day, &path)?;
                            page.begin();
                        }
                    }
                } else if diary.pages.iter().all(|page| page.waiting == 0) {
                    screen.second_is_over(&diary, circuit.state())?;
                    live.note(&diary, true);
                    return Ok(diary);
                }
                live.note(&diary, false);
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
    /// What is asked for on the next beat, the same on each side: in turn one of the pages and something of somebody's own. Those who come in a rush
    /// all ask for something of their own.
    fn paths(&mut self, day: Day) -> Vec<String> {
        let beat = self.beats;
        self.beats += 1;
        let crowd = if day.now() as u32 == RUSH { CROWD } else { 1 };
        let own = |caller| format!("/mine/{beat}-{caller}");
        let is_shared = beat.is_multiple_of(2);
        self.asked_shared += u32::from(is_shared);
        let first = if is_shared { format!("{SHARED}{}", beat / 2 % PAGES) } else { own(0) };
        [first].into_iter().chain((1..crowd).map(own)).collect()
    }

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
            page.most_sent = caller.server.most_hits_in_a_second();
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

    fn end(&mut self, Call { end, is_shared, waited, was_healthy }: Call) {
        self.waiting -= 1;
        if end != End::Answered {
            self.without_page += u32::from(is_shared);
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
