//! Our lanes beside a checkout of a pool for each command and beside redis-rs' `ConnectionManager`, and our limits beside the script that they run: on a
//! server of its own, which this starts. Wall time, because most of it is the server's. What skews it: the server shares the cores with this, and on the
//! loopback a round trip costs nothing, so that the second one of a checkout shows as work alone.
//!
//! ```text
//! cargo bench -p buttress-peers --bench redis [-- [--short] [FILTER]]
//! ```

#[path = "../../harness/mod.rs"]
mod harness;

use std::{
    cell::Cell,
    hint::black_box,
    process::{Child, Command, Stdio},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use buttress::{
    Rejected,
    cache::{CacheHandle, CacheKey, CacheSettings, MemoryStore, Store},
    rate_limit::{LimitStore, Quota, RateLimitSettings, Taken},
    redis::{
        Bytes, LaneSettings, Lanes, LeaseSettings, RedisLimitSettings, RedisLimits, RedisStore, RedisStoreSettings,
        TierSettings, TieredStore, Unavailable,
        deadpool_redis::{self, Config, Pool, Runtime as PoolRuntime, cluster},
    },
};
use cpu_time::ThreadTime;
use futures::future::join_all;
use redis::{AsyncConnectionConfig, Client, Cmd, aio::ConnectionLike, cmd};
use tokio::{runtime::Runtime, time::Instant};
use tower::{Layer, service_fn};

use harness::{
    Bench, Bound, CaseId,
    drive::{by_hand, plain},
    usage::{Use, runtime},
};

/// More than any machine calls, and a unit takes a whole number of microseconds.
const MANY: Quota = Quota::per_second(1_000_000).burst(1_000_000_000);
const SCRIPT: &str = include_str!("../../../src/redis/limits.lua");
/// No operation fails because this machine is busy.
const PATIENT: LaneSettings = LaneSettings::new().deadline(Duration::from_secs(10));
const KEYS: u64 = 10_000;
const HOUR: Duration = Duration::from_secs(3600);
const CACHE: CacheSettings = CacheSettings::new().ttl(HOUR);

type Page = Arc<[u8]>;

fn main() {
    let rt = Rc::new(runtime());
    let _entered = rt.enter();
    let mut bench = Bench::from_args("redis_peers");
    let server = Server::start(&[]);
    server.fill(&rt);

    for (section, at_a_time) in [("GET, 1 at a time", 1), ("GET, 8 at a time", 8), ("GET, 64 at a time", 64)] {
        let [ours, pool, manager] = clients(&mut bench, &rt, &server, section, at_a_time, get);
        against(&mut bench, "GET", at_a_time, ours, pool, manager, 5.0);
    }
    let sha: String = rt.block_on(server.plain().req(cmd("SCRIPT").arg("LOAD").arg(SCRIPT)));
    let sections = [("EVALSHA, 1 at a time", 1), ("EVALSHA, 8 at a time", 8), ("EVALSHA, 64 at a time", 64)];
    for (section, at_a_time) in sections {
        let sha = sha.clone();
        let [ours, pool, manager] =
            clients(&mut bench, &rt, &server, section, at_a_time, move |n| evalsha(&sha, scattered(n)));
        // At 64 what is measured is Redis, which takes nearly all of this time for the script: the lanes are measured below.
        if at_a_time < 64 {
            against(&mut bench, "EVALSHA", at_a_time, ours, pool, manager, 4.0);
        } else {
            let name = "EVALSHA, 64 at a time: of ConnectionManager's, 0.9 as fast";
            bench.gate(name, ours, manager, Bound::AtMost(1.0 / 0.9));
        }
    }
    let answers: String = rt.block_on(server.plain().req(cmd("SCRIPT").arg("LOAD").arg("return 1")));
    let section = "EVALSHA of a script that only answers, 64 at a time";
    let [ours, pool, manager] =
        clients(&mut bench, &rt, &server, section, 64, move |n| evalsha(&answers, scattered(n)));
    against(&mut bench, "EVALSHA that only answers", 64, ours, pool, manager, 4.0);
    limits(&mut bench, &rt, &server, &sha);
    tiers(&mut bench, &rt, &server);
    let nodes = in_cluster(&mut bench, &rt);
    frozen(&mut bench, &rt);
    bench.gate_allocations();
    bench.run();
    drop(nodes);
}

fn against(bench: &mut Bench, what: &str, at_a_time: u64, ours: CaseId, pool: CaseId, manager: CaseId, times: f64) {
    match at_a_time {
        1 => bench.gate(&format!("{what}, 1 at a time: of a checkout's latency"), ours, pool, Bound::AtMost(0.6)),
        64 => {
            let name = format!("{what}, 64 at a time: of a checkout's time, {times} times as fast");
            bench.gate(&name, ours, pool, Bound::AtMost(1.0 / times));
        }
        _ => {}
    }
    let name = format!("{what}, {at_a_time} at a time: of ConnectionManager's, 0.9 as fast");
    bench.gate(&name, ours, manager, Bound::AtMost(1.0 / 0.9));
}

/// The same command by three clients: lanes, a checkout for each, and a connection manager.
fn clients(
    bench: &mut Bench,
    rt: &Rc<Runtime>,
    server: &Server,
    section: &'static str,
    at_a_time: u64,
    command: impl Fn(u64) -> Cmd + Clone + 'static,
) -> [CaseId; 3] {
    bench.section(section);
    let (lanes, make) = (Lanes::try_from_url(&server.url(), PATIENT).expect("a URL"), command.clone());
    case(bench, "buttress, lanes", rt, at_a_time, move |n| {
        let (lanes, command) = (lanes.clone(), make(n));
        async move { drop(lanes.query::<redis::Value>(&command).await.expect("an answer")) }
    });
    let ours = bench.last();
    let pool = server.pool(64);
    let make = command.clone();
    case(bench, "deadpool, a checkout for each", rt, at_a_time, move |n| {
        let (pool, command) = (pool.clone(), make(n));
        async move {
            let mut connection = pool.get().await.expect("a connection");
            drop(command.query_async::<redis::Value>(&mut connection).await.expect("an answer"));
        }
    });
    let pool = bench.last();
    let client = Client::open(server.url()).expect("a URL");
    let manager = rt.block_on(client.get_connection_manager()).expect("a connection");
    case(bench, "redis-rs, ConnectionManager", rt, at_a_time, move |n| {
        let (mut manager, command) = (manager.clone(), command(n));
        async move { drop(command.query_async::<redis::Value>(&mut manager).await.expect("an answer")) }
    });
    [ours, pool, bench.last()]
}

fn limits(bench: &mut Bench, rt: &Rc<Runtime>, server: &Server, sha: &str) {
    bench.section("a decision, 64 at a time");
    let lanes = Lanes::try_from_url(&server.url(), PATIENT).expect("a URL");
    let settings = RedisLimitSettings::new(RateLimitSettings::token_bucket(MANY)).unavailable(Unavailable::Closed);
    let with = |settings| RedisLimits::<u64>::try_with(&lanes, settings).expect("they work");
    let exact = with(settings.prefix("exact"));
    case(bench, "buttress, exact", rt, 64, move |n| {
        let exact = exact.clone();
        async move { decide(&exact, scattered(n)).await }
    });
    let exact = bench.last();
    let leased = with(settings.prefix("leased").lease(LeaseSettings::new(1_000)));
    case(bench, "buttress, one key in leases of 1000", rt, 64, {
        let leased = leased.clone();
        move |_| {
            let leased = leased.clone();
            async move {
                decide(&leased, 7).await;
                // As callers do, who have something else to wait for: the next batch comes in the meantime.
                tokio::task::yield_now().await;
            }
        }
    });
    let leases = bench.last();
    // To come back to each of 64 takes longer than a decision on a lease.
    case(bench, "the callers themselves", rt, 64, move |_| tokio::task::yield_now());
    let callers = bench.last();
    let one_key = with(settings.prefix("hot"));
    case(bench, "buttress, one key, exact", rt, 64, move |_| {
        let one_key = one_key.clone();
        async move { decide(&one_key, 7).await }
    });
    let one_key = bench.last();
    let sha = sha.to_owned();
    let client = Client::open(server.url()).expect("a URL");
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    let connection = rt.block_on(client.get_multiplexed_async_connection_with_config(&config)).expect("a connection");
    case(bench, "a bare connection, EVALSHA of the same script", rt, 64, move |n| {
        let (mut connection, command) = (connection.clone(), evalsha(&sha, scattered(n)));
        async move { drop(command.query_async::<redis::Value>(&mut connection).await.expect("an answer")) }
    });
    let bare = bench.last();
    bench.gate("exact decisions: of the bare script's, 0.9 as fast", exact, bare, Bound::AtMost(1.0 / 0.9));
    let name = "leases of 1000: of exact, 30 times as fast, both without the callers";
    bench.gate_beyond(name, leases, one_key, callers, Bound::AtMost(1.0 / 30.0));

    bench.section("a decision on a lease, alone");
    let endless = LeaseSettings::new(1_000_000_000).life(Duration::from_secs(3600));
    let local = with(settings.prefix("endless").lease(endless));
    while matches!(local.take(&7, 1), Taken::Later(_)) {
        rt.block_on(tokio::time::sleep(Duration::from_millis(1)));
    }
    bench.case("buttress", move |calls| plain(calls, |_| matches!(local.take(&7, 1), Taken::Now(Ok(()))))).ours();
    rt.block_on(tail(bench, &leased));
}

/// How long each of many decisions took, of those that asked nobody.
async fn tail(bench: &mut Bench, leased: &RedisLimits<u64>) {
    let (mut took, mut asked) = (Vec::with_capacity(200_000), 0);
    for n in 0..200_000 {
        let began = Instant::now();
        match leased.take(&7, 1) {
            Taken::Now(_) | Taken::Unpaid => took.push(began.elapsed()),
            Taken::Later(verdict) => {
                asked += 1;
                let _ = verdict.await;
            }
        }
        if n % 16 == 0 {
            tokio::task::yield_now().await;
        }
    }
    took.sort_unstable();
    let at = |part: f64| took[((took.len() - 1) as f64 * part) as usize].as_nanos();
    let said = format!("{}, {}, {} ns; {asked} of 200000 had to ask", at(0.5), at(0.99), at(0.999));
    bench.gate_value("p99 of a decision on a lease of 1000, in ns", at(0.99) as f64, Bound::AtMost(1_000.0));
    bench.remark("p50, p99, p999 of decisions on leases of 1000, each with two readings of the clock".into(), said);
}

/// A hit that never leaves the process, of memory alone and with Redis behind it: CPU time, because nobody else has a part in it.
fn tiers(bench: &mut Bench, rt: &Rc<Runtime>, server: &Server) {
    let near = || MemoryStore::try_new(CACHE).expect("they work");
    let alone = CacheHandle::with_store(CACHE, near()).expect("they work");
    let lanes = Lanes::try_from_url(&server.url(), PATIENT).expect("a URL");
    let far = RedisStore::try_new(&lanes, RedisStoreSettings::new().prefix("tiered"), Bytes).expect("they work");
    // Other cases leave who listens no turn for longer than a heartbeat.
    let settings = TierSettings::new().near_ttl(HOUR).heartbeat(HOUR);
    let tiered = TieredStore::try_new(near(), far, settings).expect("they work");
    rt.block_on(async {
        // What was near before anybody listens is aged then.
        while !tiered.is_listening() {
            drop(tiered.fetch(&key(1)));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let tiered = CacheHandle::with_store(CACHE, tiered).expect("they work");
    let page: Page = Arc::from(&b"a page"[..]);
    alone.put(key(7), Arc::clone(&page));
    rt.block_on(tiered.put(key(7), page)).expect("it is written");
    // Its own echo is heard by now.
    rt.block_on(tokio::time::sleep(Duration::from_millis(100)));

    bench.section("a hit in memory, tiered and not");
    let apart = apart(hits(bench, "tiered", &tiered), hits(bench, "memory alone", &alone));
    bench.gate_value("a tiered hit: ns more than memory alone", apart, Bound::AtMost(2.0));
    bench.section("a hit in memory through the layer, tiered and not");
    let apart = self::apart(answers(bench, "tiered", &tiered), answers(bench, "memory alone", &alone));
    bench.gate_value("a tiered hit through the layer: ns more than memory alone", apart, Bound::AtMost(2.0));
}

fn hits<S: Store<CacheKey, Page>>(
    bench: &mut Bench,
    name: &str,
    cache: &CacheHandle<CacheKey, Page, S>,
) -> impl FnMut(u64) + use<S> {
    let (cache, key) = (cache.clone(), key(7));
    let batch = move |calls| plain(calls, |_| cache.get(black_box(&key)).expect("a hit"));
    bench.case(&format!("buttress, {name}"), batch.clone()).ours();
    batch
}

fn answers<S: Store<CacheKey, Page>>(
    bench: &mut Bench,
    name: &str,
    cache: &CacheHandle<CacheKey, Page, S>,
) -> impl FnMut(u64) + use<S> {
    let client = service_fn(|_: u64| async { panic!("a hit") as Result<Page, Rejected> });
    let mut service = cache.layer(|_: &u64| Some(key(black_box(7)))).layer(client);
    let usage = Use { a_clone_per_call: false, runtime: None };
    // The key is made for each call.
    usage.case(bench, &format!("buttress, {name}"), &service).ours().may_allocate();
    move |calls| by_hand(&mut service, calls)
}

/// How many nanoseconds of CPU a call of one takes more than one of the other: the median over many pairs of short batches, because two ns are
/// less than the mood of a machine changes from one row to the next.
fn apart(mut one: impl FnMut(u64), mut other: impl FnMut(u64)) -> f64 {
    const CALLS: u64 = 200;
    let ns = |batch: &mut dyn FnMut(u64)| {
        let start = ThreadTime::now();
        batch(CALLS);
        start.elapsed().as_nanos() as f64 / CALLS as f64
    };
    let mut pair = |n: u32| {
        // Neither is always the first.
        if n.is_multiple_of(2) {
            let one = ns(&mut one);
            one - ns(&mut other)
        } else {
            let other = ns(&mut other);
            ns(&mut one) - other
        }
    };
    let mut pairs: Vec<f64> = Vec::new();
    allocation_counter::opt_out(|| pairs.extend((0..5_001).map(&mut pair)));
    pairs.sort_unstable_by(f64::total_cmp);
    pairs[pairs.len() / 2]
}

fn key(n: u64) -> CacheKey {
    CacheKey::new("pages", 1).u64(n)
}

/// A server that hangs: the first decisions, and those that follow.
fn frozen(bench: &mut Bench, rt: &Rc<Runtime>) {
    let server = Server::start(&[]);
    let lanes = Lanes::try_from_url(&server.url(), LaneSettings::new()).expect("a URL");
    let settings = RateLimitSettings::token_bucket(MANY);
    let limits = RedisLimits::<u64>::try_new(&lanes, settings, Unavailable::Open).expect("they work");
    let deadline = Duration::from_millis(50);
    let (mut first, mut later) = (Vec::new(), Vec::new());
    rt.block_on(async {
        decide(&limits, 1).await;
        server.signal("STOP");
        // The breaker opens after five in a row; then one probe a second is sent.
        for _ in 0..5 {
            let began = Instant::now();
            decide(&limits, 1).await;
            first.push(began.elapsed());
        }
        let frozen = Instant::now();
        while frozen.elapsed() < Duration::from_millis(800) {
            let began = Instant::now();
            decide(&limits, 1).await;
            later.push(began.elapsed());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server.signal("CONT");
    });
    first.sort_unstable();
    later.sort_unstable();
    let worst = first[first.len() - 1];
    let name = "SIGSTOP: the worst decision, of the deadline (50 ms; 60 are allowed)";
    bench.gate_value(name, worst.as_secs_f64() / deadline.as_secs_f64(), Bound::AtMost(1.2));
    let (median, p99) = (later[later.len() / 2], later[(later.len() - 1) * 99 / 100]);
    bench.gate_value("SIGSTOP: later decisions, the median in us", median.as_secs_f64() * 1e6, Bound::AtMost(5.0));
    let said = format!("{first:.1?}; then {median:.1?}, {p99:.1?} of {}", later.len());
    bench.remark("SIGSTOP: the first decisions; then median and p99 of the later ones".into(), said);
}

fn in_cluster(bench: &mut Bench, rt: &Rc<Runtime>) -> Vec<Server> {
    let settings = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];
    let nodes: Vec<Server> = (0..3).map(|_| Server::start(&settings)).collect();
    let made = Command::new("redis-cli")
        .args(["--cluster", "create"])
        .args(nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)))
        .arg("--cluster-yes")
        .stdout(Stdio::null())
        .status();
    assert!(made.expect("redis-cli").success());
    let is_well = |node: &Server| {
        let state: String = rt.block_on(node.plain().req(cmd("CLUSTER").arg("INFO")));
        state.contains("cluster_state:ok")
    };
    while !nodes.iter().all(is_well) {
        std::thread::park_timeout(Duration::from_millis(50));
    }
    let urls: Vec<String> = nodes.iter().map(Server::url).collect();
    let lanes = Lanes::try_from_cluster_urls(&urls, PATIENT).expect("URLs");
    let mut config = cluster::Config::from_urls(urls);
    config.pool = Some(deadpool_redis::PoolConfig::new(64));
    let pool = config.create_pool(Some(PoolRuntime::Tokio1)).expect("a pool");
    for (section, at_a_time) in [
        ("GET in a cluster of three masters, 1 at a time", 1),
        ("GET in a cluster of three masters, 8 at a time", 8),
        ("GET in a cluster of three masters, 64 at a time", 64),
    ] {
        bench.section(section);
        let (lanes, pool) = (lanes.clone(), pool.clone());
        case(bench, "buttress, lanes", rt, at_a_time, move |n| {
            let (lanes, command) = (lanes.clone(), get(n));
            async move { drop(lanes.query::<redis::Value>(&command).await.expect("an answer")) }
        });
        let ours = bench.last();
        case(bench, "deadpool, a checkout for each", rt, at_a_time, move |n| {
            let (pool, command) = (pool.clone(), get(n));
            async move {
                let mut connection = pool.get().await.expect("a connection");
                drop(command.query_async::<redis::Value>(&mut connection).await.expect("an answer"));
            }
        });
        if at_a_time == 64 {
            let name = "GET in a cluster, 64 at a time: of a checkout's time, 10 times as fast";
            bench.gate(name, ours, bench.last(), Bound::AtMost(0.1));
        }
    }
    nodes
}

/// So many loops at a time, which make the calls between them.
fn case<F: Future<Output = ()>>(
    bench: &mut Bench,
    name: &str,
    rt: &Rc<Runtime>,
    at_a_time: u64,
    call: impl Fn(u64) -> F + 'static,
) {
    let (rt, from) = (Rc::clone(rt), Cell::new(0_u64));
    let made = bench.case(name, move |calls| {
        let call = &call;
        let first = from.replace(from.get() + calls);
        rt.block_on(join_all((0..at_a_time).map(|lane| async move {
            for n in (lane..calls).step_by(at_a_time as usize) {
                call(first + n).await;
            }
        })));
    });
    made.in_wall_time();
    if name.starts_with("buttress") {
        // What is asked is written, and what is answered is read.
        made.ours().may_allocate();
    }
}

async fn decide(limits: &RedisLimits<u64>, key: u64) {
    let verdict = match limits.take(&key, 1) {
        Taken::Now(verdict) => verdict,
        Taken::Unpaid => Ok(()),
        Taken::Later(verdict) => match verdict.await {
            Taken::Now(verdict) => verdict,
            Taken::Unpaid => Ok(()),
        },
    };
    assert!(verdict.is_ok(), "{verdict:?}");
}

fn scattered(n: u64) -> u64 {
    n.wrapping_mul(0x9E37_79B9_7F4A_7C15) % KEYS
}

fn get(n: u64) -> Cmd {
    cmd("GET").arg(format!("key {}", scattered(n))).to_owned()
}

/// As a limiter of [`MANY`] asks it.
fn evalsha(sha: &str, key: u64) -> Cmd {
    let mut command = cmd("EVALSHA");
    command.arg(sha).arg(1).arg(format!("bare:{{.{key}}}:0:bucket:rate_limit")).arg("take").arg(1).arg(0);
    command.arg("bucket").arg(&[1_u64, 0, 1_000_000_000, 1_000_000_000, 0][..]);
    command
}

/// A `redis-server` that ends with this.
struct Server {
    port: u16,
    child: Child,
    dir: std::path::PathBuf,
}

struct Plain(redis::Connection);

impl Plain {
    async fn req<T: redis::FromRedisValue>(mut self, command: &Cmd) -> T {
        command.query(&mut self.0).expect("an answer")
    }
}

impl Server {
    fn start(settings: &[&str]) -> Self {
        let port = loop {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            let port = listener.local_addr().expect("an address").port();
            // The bus of a cluster listens 10,000 above.
            if port < 55_000 {
                break port;
            }
        };
        let dir = std::env::temp_dir().join(format!("buttress-bench-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
            .arg(&dir)
            .args(settings)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{error}: apt-get install -y redis-server"));
        let server = Self { port, child, dir };
        while Client::open(server.url()).expect("a URL").get_connection().is_err() {
            std::thread::park_timeout(Duration::from_millis(10));
        }
        server
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    fn plain(&self) -> Plain {
        Plain(Client::open(self.url()).expect("a URL").get_connection().expect("a connection"))
    }

    fn pool(&self, size: usize) -> Pool {
        let mut config = Config::from_url(self.url());
        config.pool = Some(deadpool_redis::PoolConfig::new(size));
        config.create_pool(Some(PoolRuntime::Tokio1)).expect("a pool")
    }

    fn fill(&self, rt: &Runtime) {
        let mut all = redis::pipe();
        for key in 0..KEYS {
            all.cmd("SET")
                .arg(format!("key {key}"))
                .arg("a value of some sixty letters, as a session or a flag may have it")
                .ignore();
        }
        let client = Client::open(self.url()).expect("a URL");
        rt.block_on(async {
            let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
            let _ = connection.req_packed_commands(&all, 0, KEYS as usize).await.expect("answers");
        });
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(status.expect("kill").success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
