use std::{
    fs,
    process::{Child, Command, Stdio},
};

use buttress::{
    rate_limit::{Quota, RateLimitSettings as Settings},
    redis::{
        Lanes, RedisLimits, Unavailable,
        deadpool_redis::{
            Runtime,
            sentinel::{Config, SentinelServerType},
        },
    },
};

use crate::{
    LONG, PATIENT, QUICK, admitted,
    server::{Server, free_port},
};

/// One sentinel that watches one master.
struct Sentinel {
    port: u16,
    child: Child,
}

impl Sentinel {
    fn before(master: &Server) -> Self {
        let port = free_port();
        let file = std::env::temp_dir().join(format!("buttress-sentinel-{port}.conf"));
        let text = format!("port {port}\nbind 127.0.0.1\nsentinel monitor shop 127.0.0.1 {} 1\n", master.port);
        fs::write(&file, text).unwrap();
        let started = Command::new("redis-server").arg(&file).arg("--sentinel").stdout(Stdio::null()).spawn();
        let child = started.unwrap_or_else(|error| panic!("{error}: apt-get install -y redis-server"));
        Self { port, child }
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(std::env::temp_dir().join(format!("buttress-sentinel-{}.conf", self.port)));
    }
}

/// deadpool_redis_config_debug_leaks
#[tokio::test]
async fn lanes_lead_to_the_master_that_sentinel_names_and_nobody_reads_its_password() {
    let master = Server::start().await;
    let sentinel = Sentinel::before(&master);
    let url = format!("redis://:s3cret@127.0.0.1:{}/", sentinel.port);
    let lanes_of = |url: String, settings| {
        let config = Config::from_urls(vec![url], "shop".to_owned(), SentinelServerType::Master);
        Lanes::try_from_sentinel(config.create_pool(Some(Runtime::Tokio1)).unwrap(), settings).unwrap()
    };
    let settings = Settings::token_bucket(Quota::per_day(3));
    let limits = |lanes: &Lanes| RedisLimits::<String>::try_new(lanes, settings, Unavailable::Closed).unwrap();
    let lanes = lanes_of(format!("redis://127.0.0.1:{}/", sentinel.port), PATIENT);
    // The sentinel may still be coming up.
    let (shared, began) = (limits(&lanes), tokio::time::Instant::now());
    let mut passed = 0;
    while passed < 3 {
        passed += admitted(&shared, "user", 1).await;
        assert!(began.elapsed() < LONG);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(admitted(&limits(&lanes), "user", 5).await, 0);
    assert_eq!(master.ask::<Vec<String>>("KEYS", "*").await.len(), 1);
    // A wrong password: away, and not a word of it.
    let wrong = lanes_of(url, QUICK);
    let failed = wrong.query::<u32>(&buttress::redis::deadpool_redis::redis::cmd("PING")).await.unwrap_err();
    let shown = format!("{wrong:?} {failed:?} {failed} {:?}", limits(&wrong));
    assert!(!shown.contains("s3cret"), "{shown}");
}
