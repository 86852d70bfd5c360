//! Named parts of a process, and whether it is live and ready: for orchestrators, load balancers and people.
//!
//! A part is registered under a section and a name: a circuit, a store, a cache, anything with a closure. Which parts make the process unready is a
//! choice, and mostly the answer is none: a service whose dependency is down still answers from its cache, and a fleet that goes unready all at
//! once is an outage of its own.
//!
//! # Example
//!
//! ```
//! use buttress::{
//!     circuit_breaker::{CircuitBreakerHandle, CircuitBreakerSettings},
//!     health::{Health, Matters, Status},
//!     red::RedHandle,
//! };
//!
//! let payments = CircuitBreakerHandle::try_new(CircuitBreakerSettings::new().name("payments")).unwrap();
//! let health = Health::new();
//! health.circuit(&payments, Matters::ToReadiness);
//! health.red(&RedHandle::try_new("api").unwrap());
//! health.part("store", "sessions", Matters::ToNobody, || Status::well().with("entries", 12));
//! assert!(health.is_ready());
//!
//! payments.force_open();
//! assert!(health.is_live() && !health.is_ready());
//! assert_eq!(health.report()["circuit"]["payments"]["state"], "open");
//! assert_eq!(health.metrics()["requests"]["api"]["total"], 0);
//! ```
//!
//! # Over HTTP
//!
//! With the feature `http`, [`Health::service`] answers `/health/live`, `/health/ready`, `/metrics.json`, and `/metrics` if it is told how to render it. It is
//! a plain tower service that cannot fail, for hyper as it is and for axum as a fallback:
//!
#![cfg_attr(feature = "http", doc = "```")]
#![cfg_attr(not(feature = "http"), doc = "```ignore")]
//! use buttress::health::Health;
//!
//! # let exporter = || String::new();
//! let health = Health::new().service().metrics(exporter);
//! let app: axum::Router = axum::Router::new()
//!     .route("/", axum::routing::get(async || "hello"))
//!     .fallback_service(health);
//! ```
//!
//! # Errors and panics
//!
//! None. A part whose closure panics is unwell, and harms no other.
//!
//! # Clone
//!
//! Clones share the parts. Handles are kept by them.

#[cfg(feature = "http")]
mod service;

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, PoisonError, RwLock},
};

use serde_json::{Map, Value, json};

#[cfg(feature = "http")]
pub use self::service::{HealthBody, HealthService};

/// See the [module docs](self).
#[derive(Clone, Default)]
pub struct Health {
    parts: Arc<RwLock<Parts>>,
}

type Name = Cow<'static, str>;
type Look = Arc<dyn Fn() -> Status + Send + Sync>;

#[derive(Default)]
struct Parts {
    /// By section and name.
    health: BTreeMap<(Name, Name), (Matters, Look)>,
    /// What a metrics page has besides: a value for each section.
    figures: BTreeMap<Name, Figures>,
}

type Figures = Arc<dyn Fn() -> Vec<(&'static str, Value)> + Send + Sync>;

/// What it matters to when a part is unwell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Matters {
    /// The process is to be restarted, and gets no requests until then.
    ToLiveness,
    /// The process gets no requests.
    ToReadiness,
    /// It is in the report.
    ToNobody,
}

/// How a part is.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    well: bool,
    details: Map<String, Value>,
}

impl Status {
    /// Nothing is wrong with it.
    #[must_use]
    pub fn well() -> Self {
        Self { well: true, details: Map::new() }
    }

    /// Something is.
    #[must_use]
    pub fn unwell() -> Self {
        Self { well: false, details: Map::new() }
    }

    /// Adds a detail to the report. The report is for whoever asks, so no secrets.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.details.insert(key.into(), value.into());
        self
    }

    fn into_value(self, matters: Matters) -> Value {
        let matters = match matters {
            Matters::ToLiveness => "to_liveness",
            Matters::ToReadiness => "to_readiness",
            Matters::ToNobody => "to_nobody",
        };
        let mut value = self.details;
        value.insert("well".into(), self.well.into());
        value.insert("matters".into(), matters.into());
        Value::Object(value)
    }
}

impl Health {
    /// Of no parts: live and ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers a part, in place of the one that had its section and name.
    ///
    /// The closure is asked at each look, under no lock; it is to answer at once, from what it knows.
    pub fn part(
        &self,
        section: impl Into<Name>,
        name: impl Into<Name>,
        matters: Matters,
        look: impl Fn() -> Status + Send + Sync + 'static,
    ) {
        let replaced =
            self.change(|parts| parts.health.insert((section.into(), name.into()), (matters, Arc::new(look))));
        drop(replaced);
    }

    /// Registers a circuit under its name, in the section `circuit`. It is unwell while it is open.
    #[cfg(feature = "circuit-breaker")]
    pub fn circuit(&self, handle: &crate::circuit_breaker::CircuitBreakerHandle, matters: Matters) {
        let handle = handle.clone();
        self.part("circuit", handle.name(), matters, move || {
            let snapshot = handle.snapshot();
            let well = snapshot.state != crate::event::CircuitState::Open;
            let details = match serde_json::to_value(snapshot) {
                Ok(Value::Object(details)) => details,
                _ => Map::new(),
            };
            Status { well, details }
        });
    }

    /// Shows figures on the metrics page, under their name.
    #[cfg(feature = "red")]
    pub fn red(&self, handle: &crate::red::RedHandle) {
        let handle = handle.clone();
        let name = handle.name();
        let figures = move || {
            let snapshot = handle.snapshot();
            vec![("requests", json!(snapshot.requests)), ("duration", json!(snapshot.duration))]
        };
        let replaced = self.change(|parts| parts.figures.insert(name.into(), Arc::new(figures)));
        drop(replaced);
    }

    /// Forgets a part.
    pub fn remove(&self, section: &str, name: &str) {
        let removed = self.change(|parts| parts.health.remove(&(section.to_owned().into(), name.to_owned().into())));
        drop(removed);
    }

    /// Whether no part that matters to it is unwell.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.look(|matters| matters == Matters::ToLiveness).all(|(_, _, status)| status.well)
    }

    /// Whether no part that matters to it, or to liveness, is unwell.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.look(|matters| matters != Matters::ToNobody).all(|(_, _, status)| status.well)
    }

    /// `live`, `ready`, and all parts by section and name: whether each is well, what it matters to, and its details.
    #[must_use]
    pub fn report(&self) -> Value {
        let mut sections: BTreeMap<Name, Map<String, Value>> = BTreeMap::new();
        let (mut live, mut ready) = (true, true);
        for ((section, name), matters, status) in self.look(|_| true) {
            live &= status.well || matters != Matters::ToLiveness;
            ready &= status.well || matters == Matters::ToNobody;
            sections.entry(section).or_default().insert(name.into(), status.into_value(matters));
        }
        let mut report: Map<String, Value> =
            sections.into_iter().map(|(section, parts)| (section.into(), parts.into())).collect();
        report.insert("live".into(), live.into());
        report.insert("ready".into(), ready.into());
        report.into()
    }

    /// A metrics page: `requests`, `duration`, `cache`, `queue`, `circuit` and whatever section there is, each by name.
    #[must_use]
    pub fn metrics(&self) -> Value {
        let mut page: BTreeMap<String, Map<String, Value>> =
            ["requests", "duration", "cache", "queue", "circuit"].map(|section| (section.into(), Map::new())).into();
        for ((section, name), matters, status) in self.look(|_| true) {
            page.entry(section.into()).or_default().insert(name.into(), status.into_value(matters));
        }
        let figures = self.parts().figures.clone();
        for (name, figures) in figures {
            for (section, value) in figures() {
                page.entry(section.into()).or_default().insert(name.clone().into(), value);
            }
        }
        page.into_iter().map(|(section, parts)| (section, Value::Object(parts))).collect::<Map<_, _>>().into()
    }

    /// Answers over HTTP. See the [module docs](self).
    #[cfg(feature = "http")]
    #[must_use]
    pub fn service(&self) -> HealthService {
        HealthService::new(self.clone())
    }

    /// Asks those parts, one after the other and under no lock.
    fn look(&self, which: impl Fn(Matters) -> bool) -> impl Iterator<Item = ((Name, Name), Matters, Status)> {
        let parts = self.parts().health.clone();
        parts.into_iter().filter(move |(_, (matters, _))| which(*matters)).map(|(name, (matters, look))| {
            let panicked = |payload| {
                // Its destructor may panic too.
                std::mem::forget(payload);
                Status::unwell().with("panicked", true)
            };
            (name, matters, catch_unwind(AssertUnwindSafe(|| look())).unwrap_or_else(panicked))
        })
    }

    fn parts(&self) -> std::sync::RwLockReadGuard<'_, Parts> {
        self.parts.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it answers is dropped under no lock.
    fn change<T>(&self, change: impl FnOnce(&mut Parts) -> T) -> T {
        change(&mut self.parts.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("parts", &self.parts().health.keys().collect::<Vec<_>>()).finish_non_exhaustive()
    }
}
