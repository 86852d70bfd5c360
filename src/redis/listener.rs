//! The one connection on which Redis tells of changes.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, Weak},
    task::Poll,
    time::Duration,
};

use deadpool_redis::redis::{PushInfo, PushKind, RedisResult, Value, aio::MultiplexedConnection, cmd};
use tokio::sync::Notify;

use super::{
    names::{Names, from_others},
    source::{self, Teller},
    store_policy::Invalidation,
};

/// Who is told.
pub(super) trait Hears: Send + Sync + 'static {
    /// The key of this name has changed. It must not wait.
    fn changed(&self, name: &[u8]);
    /// Everything has.
    fn all_changed(&self);
    /// Whether changes are told from now on. What happened before, nobody knows.
    fn listens(&self, listens: bool);
}

pub(super) struct Listener {
    /// Any of them will do.
    pub(super) servers: Vec<Teller>,
    pub(super) invalidation: Invalidation,
    pub(super) names: Names,
    pub(super) origin: u64,
    pub(super) heartbeat: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) hears: Weak<dyn Hears>,
}

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(1);

impl Listener {
    /// Connects, listens, and connects again, for as long as there is somebody to tell.
    pub(super) async fn run(self) {
        let mut pause = FIRST_PAUSE;
        for server in self.servers.iter().cycle() {
            let lost = Arc::new(Notify::new());
            let connected = tokio::time::timeout(self.connect_timeout, self.connect(server, &lost)).await;
            if let Ok(Ok(connection)) = connected {
                pause = FIRST_PAUSE;
                if !self.tell(|hears| hears.listens(true)) {
                    return;
                }
                self.watch(connection, &lost).await;
                drop(lost);
            }
            if !self.tell(|hears| hears.listens(false)) {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = pause.saturating_mul(2).min(LAST_PAUSE);
        }
    }

    async fn connect(&self, server: &Teller, lost: &Arc<Notify>) -> RedisResult<MultiplexedConnection> {
        let (hears, names, origin, lost) = (Weak::clone(&self.hears), self.names, self.origin, Arc::downgrade(lost));
        // In the connection's own task, so that what was told before an answer is known before it.
        let push = move |push: PushInfo| {
            match &push.kind {
                PushKind::Invalidate => invalidated(&push.data, &hears),
                PushKind::Message => published(&push.data, names, origin, &hears),
                PushKind::Disconnection => {
                    // A connection that was given up before says nothing of the next one.
                    if let (Some(hears), Some(lost)) = (hears.upgrade(), lost.upgrade()) {
                        hears.listens(false);
                        lost.notify_one();
                    }
                }
                _ => {}
            }
            Ok::<_, ()>(())
        };
        let config = source::config(self.connect_timeout).set_push_sender(push);
        let mut connection = server.client().await?.get_multiplexed_async_connection_with_config(&config).await?;
        if self.invalidation == Invalidation::PubSub {
            connection.subscribe(self.names.channel()).await?;
        } else {
            let mut tracking = cmd("CLIENT");
            tracking.arg("TRACKING").arg("ON").arg("BCAST").arg("PREFIX").arg(self.names.beginning());
            tracking.query_async::<()>(&mut connection).await?;
        }
        Ok(connection)
    }

    /// Until it is lost, or as good as lost.
    async fn watch(&self, mut connection: MultiplexedConnection, lost: &Notify) {
        loop {
            let mut gone = pin!(lost.notified());
            let mut pause = pin!(tokio::time::sleep(self.heartbeat));
            let is_lost = poll_fn(|cx| match gone.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(true),
                Poll::Pending => pause.as_mut().poll(cx).map(|()| false),
            })
            .await;
            if is_lost || self.hears.strong_count() == 0 {
                return;
            }
            let ping = cmd("PING");
            match tokio::time::timeout(self.heartbeat, ping.query_async::<Value>(&mut connection)).await {
                Ok(Ok(_)) => {}
                _ => return,
            }
        }
    }

    fn tell(&self, tell: impl FnOnce(&dyn Hears)) -> bool {
        self.hears.upgrade().map(|hears| tell(&*hears)).is_some()
    }
}

/// `[[key, ..]]`, or `[nil]` when all was flushed.
fn invalidated(data: &[Value], hears: &Weak<dyn Hears>) {
    let Some(hears) = hears.upgrade() else { return };
    for part in data {
        match part {
            Value::Array(keys) => keys.iter().for_each(|key| match key {
                Value::BulkString(name) => hears.changed(name),
                _ => hears.all_changed(),
            }),
            // Or something that nobody understands.
            _ => hears.all_changed(),
        }
    }
}

/// `[channel, message]`.
fn published(data: &[Value], names: Names, origin: u64, hears: &Weak<dyn Hears>) {
    let (Some(hears), [Value::BulkString(channel), Value::BulkString(message)]) = (hears.upgrade(), data) else {
        return;
    };
    if *channel == names.channel().into_bytes()
        && let Some(name) = from_others(origin, message)
    {
        hears.changed(name);
    }
}
