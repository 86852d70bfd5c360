use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use buttress::{
    rate_limit::{Quota, RateLimitSettings as Settings},
    redis::{Lanes, RedisLimits, Unavailable},
};

use crate::{LONG, PATIENT, admitted, server::free_port};

/// Three masters, without replicas.
pub(crate) struct Cluster {
    pub(crate) ports: Vec<u16>,
    children: Vec<Child>,
    dir: PathBuf,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let ports: Vec<u16> = (0..3)
            .map(|_| {
                loop {
                    // The bus listens 10,000 ports above.
                    let port = free_port();
                    if port < 55_000 {
                        break port;
                    }
                }
            })
            .collect();
        let dir = std::env::temp_dir().join(format!("buttress-cluster-{}", std::process::id()));
        let children = ports.iter().map(|port| spawn(*port, &dir)).collect();
        let cluster = Self { ports, children, dir };
        let nodes: Vec<String> = cluster.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let began = tokio::time::Instant::now();
        loop {
            let made = Command::new("redis-cli")
                .args(["--cluster", "create"])
                .args(&nodes)
                .arg("--cluster-yes")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            let made = made.unwrap_or_else(|error| panic!("{error}: apt-get install -y redis-server"));
            if made.success() {
                break;
            }
            assert!(began.elapsed() < LONG, "no cluster");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        while !cluster.ports.iter().all(|port| is_well(*port)) {
            assert!(began.elapsed() < LONG, "no cluster");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        cluster
    }
}

fn is_well(port: u16) -> bool {
    let asked = Command::new("redis-cli").args(["-p", &port.to_string(), "cluster", "info"]).output();
    String::from_utf8_lossy(&asked.unwrap().stdout).contains("cluster_state:ok")
}

fn spawn(port: u16, dir: &std::path::Path) -> Child {
    let dir = dir.join(port.to_string());
    fs::create_dir_all(&dir).unwrap();
    let port = port.to_string();
    let started = Command::new("redis-server")
        .args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--cluster-enabled", "yes"])
        .args(["--cluster-node-timeout", "1000", "--dir"])
        .arg(&dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    started.unwrap_or_else(|error| panic!("{error}: these tests need redis-server: apt-get install -y redis-server"))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// effect_smol_2328_derived_keys_cross_slots
#[tokio::test]
async fn several_limits_of_many_keys_are_exact_in_a_cluster() {
    let cluster = Cluster::start().await;
    let urls = cluster.ports.iter().map(|port| format!("redis://127.0.0.1:{port}/"));
    let lanes = Lanes::try_from_cluster_urls(urls.take(1), PATIENT).unwrap();
    let hour = Duration::from_secs(3600);
    let settings = Settings::token_bucket(Quota::new(5, hour))
        .name("five")
        .and(Settings::sliding_log(Quota::new(4, hour)).name("four"))
        .and(Settings::sliding_counter(Quota::new(6, hour)).name("six"));
    let limits = RedisLimits::<String>::try_new(&lanes, settings, Unavailable::Closed).unwrap();
    for n in 0..30 {
        assert_eq!(admitted(&limits, &format!("user {n}"), 7).await, 4);
    }
    assert!(!limits.is_away());
}
