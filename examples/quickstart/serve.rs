//! `--serve`: a page on this machine with the figures of the day as charts. It is one file, and asks for one piece of JSON.

use std::{
    future::IntoFuture,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    extract::State,
    http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE},
    response::IntoResponse,
    routing::get,
};
use buttress::{
    cache::{CacheHandle, CacheKey},
    circuit_breaker::CircuitBreakerHandle,
    red::{RedHandle, RedSnapshot},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    day::{Day, QUOTA, SCRIPT},
    drive::{Diary, Reply},
};

const PAGE: &str = include_str!("page.html");
/// Nothing from elsewhere.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:";

/// What the page is made of: the handles of the layers, and the diary's seconds.
pub struct Live {
    pub day: Day,
    pub red: [RedHandle; 3],
    pub cache: CacheHandle<CacheKey, Reply>,
    pub circuit: CircuitBreakerHandle,
    seconds: Mutex<Seconds>,
}

/// What each second brought to each side. The last one has not ended.
#[derive(Default)]
struct Seconds {
    by_side: [Vec<Value>; 3],
    are_all: bool,
}

impl Live {
    pub fn new(
        day: Day,
        red: [RedHandle; 3],
        cache: CacheHandle<CacheKey, Reply>,
        circuit: CircuitBreakerHandle,
    ) -> Arc<Self> {
        Arc::new(Self { day, red, cache, circuit, seconds: Mutex::default() })
    }

    /// Serves the page until the process ends.
    pub async fn serve(self: &Arc<Self>) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let page = async || {
            let head = [(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, POLICY)];
            (head, PAGE)
        };
        let router =
            Router::new().route("/", get(page)).route("/figures.json", get(figures)).with_state(Arc::clone(self));
        tokio::spawn(axum::serve(listener, router).into_future());
        Ok(address)
    }

    /// Takes down the present second, and whether it was the last.
    pub fn note(&self, diary: &Diary, is_over: bool) {
        let mut seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        for (rows, page) in seconds.by_side.iter_mut().zip(&diary.pages) {
            let tally = page.second;
            rows.truncate(diary.second as usize);
            rows.push(json!({
                "ok": tally.answered,
                "lost": tally.lost(),
                "refused": tally.refused,
                "sent": page.sent(),
            }));
        }
        seconds.are_all = is_over;
    }

    fn figures(&self) -> Value {
        let seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        let length: u32 = SCRIPT.iter().map(|(_, seconds)| seconds).sum();
        let script = SCRIPT.map(|(health, seconds)| json!({ "health": health.as_str(), "seconds": seconds }));
        let sides: Vec<_> =
            self.red.iter().zip(&seconds.by_side).map(|(red, rows)| side(&red.snapshot(), rows)).collect();
        let cache = self.cache.stats();
        json!({
            "day": {
                "now": self.day.now(),
                "length": length,
                "second_ms": self.day.time(1.0).as_millis() as u64,
                "health": self.day.health().map(|health| health.as_str()),
                "is_over": seconds.are_all,
                "quota": QUOTA,
                "script": script,
            },
            "sides": sides,
            "cache": {
                "calls": cache.calls(),
                "stale": cache.stale,
                "loads": cache.loads,
                "hit_rate": cache.hit_rate(),
                "calls_saved": cache.calls_saved(),
            },
            "circuit": { "state": self.circuit.state().as_str() },
        })
    }
}

/// By hand: with the feature `serde` a snapshot is JSON by itself.
fn side(RedSnapshot { name, requests, duration, .. }: &RedSnapshot, seconds: &[Value]) -> Value {
    let millis = |duration: std::time::Duration| duration.as_secs_f64() * 1e3;
    json!({
        "name": name,
        "requests": {
            "total": requests.total,
            "in_flight": requests.in_flight,
            "ok": requests.ok,
            "error": requests.error + requests.permanent,
            "cancelled": requests.cancelled,
            "rejected": requests.rejected,
        },
        "duration": {
            "count": duration.count,
            "p50_ms": millis(duration.p50),
            "p95_ms": millis(duration.p95),
            "p99_ms": millis(duration.p99),
        },
        "seconds": seconds,
    })
}

async fn figures(State(live): State<Arc<Live>>) -> impl IntoResponse {
    let head = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    (head, live.figures().to_string())
}
