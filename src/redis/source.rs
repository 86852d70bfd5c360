//! Where connections come from, and the two kinds of them.

use deadpool_redis::{
    Connection, Pool, PoolError,
    cluster::{self, ClusterConnection},
    redis::{
        Client, Cmd, IntoConnectionInfo, Pipeline, ProtocolVersion, RedisError, RedisFuture, Value,
        aio::{ConnectionLike, MultiplexedConnection},
        cluster::ClusterClient,
    },
    sentinel,
};

use super::failure::RedisFailure;
use crate::error::ConfigError;

#[derive(Clone)]
pub(super) enum Source {
    Single(Pool),
    Sentinel(sentinel::Pool),
    Cluster(Box<ClusterClient>),
    ClusterPool(cluster::Pool),
}

/// A connection that many operations share.
#[derive(Clone)]
pub(super) enum Shared {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Source {
    /// A connection of its own: the pool makes it, and keeps its places for those who borrow.
    pub(super) async fn connect(&self) -> Result<Shared, RedisFailure> {
        match self {
            Self::Single(pool) => {
                pool.get().await.map(|pooled| Shared::Single(Connection::take(pooled))).map_err(failure)
            }
            Self::Sentinel(pool) => {
                pool.get().await.map(|pooled| Shared::Single(sentinel::Connection::take(pooled))).map_err(failure)
            }
            Self::ClusterPool(pool) => {
                pool.get().await.map(|pooled| Shared::Cluster(cluster::Connection::take(pooled))).map_err(failure)
            }
            Self::Cluster(client) => {
                client.get_async_connection().await.map(Shared::Cluster).map_err(|error| connect_failure(&error))
            }
        }
    }
}

/// Of connections that are told more than they ask for.
pub(super) fn resp3(url: &str) -> Result<Vec<Client>, ConfigError> {
    let open = || {
        let info = url.into_connection_info()?;
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        Client::open(info.set_redis_settings(settings))
    };
    open().map(|client| vec![client]).map_err(|_| ConfigError::new("url", "must be a redis:// URL"))
}

fn failure(error: PoolError) -> RedisFailure {
    match error {
        PoolError::Backend(error) => connect_failure(&error),
        PoolError::Timeout(_) => RedisFailure::TimedOut,
        _ => RedisFailure::Disconnected,
    }
}

/// Without a connection there was no answer, whatever the error is.
fn connect_failure(error: &RedisError) -> RedisFailure {
    match RedisFailure::of(error).0 {
        RedisFailure::Answered => RedisFailure::Disconnected,
        failure => failure,
    }
}

impl ConnectionLike for Shared {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Single(connection) => connection.req_packed_command(command),
            Self::Cluster(connection) => connection.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Single(connection) => connection.req_packed_commands(commands, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(commands, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Single(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}
