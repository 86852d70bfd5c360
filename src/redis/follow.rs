//! Where a cluster says that a slot has moved, or that its keys are on their way.

use std::{collections::HashMap, io, time::Duration};

use deadpool_redis::redis::{
    Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, Pipeline, RedisError, RedisFuture, RedisResult,
    ServerErrorKind, Value, aio::ConnectionLike,
};

use super::{
    failure::{LaneIs, RedisFailure},
    lane::Slot,
    source::{Shared, Source},
};
use crate::{
    sync::Mutex,
    time::{self, Instant},
};

/// The nodes to which keys are on their way, with a lane to each: nobody else knows of those that have no slot yet.
pub(super) struct Nodes {
    /// One of the cluster. The others are asked with the same user, password and certificates.
    like: ConnectionInfo,
    connect_timeout: Duration,
    asked: Mutex<HashMap<String, Asked>>,
}

struct Asked {
    source: Source,
    slot: Slot,
    used: Instant,
}

/// A lane that goes where it is sent.
pub(super) struct Followed<'a> {
    pub(super) connection: Shared,
    pub(super) nodes: Option<&'a Nodes>,
}

/// How often a question follows its slot.
const MOST_MOVES: usize = 3;
/// How long a lane to a node is kept that nobody is sent to.
const IDLE: Duration = Duration::from_secs(10);
/// How many of them are kept, whatever a cluster says.
const MOST_ASKED: usize = 64;

impl Nodes {
    pub(super) fn new(like: ConnectionInfo, connect_timeout: Duration) -> Self {
        Self { like, connect_timeout, asked: Mutex::new(HashMap::new()) }
    }

    /// Asks this node, `asking` for a key that has come there before its slot has.
    async fn ask(&self, address: &str, command: &Cmd, asking: bool) -> RedisResult<Value> {
        let (source, slot) =
            self.lane(address).ok_or_else(|| RedisError::from(io::Error::from(io::ErrorKind::InvalidInput)))?;
        let lane = slot.lane(&source, self.connect_timeout).await.map_err(|failure| {
            let timed_out = failure == RedisFailure::TimedOut;
            io::Error::from(if timed_out { io::ErrorKind::TimedOut } else { io::ErrorKind::NotConnected })
        })?;
        let mut connection = lane.connection.clone();
        let answered = if asking {
            // In one piece, because `ASKING` is for whatever comes next on the connection.
            let mut both = Pipeline::with_capacity(2);
            both.cmd("ASKING").add_command(command.clone());
            connection.req_packed_commands(&both, 1, 1).await
        } else {
            connection.req_packed_command(command).await.map(|answer| vec![answer])
        };
        let answer = answered.and_then(|answers| answers.into_iter().next().unwrap_or(Value::Nil).extract_error());
        if let Err(error) = &answer
            && RedisFailure::of(error).1 == LaneIs::Broken
        {
            slot.drop_lane(&lane);
        }
        answer
    }

    fn lane(&self, address: &str) -> Option<(Source, Slot)> {
        let now = time::now();
        // Connections are closed under no lock.
        let mut gone = Vec::new();
        let mut asked = self.asked.lock();
        gone.extend(asked.extract_if(|_, asked| now.saturating_since(asked.used) >= IDLE));
        if let Some(Asked { source, slot, used }) = asked.get_mut(address) {
            *used = now;
            return Some((source.clone(), slot.clone()));
        }
        let client = Client::open(self.like.clone().set_addr(self.at(address)?)).ok()?;
        if asked.len() >= MOST_ASKED {
            gone.extend(asked.drain());
        }
        let (source, slot) = (Source::Node(Box::new(client)), Slot::default());
        asked.insert(address.to_owned(), Asked { source: source.clone(), slot: slot.clone(), used: now });
        drop(asked);
        Some((source, slot))
    }

    /// Nothing of one that does not say its host: that of the node that has said so is not known.
    fn at(&self, address: &str) -> Option<ConnectionAddr> {
        let (host, port) = address.rsplit_once(':')?;
        let (host, port) = (host.to_owned(), port.parse().ok()?);
        if host.is_empty() {
            return None;
        }
        Some(match self.like.addr() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
            }
            _ => ConnectionAddr::Tcp(host, port),
        })
    }

    /// The next question to each of them is sent on a new connection.
    pub(super) fn forget(&self) {
        let gone = std::mem::take(&mut *self.asked.lock());
        drop(gone);
    }
}

impl Followed<'_> {
    async fn follow(&mut self, command: &Cmd) -> RedisResult<Value> {
        let mut answer = self.connection.req_packed_command(command).await;
        for moves in 0..MOST_MOVES {
            let Err(error) = &answer else { break };
            // None of it was executed.
            let asking = match error.kind() {
                ErrorKind::Server(ServerErrorKind::Moved) => false,
                // The slot is still where it was, and so the lane is told nothing.
                ErrorKind::Server(ServerErrorKind::Ask) => true,
                _ => break,
            };
            if !asking && moves == 0 {
                // The lane has looked for its slots anew.
                answer = self.connection.req_packed_command(command).await;
                continue;
            }
            // Those of a pool are followed by redis-rs, as far as they are.
            let (Some((address, _)), Some(nodes)) = (error.redirect_node(), self.nodes) else { break };
            let asked = nodes.ask(address, command, asking).await;
            if asked.as_ref().is_err_and(|error| error.kind() == ServerErrorKind::CrossSlot.into()) {
                // redis-rs had split it among nodes, and of one only this part can be asked.
                break;
            }
            answer = asked;
        }
        answer
    }
}

impl ConnectionLike for Followed<'_> {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match &self.connection {
            Shared::Single(_) => self.connection.req_packed_command(command),
            Shared::Cluster(_) => Box::pin(self.follow(command)),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        self.connection.req_packed_commands(commands, offset, count)
    }

    fn get_db(&self) -> i64 {
        self.connection.get_db()
    }
}
