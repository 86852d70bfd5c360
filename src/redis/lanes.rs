//! Every operation goes through here: one lane, one deadline, one breaker.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use deadpool_redis::{
    Manager, Pool, Runtime, cluster,
    redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisResult, cluster::ClusterClientBuilder},
    sentinel,
};

use super::{
    failure::{LaneIs, RedisFailure},
    lane::{Lane, Slot},
    policy::LaneSettings,
    source::{self, Source},
};
use crate::{
    circuit_breaker::{CircuitBreakerHandle, Permit},
    error::ConfigError,
    event::CircuitState,
    outcome::Outcome,
};

/// A few connections that all operations share. Clones are handles of the same ones.
///
/// See the [module docs](crate::redis).
#[derive(Clone)]
pub struct Lanes {
    shared: Arc<Shared>,
}

struct Shared {
    source: Source,
    slots: Box<[Slot]>,
    next: AtomicUsize,
    settings: LaneSettings,
    breaker: CircuitBreakerHandle,
    /// Where it is told of changes.
    listened: Vec<Client>,
}

/// What can be asked on a lane.
pub(super) trait Question<T>: Sync {
    fn ask(&self, lane: source::Shared) -> impl Future<Output = RedisResult<T>> + Send;
}

impl<T: FromRedisValue> Question<T> for Cmd {
    async fn ask(&self, mut lane: source::Shared) -> RedisResult<T> {
        self.query_async(&mut lane).await
    }
}

impl Lanes {
    /// Lanes to the server of this URL. Nothing is connected before the first operation.
    ///
    /// # Errors
    ///
    /// Settings that cannot work, or a URL that is none. The error says nothing of it.
    pub fn try_from_url(url: &str, settings: LaneSettings) -> Result<Self, ConfigError> {
        // The outer deadline is the only one, and a lane survives it.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(settings.connect_timeout))
            .set_response_timeout(None);
        let manager =
            Manager::new_with_config(url, config).map_err(|_| ConfigError::new("url", "must be a redis:// URL"))?;
        let pool = Pool::builder(manager)
            .max_size(settings.lanes.max(1))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|_| ConfigError::new("url", "must make a pool"))?;
        Self::over(Source::Single(pool), settings, source::resp3(url)?)
    }

    /// Lanes of the connections of a pool. Nothing is connected before the first operation.
    ///
    /// # Errors
    ///
    /// Settings that cannot work.
    pub fn try_new(pool: Pool, settings: LaneSettings) -> Result<Self, ConfigError> {
        Self::over(Source::Single(pool), settings, Vec::new())
    }

    /// As [`try_new`](Self::try_new), to the master that Sentinel names.
    ///
    /// # Errors
    ///
    /// Settings that cannot work.
    pub fn try_from_sentinel(pool: sentinel::Pool, settings: LaneSettings) -> Result<Self, ConfigError> {
        Self::over(Source::Sentinel(pool), settings, Vec::new())
    }

    /// Lanes to the cluster of these nodes, which follow what the cluster says of its slots.
    ///
    /// # Errors
    ///
    /// Settings that cannot work, or a URL that is none. The error says nothing of it.
    pub fn try_from_cluster_urls(
        urls: impl IntoIterator<Item = impl AsRef<str>>,
        settings: LaneSettings,
    ) -> Result<Self, ConfigError> {
        let urls: Vec<String> = urls.into_iter().map(|url| url.as_ref().to_owned()).collect();
        // redis-rs would also send again what may have been executed; what was not, because its slot has moved or is about to, is sent again here.
        let listened = urls.iter().map(|url| source::resp3(url)).collect::<Result<Vec<_>, _>>()?.concat();
        let client = ClusterClientBuilder::new(urls)
            .retries(0)
            .connection_timeout(settings.connect_timeout)
            .build()
            .map_err(|_| ConfigError::new("url", "must be redis:// URLs of one cluster"))?;
        Self::over(Source::Cluster(Box::new(client)), settings, listened)
    }

    /// Lanes of the connections of a pool to a cluster. Its connections send again what may have been executed, up to 16 times within the deadline, and a
    /// call may be paid as often; those of [`try_from_cluster_urls`](Self::try_from_cluster_urls) do not.
    ///
    /// # Errors
    ///
    /// Settings that cannot work.
    pub fn try_from_cluster(pool: cluster::Pool, settings: LaneSettings) -> Result<Self, ConfigError> {
        Self::over(Source::ClusterPool(pool), settings, Vec::new())
    }

    /// Where a cache hears of changes: any server that has what the lanes lead to, for lanes of a pool, of which that is not known. The lanes and breaker
    /// are the same, and so they are to be made before they are shared.
    ///
    /// # Errors
    ///
    /// A URL that is none, which the error says nothing of, and lanes that are shared already.
    pub fn try_listening_at(mut self, urls: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, ConfigError> {
        let listened = urls.into_iter().map(|url| source::resp3(url.as_ref())).collect::<Result<Vec<_>, _>>()?.concat();
        match Arc::get_mut(&mut self.shared) {
            Some(shared) => shared.listened = listened,
            None => return Err(ConfigError::new("lanes", "must not be shared yet")),
        }
        Ok(self)
    }

    pub(super) fn listened(&self) -> &[Client] {
        &self.shared.listened
    }

    pub(super) fn connect_timeout(&self) -> std::time::Duration {
        self.shared.settings.connect_timeout
    }

    fn over(source: Source, settings: LaneSettings, listened: Vec<Client>) -> Result<Self, ConfigError> {
        settings.check()?;
        let breaker = CircuitBreakerHandle::try_new(settings.breaker)?;
        let slots = (0..settings.lanes).map(|_| Slot::default()).collect();
        let next = AtomicUsize::new(0);
        Ok(Self { shared: Arc::new(Shared { source, slots, next, settings, breaker, listened }) })
    }

    /// The breaker around every operation: its state, its events, and control.
    #[must_use]
    pub fn breaker(&self) -> &CircuitBreakerHandle {
        &self.shared.breaker
    }

    /// The pool that lanes to one server come from, for a connection of one's own: to block, or to subscribe. `None` over Sentinel or a cluster, where whoever
    /// built the lanes has the pool.
    #[must_use]
    pub fn pool(&self) -> Option<&Pool> {
        match &self.shared.source {
            Source::Single(pool) => Some(pool),
            Source::Sentinel(_) | Source::Cluster(_) | Source::ClusterPool(_) => None,
        }
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.shared.source, Source::Cluster(_) | Source::ClusterPool(_))
    }

    /// Asks one command. It must not block, and nothing that belongs to one connection (`WATCH`, `SELECT`, `SUBSCRIBE`) may be asked.
    ///
    /// # Errors
    ///
    /// Why there is no answer.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the answer to nobody. Redis may have executed the command.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisFailure> {
        self.run(command).await
    }

    pub(super) async fn run<T>(&self, operation: &impl Question<T>) -> Result<T, RedisFailure> {
        let permit = self.admit()?;
        self.run_admitted(permit, operation).await
    }

    /// A place in the breaker, or the refusal, at once.
    pub(super) fn admit(&self) -> Result<Permit, RedisFailure> {
        self.shared.breaker.try_acquire().map_err(RedisFailure::Away)
    }

    /// Nothing is tried twice that may have been executed: who lost an answer does not know what became of the question.
    pub(super) async fn run_admitted<T>(
        &self,
        permit: Permit,
        operation: &impl Question<T>,
    ) -> Result<T, RedisFailure> {
        let Shared { source, slots, next, settings, breaker, .. } = &*self.shared;
        // In runs, so that operations that come together are written and read together.
        let slot = &slots[next.fetch_add(1, Ordering::Relaxed) / RUN % slots.len()];
        let is_probe = breaker.state() != CircuitState::Closed;
        let mut used: Option<Lane> = None;
        let asked = tokio::time::timeout(settings.deadline, async {
            let lane = used.insert(slot.lane(source, settings.connect_timeout).await?);
            let mut result = operation.ask(lane.connection.clone()).await;
            let mut sent = None;
            for _ in 0..MOST_MOVES {
                let asked = sent.as_ref().unwrap_or(&lane.connection);
                let Some(instead) = result.as_ref().err().and_then(|error| asked.instead(error)) else { break };
                result = operation.ask(instead.clone()).await;
                sent = Some(instead);
            }
            result.map_err(|error| {
                let (failure, is) = RedisFailure::of(&error);
                // One to a cluster leads to many nodes, and replaces what breaks of it.
                if is == LaneIs::Broken && !self.is_cluster() {
                    self.replace(slot, lane);
                }
                failure
            })
        });
        let result = asked.await.unwrap_or(Err(RedisFailure::TimedOut));
        match &result {
            Ok(_) => permit.success(),
            Err(RedisFailure::Answered) => permit.record(Outcome::Permanent),
            Err(failure) => {
                // A lane survives a time-out, because a server that hung goes on where it was. But when even a probe has no answer, the other end
                // may be gone without a word, and the next probe had better knock anew.
                let is_unheard = matches!(failure, RedisFailure::TimedOut | RedisFailure::Disconnected);
                if let (true, Some(lane)) = (is_probe && is_unheard, &used) {
                    self.replace(slot, lane);
                }
                permit.failure();
            }
        }
        result
    }

    /// The others lead to the same server, and would tell the next who asks on them that it is gone.
    fn replace(&self, slot: &Slot, lane: &Lane) {
        if slot.drop_lane(lane) {
            self.shared.slots.iter().for_each(Slot::forget);
        }
    }
}

/// How many operations in a row take the same lane.
const RUN: usize = 256;
/// How often a question follows its slot.
const MOST_MOVES: usize = 3;

impl fmt::Debug for Lanes {
    /// Without the pool, which knows the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lanes")
            .field("lanes", &self.shared.slots.len())
            .field("deadline", &self.shared.settings.deadline)
            .field("breaker", &self.shared.breaker)
            .finish_non_exhaustive()
    }
}
