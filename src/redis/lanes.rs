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
    redis::{
        Cmd, FromRedisValue, IntoConnectionInfo, RedisResult, cluster::ClusterClientBuilder, sentinel::SentinelClient,
    },
    sentinel,
};

use super::{
    failure::{LaneIs, RedisFailure},
    follow::{Followed, Nodes},
    lane::{Lane, Slot},
    policy::LaneSettings,
    source::{self, Source, Teller},
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
    listened: Vec<Teller>,
    /// Where keys of a cluster are on their way to.
    nodes: Option<Nodes>,
}

/// What can be asked on a lane.
pub(super) trait Question<T>: Sync {
    fn ask(&self, lane: Followed<'_>) -> impl Future<Output = RedisResult<T>> + Send;
}

impl<T: FromRedisValue> Question<T> for Cmd {
    async fn ask(&self, mut lane: Followed<'_>) -> RedisResult<T> {
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
        let config = source::config(settings.connect_timeout);
        let manager =
            Manager::new_with_config(url, config).map_err(|_| ConfigError::new("url", "must be a redis:// URL"))?;
        let pool = Pool::builder(manager)
            .max_size(settings.lanes.max(1))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|_| ConfigError::new("url", "must make a pool"))?;
        Self::over(Source::Single(pool), settings, vec![Teller::at(url)?], None)
    }

    /// Lanes of the connections of a pool. Nothing is connected before the first operation.
    ///
    /// # Errors
    ///
    /// Settings that cannot work.
    pub fn try_new(pool: Pool, settings: LaneSettings) -> Result<Self, ConfigError> {
        Self::over(Source::Single(pool), settings, Vec::new(), None)
    }

    /// As [`try_new`](Self::try_new), to the master that Sentinel names.
    ///
    /// # Errors
    ///
    /// Settings that cannot work.
    pub fn try_from_sentinel(pool: sentinel::Pool, settings: LaneSettings) -> Result<Self, ConfigError> {
        Self::over(Source::Sentinel(pool), settings, Vec::new(), None)
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
        // redis-rs would also send again what may have been executed; what was not, because its slot has moved or is on its way, is sent again here.
        let listened = urls.iter().map(|url| Teller::at(url)).collect::<Result<Vec<_>, _>>()?;
        let like = urls.first().and_then(|url| url.as_str().into_connection_info().ok());
        let nodes = like.map(|like| Nodes::new(like, settings.connect_timeout));
        let client = ClusterClientBuilder::new(urls)
            .retries(0)
            .connection_timeout(settings.connect_timeout)
            .build()
            .map_err(|_| ConfigError::new("url", "must be redis:// URLs of one cluster"))?;
        Self::over(Source::Cluster(Box::new(client)), settings, listened, nodes)
    }

    /// Lanes of the connections of a pool to a cluster. Its connections send again what may have been executed, up to 16 times within the deadline, and a
    /// call may be paid as often; those of [`try_from_cluster_urls`](Self::try_from_cluster_urls) do not, and follow a slot
    /// that moves by themselves.
    ///
    /// # Errors
    ///
    /// Settings that cannot work.
    pub fn try_from_cluster(pool: cluster::Pool, settings: LaneSettings) -> Result<Self, ConfigError> {
        Self::over(Source::ClusterPool(pool), settings, Vec::new(), None)
    }

    /// Where a cache hears of changes: any server that has what the lanes lead to, for lanes of a pool, of which that is not known. The lanes and breaker
    /// are the same, and so they are to be made before they are shared.
    ///
    /// # Errors
    ///
    /// A URL that is none, which the error says nothing of, and lanes that are shared already.
    pub fn try_listening_at(self, urls: impl IntoIterator<Item = impl AsRef<str>>) -> Result<Self, ConfigError> {
        let listened = urls.into_iter().map(|url| Teller::at(url.as_ref())).collect::<Result<_, _>>()?;
        self.listening(listened)
    }

    /// As [`try_listening_at`](Self::try_listening_at), at the server that Sentinel names whenever a connection is made: at the new master after a failover.
    ///
    /// # Errors
    ///
    /// Lanes that are shared already.
    pub fn try_listening_by_sentinel(self, sentinel: SentinelClient) -> Result<Self, ConfigError> {
        self.listening(vec![Teller::Master(Arc::new(tokio::sync::Mutex::new(sentinel)))])
    }

    fn listening(mut self, listened: Vec<Teller>) -> Result<Self, ConfigError> {
        match Arc::get_mut(&mut self.shared) {
            Some(shared) => shared.listened = listened,
            None => return Err(ConfigError::new("lanes", "must not be shared yet")),
        }
        Ok(self)
    }

    pub(super) fn listened(&self) -> &[Teller] {
        &self.shared.listened
    }

    pub(super) fn connect_timeout(&self) -> std::time::Duration {
        self.shared.settings.connect_timeout
    }

    fn over(
        source: Source,
        settings: LaneSettings,
        listened: Vec<Teller>,
        nodes: Option<Nodes>,
    ) -> Result<Self, ConfigError> {
        settings.check()?;
        let breaker = CircuitBreakerHandle::try_new(settings.breaker)?;
        let slots = (0..settings.lanes).map(|_| Slot::default()).collect();
        let next = AtomicUsize::new(0);
        Ok(Self { shared: Arc::new(Shared { source, slots, next, settings, breaker, listened, nodes }) })
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
            _ => None,
        }
    }

    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.shared.source, Source::Cluster(_) | Source::ClusterPool(_))
    }

    /// Asks one command. It must not block, and nothing that belongs to one connection (`WATCH`, `SELECT`, `SUBSCRIBE`) may be asked.
    ///
    /// In a cluster, a command with keys in several slots is asked in parts where redis-rs can split it (`MGET`, `MSET`, `DEL`), and all of it is asked anew when
    /// the slot of one part has moved.
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
        let Shared { source, slots, next, settings, breaker, nodes, .. } = &*self.shared;
        // In runs, so that operations that come together are written and read together.
        let slot = &slots[next.fetch_add(1, Ordering::Relaxed) / RUN % slots.len()];
        let is_probe = breaker.state() != CircuitState::Closed;
        let mut used: Option<Lane> = None;
        let asked = tokio::time::timeout(settings.deadline, async {
            let lane = used.insert(slot.lane(source, settings.connect_timeout).await?);
            let followed = Followed { connection: lane.connection.clone(), nodes: nodes.as_ref() };
            operation.ask(followed).await.map_err(|error| {
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
            // It is there, and there is no reason to ask it nothing else.
            Err(failure) if !failure.is_of_all() => permit.record(Outcome::Permanent),
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
            self.shared.nodes.iter().for_each(Nodes::forget);
        }
    }
}

/// How many operations in a row take the same lane.
const RUN: usize = 256;

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
