//! The script of the bad day, and a real HTTP server that lives by it.

use std::{
    collections::VecDeque,
    future::{IntoFuture, pending},
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, Uri},
};
use tokio::{
    net::TcpListener,
    time::{Instant, sleep},
};

/// How many calls a second the server allows each of its clients.
pub const QUOTA: u32 = 25;

/// How the server is, and for how many seconds.
///
/// Between the two outages it seems well, so that the circuit closes and the hanging has to open it anew.
pub const SCRIPT: [(Health, u32); 6] = [
    (Health::Healthy, 3),
    (Health::Slow, 4),
    (Health::Failing, 3),
    (Health::Healthy, 3),
    (Health::Hanging, 4),
    (Health::Healthy, 4),
];

/// In this second of the day, from 0, more callers come than the server allows: it is healthy, and only the limiter has to do with it.
pub const RUSH: u32 = 1;

/// What begins like this is the same for everybody, and may be a little old. All else is somebody's own.
pub const SHARED: &str = "/pages/";

/// Even a healthy server fails now and then: each so many-th call, counted from when it was last sick.
pub const UNLUCKY: u32 = 10;

/// How the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answers at once, and one answer in [`UNLUCKY`] is a 503 all the same.
    Healthy,
    /// It answers, but late.
    Slow,
    /// It answers 503 at once.
    Failing,
    /// It never answers.
    Hanging,
}

/// The clock of the day. Its seconds are shorter than real ones when the day is to be a short one.
#[derive(Clone, Copy)]
pub struct Day {
    began: Instant,
    second: Duration,
}

/// A server on a free port of this machine.
pub struct Server {
    address: SocketAddr,
    hits: Arc<Hits>,
}

/// The calls that have reached a server.
#[derive(Default)]
struct Hits {
    all: AtomicU32,
    /// For what is the same for everybody.
    shared: AtomicU32,
    while_sick: AtomicU32,
    /// Since it was last sick.
    while_healthy: AtomicU32,
    /// Those of the last second, and how many a second has had at most, wherever it begins.
    rate: Mutex<(VecDeque<Instant>, u32)>,
}

impl Health {
    /// One word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Slow => "slow",
            Self::Failing => "failing",
            Self::Hanging => "hanging",
        }
    }
}

// ===== impl Day =====

impl Day {
    /// A day that begins now, with seconds of this length.
    pub fn begins(second: Duration) -> Self {
        Self { began: Instant::now(), second }
    }

    /// So many seconds of this day.
    pub fn time(&self, seconds: f64) -> Duration {
        self.second.mul_f64(seconds)
    }

    /// How many seconds of the day have passed.
    pub fn now(&self) -> f64 {
        self.began.elapsed().as_secs_f64() / self.second.as_secs_f64()
    }

    /// Whether the script has been played to its end.
    pub fn is_over(&self) -> bool {
        self.health().is_none()
    }

    /// How the server is now, or `None` after the end of the day.
    pub fn health(&self) -> Option<Health> {
        health_at(self.now())
    }
}

/// How the server is at this second of the day, or `None` after its end.
pub fn health_at(second: f64) -> Option<Health> {
    let mut until = 0;
    SCRIPT.into_iter().find_map(|(health, seconds)| {
        until += seconds;
        (second < f64::from(until)).then_some(health)
    })
}

// ===== impl Server =====

impl Server {
    /// Starts it. It serves until the runtime ends.
    pub async fn start(day: Day) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let hits = Arc::new(Hits::default());
        let router = Router::new().fallback(answer).with_state((day, Arc::clone(&hits)));
        tokio::spawn(axum::serve(listener, router).into_future());
        Ok(Self { address, hits })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many calls have reached it.
    pub fn hits(&self) -> u32 {
        self.hits.all.load(Ordering::Relaxed)
    }

    /// How many of them were for what is the same for everybody.
    pub fn shared_hits(&self) -> u32 {
        self.hits.shared.load(Ordering::Relaxed)
    }

    /// How many have reached it within a second at most, wherever that second begins.
    pub fn most_hits_in_a_second(&self) -> u32 {
        self.hits.rate.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    /// How many calls have reached it while it was anything but healthy.
    pub fn hits_while_sick(&self) -> u32 {
        self.hits.while_sick.load(Ordering::Relaxed)
    }
}

// ===== impl Hits =====

impl Hits {
    /// A call has come in. Answers how many a healthy server has had since it was last sick.
    fn count(&self, health: Health, path: &str, second: Duration) -> u32 {
        self.all.fetch_add(1, Ordering::Relaxed);
        self.shared.fetch_add(path.starts_with(SHARED).into(), Ordering::Relaxed);
        self.measure(second);
        if health == Health::Healthy {
            self.while_healthy.fetch_add(1, Ordering::Relaxed) + 1
        } else {
            self.while_sick.fetch_add(1, Ordering::Relaxed);
            self.while_healthy.store(0, Ordering::Relaxed);
            0
        }
    }

    fn measure(&self, second: Duration) {
        let now = Instant::now();
        let (last, most) = &mut *self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        while last.front().is_some_and(|hit| now.duration_since(*hit) >= second) {
            last.pop_front();
        }
        last.push_back(now);
        *most = (*most).max(last.len() as u32);
    }
}

async fn answer(State((day, hits)): State<(Day, Arc<Hits>)>, uri: Uri) -> StatusCode {
    let health = day.health().unwrap_or(Health::Healthy);
    let nth = hits.count(health, uri.path(), day.time(1.0));
    match health {
        Health::Healthy if nth.is_multiple_of(UNLUCKY) => return StatusCode::SERVICE_UNAVAILABLE,
        Health::Healthy => sleep(day.time(0.02)).await,
        Health::Slow => sleep(day.time(0.8)).await,
        Health::Failing => return StatusCode::SERVICE_UNAVAILABLE,
        Health::Hanging => pending().await,
    }
    StatusCode::OK
}
