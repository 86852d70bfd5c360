//! A cache in front of a slow HTTP service that dies and comes back: `cargo run --example cache`

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::get};
use buttress::{
    BoxError, Outcome,
    cache::{CacheHandle, CacheKey, CacheSettings, CacheStatus},
    circuit_breaker::{CircuitBreakerLayer, CircuitBreakerSettings},
    timeout::TimeoutLayer,
};
use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::time::{Instant, sleep};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

const MILLISECOND: Duration = Duration::from_millis(1);
const TTL: Duration = Duration::from_millis(600);
const OPEN: Duration = Duration::from_secs(3);

/// A prediction: its status, and the text, which is cheap to clone.
type Prediction = (StatusCode, Arc<str>);

/// What the service is asked about. The key leaves nothing out that the prediction depends on.
#[derive(Debug)]
struct Vitals {
    patient: u64,
    pulse: u64,
    image: &'static [u8],
}

impl Vitals {
    const fn of(patient: u64) -> Self {
        Self { patient, pulse: 72, image: b"\x89PNG" }
    }

    fn key(&self) -> CacheKey {
        CacheKey::new("prediction", 1).u64(self.patient).u64(self.pulse).bytes(self.image)
    }
}

/// The service: each prediction takes 300 ms, when it is well.
#[derive(Clone, Default)]
struct Service300(Arc<Inside>);

#[derive(Default)]
struct Inside {
    asked: AtomicU32,
    is_dead: AtomicBool,
}

impl Service300 {
    async fn listen(&self) -> Result<String, BoxError> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/predict", listener.local_addr()?);
        let router = Router::new().route("/predict", get(Self::predict)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(url)
    }

    async fn predict(State(service): State<Self>) -> (StatusCode, String) {
        let number = service.0.asked.fetch_add(1, Ordering::SeqCst) + 1;
        if service.0.is_dead.load(Ordering::SeqCst) {
            return (StatusCode::SERVICE_UNAVAILABLE, "out of order".into());
        }
        sleep(300 * MILLISECOND).await;
        (StatusCode::OK, format!("prediction {number}"))
    }

    fn asked(&self) -> u32 {
        self.0.asked.load(Ordering::SeqCst)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let service = Service300::default();
    let url = service.listen().await?;

    let settings = CacheSettings::new()
        .name("predictions")
        .ttl(TTL)
        .stale_if_error(Duration::from_secs(3600)) // An old prediction is better than none.
        .throttle(100 * MILLISECOND);
    let cache = CacheHandle::<CacheKey, Prediction>::new(settings);
    let by_status = |answer: Result<&Prediction, &BoxError>| match answer {
        Ok((status, _)) if status.is_server_error() => Outcome::TRANSIENT,
        Ok((status, _)) if status.is_client_error() => Outcome::Permanent,
        Ok(_) => Outcome::Success,
        Err(error) => buttress::Classify::classify(&buttress::ErrorsAreTransient, Err::<&(), _>(error)),
    };
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let ask = service_fn(move |_: Vitals| {
        let (client, url) = (client.clone(), url.clone());
        async move {
            let response = client.get(url.parse()?).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            Ok::<Prediction, BoxError>((status, String::from_utf8_lossy(&body).into()))
        }
    });
    let circuit = CircuitBreakerSettings::consecutive_failures(2).open_for(OPEN).successes(1);
    let mut stack = ServiceBuilder::new()
        .layer(
            cache
                .layer(|vitals: &Vitals| Some(vitals.key()))
                .classify(by_status)
                .tell(|(_, text): Prediction, status: CacheStatus| (text, status)),
        )
        .layer(CircuitBreakerLayer::new(circuit).classify(by_status))
        .layer(TimeoutLayer::new(Duration::from_secs(2)))
        .service(ask);
    buttress::check::<Vitals, _>(&stack);

    println!("The first call waits for the service, the second does not");
    let (first, took) = call(&mut stack).await?;
    assert!(matches!(first, CacheStatus::Loaded { stored: true, .. }) && took >= 300 * MILLISECOND);
    let (second, took) = call(&mut stack).await?;
    assert!(matches!(second, CacheStatus::Fresh { .. }) && took < 100 * MILLISECOND);

    println!("\nA hundred at a time ask about another patient: that is one load");
    let before = service.asked();
    let calls = (0..100).map(|_| stack.clone().oneshot(Vitals::of(8)));
    let answers = futures::future::try_join_all(calls).await?;
    println!("  {} answers, {} load", answers.len(), service.asked() - before);
    assert_eq!(service.asked() - before, 1);

    println!("\nThe service dies, and the prediction is past its time");
    service.0.is_dead.store(true, Ordering::SeqCst);
    sleep(TTL).await;
    let before = service.asked();
    for _ in 0..8 {
        let (status, _) = call(&mut stack).await?;
        assert!(matches!(status, CacheStatus::Stale { .. }));
        sleep(60 * MILLISECOND).await;
    }
    println!("  the service was asked {} times, and then spared by the circuit", service.asked() - before);
    assert_eq!(service.asked() - before, 2);

    println!("\nIt returns, and the circuit lets a call pass");
    service.0.is_dead.store(false, Ordering::SeqCst);
    sleep(OPEN).await;
    let (status, _) = call(&mut stack).await?;
    assert!(matches!(status, CacheStatus::Loaded { stored: true, .. }));

    println!("\nWhat became of it");
    let stats = cache.stats();
    println!("  hit rate {:.0} %, {} calls saved, {stats:?}", 100.0 * stats.hit_rate(), stats.calls_saved());
    println!("  outside this process the key would be {}", Vitals::of(7).key().hex());
    Ok(())
}

/// Calls for the first patient, and tells of it.
async fn call<S>(stack: &mut S) -> Result<(CacheStatus, Duration), BoxError>
where
    S: Service<Vitals, Response = (Arc<str>, CacheStatus), Error = BoxError>,
{
    let started = Instant::now();
    let (text, status) = stack.ready().await?.call(Vitals::of(7)).await?;
    println!("  {text} after {:?}: {status:?}", started.elapsed());
    Ok((status, started.elapsed()))
}
