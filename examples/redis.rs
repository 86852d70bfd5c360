//! Three processes share one limit and one cache, and Redis dies and comes back while they run:
//! `cargo run --features redis --example redis`
//!
//! It starts its own `redis-server`. It is a test as well: what it says has come out like this, or it fails.

use std::{
    env, fs,
    io::{BufRead, BufReader, Lines, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use buttress::{
    BoxError,
    cache::{CacheHandle, CacheKey, CacheSettings, MemoryStore},
    circuit_breaker::CircuitBreakerSettings,
    rate_limit::{KeyedRateLimitLayer, Quota, RateLimitSettings},
    redis::{
        Bytes, LaneSettings, Lanes, RedisLimits, RedisStore, RedisStoreSettings, TierSettings, TieredStore, Unavailable,
    },
};
use tokio::io::AsyncBufReadExt;
use tokio::time::{Instant, sleep};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

const PROCESSES: usize = 3;
/// Of each user, in all processes together.
const QUOTA: u64 = 30;
/// Nothing here takes so long.
const LONG: Duration = Duration::from_secs(20);

fn main() -> Result<(), BoxError> {
    match env::args().nth(1) {
        Some(url) => work(&url),
        None => watch(),
    }
}

// ===== one of the three =====

/// Does what it is told on its standard input, and says in a line what it saw.
#[tokio::main(flavor = "current_thread")]
async fn work(url: &str) -> Result<(), BoxError> {
    // Soon away and soon back, so that nobody has to wait for the end of the story.
    let breaker = CircuitBreakerSettings::consecutive_failures(3).name("redis").open_for(Duration::from_millis(200));
    let lanes = Lanes::try_from_url(url, LaneSettings::new().deadline(Duration::from_millis(500)).breaker(breaker))?;

    // A third of the quota for each of three, when they cannot ask.
    let users = RateLimitSettings::token_bucket(Quota::per_hour(QUOTA)).name("user");
    let limits = RedisLimits::try_new(&lanes, users, Unavailable::local(1.0 / PROCESSES as f64))?;
    let limited = ServiceBuilder::new()
        .layer(KeyedRateLimitLayer::over(limits.clone(), |user: &String| user.clone()))
        .service(service_fn(async |_: String| Ok::<_, BoxError>(())));

    let settings = CacheSettings::new().name("pages").ttl(Duration::from_secs(60));
    let far = RedisStore::try_new(&lanes, RedisStoreSettings::new().name("pages").prefix("example"), Bytes)?;
    let store = TieredStore::try_new(MemoryStore::try_new(settings)?, far, TierSettings::new())?;
    let cache = CacheHandle::with_store(settings, store.clone())?;
    let key = |page: &str| CacheKey::new("page", 1).str(page);
    let loads = Arc::new(AtomicU32::new(0));
    let dependency = service_fn({
        let loads = Arc::clone(&loads);
        move |page: String| {
            loads.fetch_add(1, Ordering::Relaxed);
            async move { Ok::<_, BoxError>(page.into_bytes()) }
        }
    });
    let mut pages = ServiceBuilder::new().layer(cache.layer(move |page: &String| Some(key(page)))).service(dependency);

    let mut told = tokio::io::BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = told.next_line().await? {
        let (what, about) = line.split_once(' ').unwrap_or((&line, ""));
        match what {
            "call" => {
                let mut passed = 0;
                for _ in 0..20 {
                    passed += u32::from(limited.clone().oneshot(about.to_owned()).await.is_ok());
                }
                println!("{passed}");
            }
            "get" => {
                let (before, asked) = (loads.load(Ordering::Relaxed), store.stats());
                pages.ready().await?.call(about.to_owned()).await?;
                let from = if loads.load(Ordering::Relaxed) > before {
                    // The answer comes before the entry is in Redis, or is known not to be.
                    let began = Instant::now();
                    while store.stats().writes == asked.writes && !store.is_away() && began.elapsed() < LONG {
                        sleep(Duration::from_millis(5)).await;
                    }
                    "the dependency"
                } else if store.stats().hits > asked.hits {
                    "redis"
                } else {
                    "memory"
                };
                println!("{from}");
            }
            "forget" => println!("{}", if cache.invalidate(&key(about)).await.is_ok() { "done" } else { "failed" }),
            // Until it is so, or the story is over.
            "until" => {
                let began = Instant::now();
                loop {
                    // Somebody has to ask, to find out, and what is in memory asks nobody.
                    let _ = limited.clone().oneshot("probe".to_owned()).await;
                    let _ = pages.ready().await?.call(format!("probe {:?}", began.elapsed())).await;
                    let is = match about {
                        "shared" => !limits.is_away() && !store.is_away() && store.is_listening(),
                        "away" => limits.is_away() && store.is_away() && !store.is_listening(),
                        page => cache.get(&key(page)).is_none(),
                    };
                    if is {
                        break println!("yes");
                    }
                    if began.elapsed() > LONG {
                        break println!("no");
                    }
                    sleep(Duration::from_millis(20)).await;
                }
            }
            _ => println!("?"),
        }
    }
    Ok(())
}

// ===== who watches them =====

struct Process {
    child: Child,
    tell: ChildStdin,
    says: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(url: &str) -> Result<Self, BoxError> {
        let mut child =
            Command::new(env::current_exe()?).arg(url).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (Some(tell), Some(says)) = (child.stdin.take(), child.stdout.take()) else { return Err("no pipes".into()) };
        Ok(Self { child, tell, says: BufReader::new(says).lines() })
    }
}

/// Tells all of them the same, at the same time, and prints what each saw.
fn all(processes: &mut [Process], what: &str) -> Result<Vec<String>, BoxError> {
    for process in &mut *processes {
        writeln!(process.tell, "{what}")?;
    }
    let mut saw = Vec::new();
    for process in processes {
        saw.push(process.says.next().ok_or("a process is gone")??);
    }
    println!("  {what:<14} {}", saw.join(" | "));
    Ok(saw)
}

fn total(saw: &[String]) -> u64 {
    saw.iter().filter_map(|passed| passed.parse::<u64>().ok()).sum()
}

fn watch() -> Result<(), BoxError> {
    let mut server = Server::start()?;
    let url = format!("redis://127.0.0.1:{}/", server.port);
    let mut fleet = (0..PROCESSES).map(|_| Process::start(&url)).collect::<Result<Vec<_>, _>>()?;

    println!("Three processes, and a Redis on port {}. What each of them saw:", server.port);
    assert!(all(&mut fleet, "until shared")?.iter().all(|is| is == "yes"));

    println!("\nA user has {QUOTA} calls in an hour; each process tries 20 at the same time");
    let passed = total(&all(&mut fleet, "call day")?);
    println!("  {passed} passed");
    assert_eq!(passed, QUOTA);

    println!("\nA page: the first one loads it, the others find it in Redis, and then each has it in memory");
    let mut one_by_one = Vec::new();
    for process in &mut fleet {
        one_by_one.extend(all(std::slice::from_mut(process), "get index")?);
    }
    assert_eq!(one_by_one, ["the dependency", "redis", "redis"]);
    assert!(all(&mut fleet, "get index")?.iter().all(|from| from == "memory"));

    println!("\nThe second one says that it has changed, and it is gone everywhere");
    assert_eq!(all(&mut fleet[1..2], "forget index")?, ["done"]);
    assert!(all(&mut fleet, "until index")?.iter().all(|is| is == "yes"));

    println!("\nRedis is killed: each lets a third of the quota pass, and keeps its own pages");
    server.kill();
    assert!(all(&mut fleet, "until away")?.iter().all(|is| is == "yes"));
    let passed = total(&all(&mut fleet, "call night")?);
    println!("  {passed} passed");
    assert_eq!(passed, QUOTA);
    assert!(all(&mut fleet, "get index")?.iter().all(|from| from == "the dependency"));
    assert!(all(&mut fleet, "get index")?.iter().all(|from| from == "memory"));

    println!("\nRedis is back, with nothing in it: limit and pages are shared again");
    server.restart()?;
    assert!(all(&mut fleet, "until shared")?.iter().all(|is| is == "yes"));
    let passed = total(&all(&mut fleet, "call morning")?);
    println!("  {passed} passed");
    assert_eq!(passed, QUOTA);
    let mut one_by_one = Vec::new();
    for process in &mut fleet {
        one_by_one.extend(all(std::slice::from_mut(process), "get news")?);
    }
    assert_eq!(one_by_one, ["the dependency", "redis", "redis"]);

    for mut process in fleet {
        drop(process.tell);
        process.child.wait()?;
    }
    println!("\nEverything came out like this because it does.");
    Ok(())
}

/// A `redis-server` in a directory of its own, gone with the story.
struct Server {
    port: u16,
    dir: PathBuf,
    child: Child,
}

impl Server {
    fn start() -> Result<Self, BoxError> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let dir = env::temp_dir().join(format!("buttress-example-{}", std::process::id()));
        fs::create_dir_all(&dir)?;
        Ok(Self { port, child: spawn(port, &dir)?, dir })
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn restart(&mut self) -> Result<(), BoxError> {
        self.kill();
        self.child = spawn(self.port, &self.dir)?;
        Ok(())
    }
}

fn spawn(port: u16, dir: &Path) -> Result<Child, BoxError> {
    let mut server = Command::new("redis-server");
    server.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"]);
    let started = server.arg(dir).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    started.map_err(|error| format!("{error}: this needs redis-server, as in: apt-get install -y redis-server").into())
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.dir);
    }
}
