//! A `redis-server` of its own, on a free port, in a temporary directory, gone with the test.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use buttress::redis::deadpool_redis::redis::{Client, FromRedisValue, ToRedisArgs, aio::MultiplexedConnection, cmd};

pub(crate) struct Server {
    pub(crate) port: u16,
    dir: PathBuf,
    child: Child,
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Server {
    pub(crate) async fn start() -> Self {
        // Somebody else may take the port in between.
        for _ in 0..5 {
            let port = free_port();
            let dir = fresh_dir();
            let server = Self { port, child: spawn(port, &dir), dir };
            if server.answers().await {
                return server;
            }
        }
        panic!("no redis-server starts");
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// A connection that is none of ours.
    pub(crate) async fn plain(&self) -> MultiplexedConnection {
        Client::open(self.url()).unwrap().get_multiplexed_async_connection().await.unwrap()
    }

    pub(crate) async fn ask<T: FromRedisValue>(&self, name: &str, arguments: impl ToRedisArgs) -> T {
        cmd(name).arg(arguments).query_async(&mut self.plain().await).await.unwrap()
    }

    async fn answers(&self) -> bool {
        for _ in 0..500 {
            if let Ok(client) = Client::open(self.url())
                && let Ok(mut connection) = client.get_multiplexed_async_connection().await
            {
                let dirs: Vec<String> = cmd("CONFIG").arg("GET").arg("dir").query_async(&mut connection).await.unwrap();
                return dirs.iter().any(|dir| PathBuf::from(dir).canonicalize().ok() == self.dir.canonicalize().ok());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(crate) async fn restart(&mut self) {
        self.kill();
        self.child = spawn(self.port, &self.dir);
        assert!(self.answers().await);
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(status.unwrap().success());
    }
}

fn fresh_dir() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("buttress-redis-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let dir = std::env::temp_dir().join(name);
    fs::create_dir_all(&dir).unwrap();
    dir
}

fn spawn(port: u16, dir: &Path) -> Child {
    let port = port.to_string();
    let started = Command::new("redis-server")
        .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir"])
        .arg(dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    started.unwrap_or_else(|error| panic!("{error}: these tests need redis-server: apt-get install -y redis-server"))
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.dir);
    }
}
