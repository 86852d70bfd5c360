use std::time::Duration;

use buttress::redis::{
    LaneSettings, Lanes, RedisFailure,
    deadpool_redis::redis::{Cmd, cmd},
};

use crate::{
    LONG, PATIENT, QUICK, lanes,
    proxy::{Fault, Proxy, scripted},
    server::{Server, free_port},
};

fn get(key: &str) -> Cmd {
    cmd("GET").arg(key).to_owned()
}

/// pool_checkout_pings_before_each_command
#[tokio::test]
async fn many_operations_share_a_few_connections() {
    let server = Server::start().await;
    let proxy = Proxy::before(server.port).await;
    let lanes = lanes(&proxy.url(), PATIENT);
    assert_eq!(proxy.accepted(), 0, "it connects when it is asked");
    let all = (0..512).map(|n| {
        let lanes = lanes.clone();
        tokio::spawn(async move { lanes.query::<u32>(cmd("ECHO").arg(n)).await })
    });
    for (n, answer) in futures::future::join_all(all).await.into_iter().enumerate() {
        assert_eq!(answer.unwrap(), Ok(n as u32));
    }
    assert_eq!(proxy.accepted(), 2);
    let pings: String = server.ask("INFO", "commandstats").await;
    assert!(!pings.contains("cmdstat_ping"), "{pings}");
}

/// What blocks or subscribes is asked on a connection of its own.
#[tokio::test]
async fn a_connection_of_the_pool_is_nobody_elses() {
    let server = Server::start().await;
    let lanes = lanes(&server.url(), PATIENT);
    let mut own = lanes.pool().unwrap().get().await.unwrap();
    let blocked =
        tokio::spawn(async move { cmd("BLPOP").arg("list").arg(5).query_async::<[String; 2]>(&mut own).await });
    assert_eq!(lanes.query(&get("a")).await, Ok(None::<String>));
    let _: u32 = lanes.query(cmd("LPUSH").arg("list").arg("x")).await.unwrap();
    assert_eq!(blocked.await.unwrap().unwrap(), ["list", "x"]);
}

/// redis_rs_multiplexed_connection_never_reconnects
#[tokio::test]
async fn a_lane_that_breaks_is_replaced_once_for_all_who_come() {
    let server = Server::start().await;
    let proxy = Proxy::before(server.port).await;
    let lanes = lanes(&proxy.url(), QUICK.lanes(1));
    assert_eq!(lanes.query(&get("a")).await, Ok(None::<String>));
    proxy.cut();
    let began = tokio::time::Instant::now();
    while lanes.query::<Option<String>>(&get("a")).await.is_err() {
        assert!(began.elapsed() < LONG);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let all = (0..64).map(|_| {
        let lanes = lanes.clone();
        tokio::spawn(async move { lanes.query::<Option<String>>(&get("a")).await })
    });
    for answer in futures::future::join_all(all).await {
        assert_eq!(answer.unwrap(), Ok(None));
    }
    assert_eq!(proxy.accepted(), 2);
}

/// An idle connection does not know that its server has gone and come back.
#[tokio::test]
async fn when_a_lane_breaks_those_that_are_idle_are_replaced_too() {
    let mut server = Server::start().await;
    let lanes = lanes(&server.url(), PATIENT.lanes(3));
    // Each lane in its turn: they change after many operations.
    let use_all = async || {
        for _ in 0..3 * 256 {
            assert_eq!(lanes.query(&get("a")).await, Ok(None::<String>));
        }
    };
    use_all().await;
    let clients: String = server.ask("CLIENT", "LIST").await;
    assert_eq!(clients.lines().filter(|client| client.contains("cmd=get")).count(), 3);
    server.restart().await;
    assert_eq!(lanes.query::<Option<String>>(&get("a")).await, Err(RedisFailure::Disconnected));
    use_all().await;
}

#[tokio::test]
async fn a_lane_survives_a_time_out() {
    let server = Server::start().await;
    let proxy = Proxy::before(server.port).await;
    let lanes = lanes(&proxy.url(), QUICK.lanes(1));
    assert_eq!(lanes.query(&get("a")).await, Ok(None::<String>));
    proxy.set(Fault::Stall);
    assert_eq!(lanes.query::<Option<String>>(&get("a")).await, Err(RedisFailure::TimedOut));
    proxy.set(Fault::None);
    assert_eq!(lanes.query(&get("a")).await, Ok(None::<String>));
    assert_eq!(proxy.accepted(), 1);
}

/// half_open_tcp_is_asked_for_ever
#[tokio::test]
async fn a_lane_on_which_even_a_probe_has_no_answer_is_replaced() {
    let server = Server::start().await;
    let proxy = Proxy::before(server.port).await;
    let lanes = lanes(&proxy.url(), QUICK.lanes(1).deadline(Duration::from_millis(50)));
    let began = tokio::time::Instant::now();
    while lanes.query::<Option<String>>(&get("a")).await.is_err() {
        assert!(began.elapsed() < LONG);
    }
    proxy.set(Fault::Stall);
    while proxy.accepted() < 2 {
        assert!(began.elapsed() < LONG, "{:?}", lanes.breaker().state());
        let _ = lanes.query::<Option<String>>(&get("a")).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// redis_py_2665_reply_of_another_command, redis_rs_1017
#[tokio::test]
async fn five_hundred_operations_cancelled_midway_leave_no_answer_to_another() {
    let server = Server::start().await;
    let proxy = Proxy::before(server.port).await;
    let lanes = lanes(&proxy.url(), PATIENT.lanes(1));
    let _: String = lanes.query(&cmd("PING")).await.unwrap();
    proxy.set(Fault::Delay);
    for n in 0..500 {
        let question = cmd("ECHO").arg(format!("cancelled {n}")).to_owned();
        tokio::select! {
            biased;
            _ = lanes.query::<String>(&question) => panic!("answers take longer"),
            () = async { for _ in 0..3 { tokio::task::yield_now().await } } => {}
        }
        if n % 50 == 0 {
            assert_eq!(lanes.query::<u32>(cmd("ECHO").arg(n)).await, Ok(n));
        }
    }
    for n in 0..20 {
        assert_eq!(lanes.query::<u32>(cmd("ECHO").arg(n)).await, Ok(n));
    }
}

/// redis_py_4116_hostile_reply, hiredis_1336, ioredis_2108
#[tokio::test]
async fn whatever_a_server_says_an_operation_ends() {
    let nested = b"*1\r\n".repeat(200_000);
    let rows: [&[u8]; 9] = [
        b"\x00\xff\x00 garbage",
        b"$9223372036854775807\r\n",
        b"*2147483647\r\n",
        &nested,
        b"$5\r\nab",
        b"$-5\r\n",
        b":99999999999999999999\r\n",
        b"+OK\r\n",
        b"-NOSCRIPT never\r\n",
    ];
    for bytes in rows {
        let lanes = lanes(&scripted(bytes.to_vec()).await, QUICK);
        for _ in 0..5 {
            let asked = tokio::time::timeout(LONG, lanes.query::<u32>(&get("a"))).await;
            assert!(asked.expect("it ends").is_err(), "{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(20)]));
        }
    }
}

/// lettuce_1405_password_in_debug
#[tokio::test]
async fn no_secret_is_in_any_debug_or_error() {
    let url = format!("redis://user:s3cret@127.0.0.1:{}/", free_port());
    let lanes = lanes(&url, LaneSettings::new());
    let failure = lanes.query::<u32>(&get("s3cret")).await.unwrap_err();
    let none = Lanes::try_from_url("no-redis://user:s3cret@host", LaneSettings::new()).unwrap_err();
    let shown = format!("{lanes:?} {failure:?} {failure} {none:?} {none} {:?}", lanes.breaker());
    assert!(!shown.contains("s3cret") && !shown.contains("user"), "{shown}");
}

#[test]
fn settings_that_cannot_work_say_so() {
    let field = |settings| Lanes::try_from_url("redis://localhost", settings).map(drop).map_err(|error| error.field());
    assert_eq!(field(LaneSettings::new()), Ok(()));
    assert_eq!(field(LaneSettings::new().lanes(0)), Err("lanes"));
    assert_eq!(field(LaneSettings::new().deadline(Duration::ZERO)), Err("deadline"));
    assert_eq!(field(LaneSettings::new().connect_timeout(Duration::ZERO)), Err("connect_timeout"));
}
