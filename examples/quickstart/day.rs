//! The script of the bad day, and a real HTTP server that lives by it.

use std::{
    future::{IntoFuture, pending},
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{Router, extract::State, http::StatusCode};
use tokio::{
    net::TcpListener,
    time::{Instant, sleep},
};

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

/// How the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It answers at once.
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
    hits_while_sick: Arc<AtomicU32>,
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
        let hits_while_sick = Arc::new(AtomicU32::new(0));
        let router = Router::new().fallback(answer).with_state((day, Arc::clone(&hits_while_sick)));
        tokio::spawn(axum::serve(listener, router).into_future());
        Ok(Self { address, hits_while_sick })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many calls have reached it while it was anything but healthy.
    pub fn hits_while_sick(&self) -> u32 {
        self.hits_while_sick.load(Ordering::Relaxed)
    }
}

async fn answer(State((day, hits_while_sick)): State<(Day, Arc<AtomicU32>)>) -> StatusCode {
    let health = day.health().unwrap_or(Health::Healthy);
    if health != Health::Healthy {
        hits_while_sick.fetch_add(1, Ordering::Relaxed);
    }
    match health {
        Health::Healthy => sleep(day.time(0.02)).await,
        Health::Slow => sleep(day.time(0.8)).await,
        Health::Failing => return StatusCode::SERVICE_UNAVAILABLE,
        Health::Hanging => pending().await,
    }
    StatusCode::OK
}
