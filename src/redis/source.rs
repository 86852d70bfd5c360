//! Where connections come from, and the two kinds of them.

use std::{sync::Arc, time::Duration};

use deadpool_redis::{
    Connection, Pool, PoolError,
    cluster::{self, ClusterConnection},
    redis::{
        AsyncConnectionConfig, Client, Cmd, ConnectionInfo, IntoConnectionInfo, Pipeline, ProtocolVersion, RedisError,
        RedisFuture, RedisResult, Value,
        aio::{ConnectionLike, MultiplexedConnection},
        cluster::ClusterClient,
        sentinel::SentinelClient,
    },
    sentinel,
};
use tokio::sync::Mutex;

use super::failure::RedisFailure;
use crate::error::ConfigError;

#[derive(Clone)]
pub(super) enum Source {
    Single(Pool),
    Sentinel(sentinel::Pool),
    Cluster(Box<ClusterClient>),
    ClusterPool(cluster::Pool),
    /// One of a cluster, for as long as keys are on their way to it.
    Node(Box<Client>),
}

/// Who tells of changes.
#[derive(Clone)]
pub(super) enum Teller {
    Server(Client),
    /// Whoever is the master then.
    Master(Arc<Mutex<SentinelClient>>),
}

/// A connection that many operations share.
#[derive(Clone)]
pub(super) enum Shared {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Source {
    /// A connection of its own: the pool makes it, and keeps its places for those who borrow.
    pub(super) async fn connect(&self, connect_timeout: Duration) -> Result<Shared, RedisFailure> {
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
            Self::Node(client) => {
                let connected = client.get_multiplexed_async_connection_with_config(&config(connect_timeout)).await;
                connected.map(Shared::Single).map_err(|error| connect_failure(&error))
            }
        }
    }
}

impl Teller {
    pub(super) fn at(url: &str) -> Result<Self, ConfigError> {
        let client = url.into_connection_info().and_then(resp3);
        client.map(Self::Server).map_err(|_| ConfigError::new("url", "must be a redis:// URL"))
    }

    pub(super) async fn client(&self) -> RedisResult<Client> {
        match self {
            Self::Server(client) => Ok(client.clone()),
            Self::Master(sentinel) => {
                let client = sentinel.lock().await.async_get_client().await?;
                resp3(client.get_connection_info().clone())
            }
        }
    }
}

/// The outer deadline is the only one, and a lane survives it.
pub(super) fn config(connect_timeout: Duration) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(Some(connect_timeout)).set_response_timeout(None)
}

/// Of connections that are told more than they ask for.
fn resp3(info: ConnectionInfo) -> RedisResult<Client> {
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    Client::open(info.set_redis_settings(settings))
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
