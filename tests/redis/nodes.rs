//! Servers of which several belong together, and that end with the process of the tests, however it ends.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use buttress::redis::deadpool_redis::redis::{Client, FromRedisValue, ToRedisArgs, cmd};
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};

use crate::{leases::until, server::free_port};

/// A `redis-server`, under a shell that waits for the end of these tests.
pub(crate) struct Node {
    pub(crate) port: u16,
    arguments: Vec<String>,
    dir: PathBuf,
    shell: Child,
    pid: String,
}

/// Runs the server until somebody says something, or goes away.
const KEEPER: &str = r#"redis-server "$@" >/dev/null 2>&1 & echo $!
read -r what; kill -9 $! 2>/dev/null; wait $!; [ "$what" = keep ] || rm -rf "$0""#;

impl Node {
    /// With this file and these arguments, on a port that leaves room for a bus.
    pub(crate) fn start(kind: &str, file: Option<&dyn Fn(u16) -> String>, arguments: &[&str]) -> Self {
        let port = std::iter::repeat_with(free_port).find(|port| *port < 55_000).unwrap();
        let dir = std::env::temp_dir().join(format!("buttress-{kind}-{}-{port}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let mut all: Vec<String> = Vec::new();
        if let Some(text) = file {
            let path = dir.join("redis.conf");
            fs::write(&path, text(port)).unwrap();
            all.push(path.to_str().unwrap().to_owned());
        }
        let common = ["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir", dir.to_str().unwrap()];
        all.extend(common.into_iter().chain(arguments.iter().copied()).map(str::to_owned));
        let (shell, pid) = keep(&dir, &all);
        Self { port, arguments: all, dir, shell, pid }
    }

    pub(crate) fn kill(&mut self) {
        assert!(Command::new("kill").args(["-9", &self.pid]).status().unwrap().success());
    }

    pub(crate) fn restart(&mut self) {
        let _ = self.shell.stdin.take().unwrap().write_all(b"keep\n");
        let _ = self.shell.wait();
        (self.shell, self.pid) = keep(&self.dir, &self.arguments);
    }

    pub(crate) async fn ask<T: FromRedisValue>(&self, name: &str, arguments: impl ToRedisArgs) -> Option<T> {
        let client = Client::open(format!("redis://127.0.0.1:{}/", self.port)).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.ok()?;
        cmd(name).arg(arguments).query_async(&mut connection).await.ok()
    }

    /// Until its replica has heard what it knows by now: the rest would die with it.
    pub(crate) async fn until_heard(&self) {
        let number = |text: &str, name: &str| {
            let (_, rest) = text.split_once(name)?;
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok()
        };
        let mut known = None;
        until("the replica hears of it", async || {
            let told: String = self.ask("INFO", "replication").await.unwrap_or_default();
            let known = *known.get_or_insert(number(&told, "master_repl_offset:").unwrap());
            number(&told, "state=online,offset=").is_some_and(|heard| heard >= known)
        })
        .await;
    }

    pub(crate) async fn says(&self, name: &str, argument: &str, text: &str) -> bool {
        self.ask::<String>(name, argument).await.is_some_and(|said| said.contains(text))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

fn keep(dir: &PathBuf, arguments: &[String]) -> (Child, String) {
    let started = Command::new("sh")
        .args(["-c", KEEPER])
        .arg(dir)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut shell = started.unwrap();
    let mut pid = String::new();
    BufReader::new(shell.stdout.take().unwrap()).read_line(&mut pid).unwrap();
    (shell, pid.trim().to_owned())
}

/// Three masters, and a replica of each.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
}

/// The one cluster of a run, for one test at a time.
pub(crate) async fn cluster() -> MappedMutexGuard<'static, Cluster> {
    static CLUSTER: Mutex<Option<Cluster>> = Mutex::const_new(None);
    let mut cluster = CLUSTER.lock().await;
    if cluster.is_none() {
        *cluster = Some(Cluster::start().await);
    }
    MutexGuard::map(cluster, |cluster| cluster.as_mut().unwrap())
}

impl Cluster {
    fn node() -> Node {
        // A master that gives its last slot away stays one.
        let stays = ["--cluster-allow-replica-migration", "no"];
        let cluster = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];
        let quick = ["--repl-diskless-sync-delay", "0", "--save", "", "--appendonly", "no"];
        Node::start("cluster", None, &[&cluster[..], &stays, &quick].concat())
    }

    async fn start() -> Self {
        let nodes: Vec<Node> = (0..6).map(|_| Self::node()).collect();
        for node in &nodes {
            until("a node comes up (apt-get install -y redis-server)", async || {
                node.says("CLUSTER", "INFO", "cluster_state").await
            })
            .await;
        }
        let addresses = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port));
        let made = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(addresses)
            .args(["--cluster-replicas", "1", "--cluster-yes"])
            .stdout(Stdio::null())
            .status();
        assert!(made.unwrap_or_else(|error| panic!("{error}: apt-get install -y redis-server")).success());
        let cluster = Self { nodes };
        cluster.until_well().await;
        cluster
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| format!("redis://127.0.0.1:{}/", node.port)).collect()
    }

    /// Until every node sees three masters and three replicas that follow them.
    pub(crate) async fn until_well(&self) {
        for node in &self.nodes {
            until("the cluster is well", async || {
                let seen: Option<String> = node.ask("CLUSTER", "NODES").await;
                let seen = seen.unwrap_or_default();
                let masters = seen.lines().filter(|line| line.contains("master") && line.split(' ').count() > 8);
                let is_whole = masters.count() == 3 && seen.lines().count() == 6 && !seen.contains("fail");
                let follows = node.says("INFO", "replication", "role:master").await
                    || node.says("INFO", "replication", "master_link_status:up").await;
                is_whole && follows && node.says("CLUSTER", "INFO", "cluster_state:ok").await
            })
            .await;
        }
    }

    pub(crate) async fn id(&self, node: usize) -> String {
        self.nodes[node].ask("CLUSTER", "MYID").await.unwrap()
    }

    /// The node that has the slot of this key.
    pub(crate) async fn master_of(&self, key: &str) -> (usize, u16) {
        let slot: u16 = self.nodes[0].ask("CLUSTER", ("KEYSLOT", key)).await.unwrap();
        for (index, node) in self.nodes.iter().enumerate() {
            let Some(seen) = node.ask::<String>("CLUSTER", "NODES").await else { continue };
            let own = seen.lines().find(|line| line.contains("myself")).unwrap();
            let ranges = own.split(' ').skip(8).filter(|range| !range.starts_with('['));
            let has = |range: &str| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                (first.parse().unwrap()..=last.parse().unwrap()).contains(&slot)
            };
            if own.contains("master") && ranges.into_iter().any(has) {
                return (index, slot);
            }
        }
        panic!("nobody has {slot}");
    }

    /// One more, that has no slot, until it leaves.
    pub(crate) async fn join(&mut self) -> usize {
        let node = Self::node();
        until("the node comes up", async || node.says("CLUSTER", "INFO", "cluster_state").await).await;
        let met: String = self.nodes[0].ask("CLUSTER", ("MEET", "127.0.0.1", node.port)).await.unwrap();
        assert_eq!(met, "OK");
        self.nodes.push(node);
        let newest = self.nodes.len() - 1;
        let id = self.id(newest).await;
        for node in &self.nodes {
            until("it is known", async || {
                let seen: String = node.ask("CLUSTER", "NODES").await.unwrap_or_default();
                let known = seen.lines().find(|line| line.starts_with(&id));
                known.is_some_and(|line| line.contains("connected") && !line.contains("handshake"))
                    && node.says("CLUSTER", "INFO", "cluster_state:ok").await
            })
            .await;
        }
        newest
    }

    pub(crate) async fn leave(&mut self) {
        let id = self.id(self.nodes.len() - 1).await;
        drop(self.nodes.pop());
        for node in &self.nodes {
            let _: String = node.ask("CLUSTER", ("FORGET", &id)).await.unwrap();
        }
        self.until_well().await;
    }

    /// Until it arrives, its keys are on their way.
    pub(crate) async fn depart(&self, slot: u16, from: usize, to: usize) {
        self.set_slot(to, slot, "IMPORTING", from).await;
        self.set_slot(from, slot, "MIGRATING", to).await;
    }

    pub(crate) async fn carry(&self, key: &str, from: usize, to: usize) {
        let port = self.nodes[to].port;
        let said: String = self.nodes[from].ask("MIGRATE", ("127.0.0.1", port, key, 0, 5_000)).await.unwrap();
        assert_eq!(said, "OK", "{key}");
    }

    /// With all keys that have not been carried.
    pub(crate) async fn arrive(&self, slot: u16, from: usize, to: usize) {
        for key in self.nodes[from].ask::<Vec<String>>("CLUSTER", ("GETKEYSINSLOT", slot, 1_000)).await.unwrap() {
            self.carry(&key, from, to).await;
        }
        self.set_slot(to, slot, "NODE", to).await;
        self.set_slot(from, slot, "NODE", to).await;
    }

    async fn set_slot(&self, at: usize, slot: u16, what: &str, node: usize) {
        let id = self.id(node).await;
        self.nodes[at].ask::<String>("CLUSTER", ("SETSLOT", slot, what, id)).await.unwrap();
    }

    /// A master that has nothing to do with this one.
    pub(crate) async fn other_master(&self, than: usize) -> usize {
        for (index, node) in self.nodes.iter().enumerate() {
            if index != than && node.says("INFO", "replication", "role:master").await {
                return index;
            }
        }
        panic!("one master alone");
    }
}

/// A master with a replica, and one sentinel that watches them.
pub(crate) struct Watched {
    pub(crate) master: Node,
    pub(crate) replica: Node,
    pub(crate) sentinel: Node,
}

impl Watched {
    /// Whoever asks the sentinel must know the password.
    pub(crate) async fn start(password: &str) -> Self {
        let settings = ["--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0"];
        let master = Node::start("watched", None, &settings);
        until("the master comes up (apt-get install -y redis-server)", async || {
            master.says("INFO", "replication", "role:master").await
        })
        .await;
        let of = ["--replicaof", "127.0.0.1", &master.port.to_string()];
        let replica = Node::start("watched", None, &[&settings[..], &of[..]].concat());
        until("the replica follows", async || replica.says("INFO", "replication", "master_link_status:up").await).await;
        let watched = master.port;
        let file = |_: u16| {
            format!(
                "sentinel monitor shop 127.0.0.1 {watched} 1\nsentinel down-after-milliseconds shop 500\n\
                 sentinel failover-timeout shop 2000\nrequirepass {password}\n"
            )
        };
        let sentinel = Node::start("sentinel", Some(&file), &["--sentinel"]);
        // It learns of the replica from the master, every ten seconds and at first.
        let client = Client::open(format!("redis://:{password}@127.0.0.1:{}/", sentinel.port)).unwrap();
        until("the sentinel knows the replica", async || {
            let Ok(mut connection) = client.get_multiplexed_async_connection().await else { return false };
            let known = cmd("INFO").arg("sentinel").query_async::<String>(&mut connection).await;
            known.is_ok_and(|known| known.contains("slaves=1"))
        })
        .await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        Self { master, replica, sentinel }
    }
}
