//! Where connections come from, and the two kinds of them.

use deadpool_redis::{
    Connection, Pool, PoolError,
    cluster::{self, ClusterConnection},
    redis::{
        Client, Cmd, ErrorKind, IntoConnectionInfo, Pipeline, ProtocolVersion, RedisError, RedisFuture, RedisResult,
        ServerErrorKind, Value,
        aio::{ConnectionLike, MultiplexedConnection},
        cluster::ClusterClient,
        cluster_routing::SingleNodeRoutingInfo,
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
    Sent(Box<Sent>),
}

/// A connection to a cluster, for one question to a node that another one has named.
#[derive(Clone)]
pub(super) struct Sent {
    connection: ClusterConnection,
    host: String,
    port: u16,
    /// The slot is on its way there and not the node's yet, so it answers only who says that he was sent: with the same packet, because others ask
    /// on the same connection.
    asking: bool,
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

impl Shared {
    /// Where to ask again what was not executed, because its slot has moved or is about to.
    pub(super) fn instead(&self, error: &RedisError) -> Option<Self> {
        let (connection, was_sent) = match self {
            Self::Single(_) => return None,
            Self::Cluster(connection) => (connection.clone(), false),
            Self::Sent(sent) => (sent.connection.clone(), true),
        };
        let asking = match error.kind() {
            ErrorKind::Server(ServerErrorKind::Moved) => false,
            ErrorKind::Server(ServerErrorKind::Ask) => true,
            // To a node that is new to it; by now it looks for the slots, and knows those that have one.
            ErrorKind::ClusterConnectionNotFound if was_sent => return Some(Self::Cluster(connection)),
            _ => return None,
        };
        let (host, port) = error.redirect_node()?.0.rsplit_once(':')?;
        Some(Self::Sent(Box::new(Sent { connection, host: host.to_owned(), port: port.parse().ok()?, asking })))
    }
}

impl Sent {
    async fn ask(&mut self, commands: impl Iterator<Item = &Cmd>) -> RedisResult<Vec<Value>> {
        let mut all = Pipeline::new();
        for command in commands {
            if self.asking {
                all.cmd("ASKING");
            }
            all.add_command(command.clone());
        }
        let count = all.len();
        let route = SingleNodeRoutingInfo::ByAddress { host: self.host.clone(), port: self.port };
        let answers = self.connection.route_pipeline(all, 0, count, route).await?;
        let answers: RedisResult<Vec<Value>> = answers.into_iter().map(Value::extract_error).collect();
        let each = 1 + usize::from(self.asking);
        Ok(answers?.into_iter().skip(each - 1).step_by(each).collect())
    }
}

impl ConnectionLike for Shared {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Single(connection) => connection.req_packed_command(command),
            Self::Cluster(connection) => connection.req_packed_command(command),
            Self::Sent(sent) => Box::pin(async move {
                let answers = sent.ask(std::iter::once(command)).await?;
                Ok(answers.into_iter().next().unwrap_or(Value::Nil))
            }),
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
            Self::Sent(sent) => Box::pin(async move {
                let answers = sent.ask(commands.cmd_iter()).await?;
                Ok(answers.into_iter().skip(offset).take(count).collect())
            }),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Single(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
            Self::Sent(sent) => sent.connection.get_db(),
        }
    }
}
