//! The stack in front of and behind an axum service, seen by real observers: `cargo run -p buttress-observability [-- --serve]`
//!
//! A shop asks a stock-keeper who has bad moments. In front of the shop RED counts by route; behind it a stack of RED, retry, breaker and time-out
//! asks on. A real Prometheus scrapes the shop, spans go out over OTLP, and at the end both have to agree with what the process itself has counted.
//! `--serve` goes on until it is stopped, for a look at the pages, or for a Grafana with `dashboards/grafana.json`.
//!
//! Spans go to `OTEL_EXPORTER_OTLP_ENDPOINT` if it is set, and otherwise to a collector in here that only looks what is in them.

mod observers;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use axum::{Router, http::Uri, response::Response, routing::get};
use buttress::{
    BoxError, DeadlineLayer,
    circuit_breaker::{CircuitBreakerHandle, CircuitBreakerSettings},
    health::{Health, Matters},
    http::ByStatus,
    red::{RedHandle, RedLayer, RedSettings},
    retry::{Backoff, RetryLayer, RetrySettings},
    timeout::TimeoutLayer,
};
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::{net::TcpListener, task::JoinSet, time::sleep};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tracing::{Instrument, field::Empty as Later, info_span};

use observers::{Collector, Prometheus};

type Incoming = Response<hyper::body::Incoming>;
type Failure = buttress::Error<hyper_util::client::legacy::Error>;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let render = observers::install_recorder()?;
    let collector = Collector::start().await?;
    let traces = observers::export_spans(&collector.endpoint())?;

    let stock = serve(stock_keeper()).await?;
    let circuit = CircuitBreakerHandle::try_new(
        CircuitBreakerSettings::consecutive_failures(5).open_for(Duration::from_millis(200)).name("stock"),
    )?;
    let asking = RedHandle::try_new("stock")?;
    let shopping = RedLayer::new(RedSettings::new("shop").label("route", &["/buy", "/"])).classify(ByStatus::new());
    let health = Health::new();
    health.circuit(&circuit, Matters::ToNobody); // A shop without a stock-keeper is still open.
    health.red(&asking);
    health.red(&shopping.handle());

    let client = client(&asking, &circuit, format!("http://{stock}/").parse()?);
    let routes = Router::new().route("/", get(async || "the shop\n")).route("/buy", get(move || buy(client.clone())));
    // RED only looks, so it goes around a router that cannot fail. The pages of the operator stay outside.
    let figures = shopping.handle();
    let routes = routes.layer(shopping.label_by(|request: &axum::extract::Request| request.uri().path()));
    let shop = serve(routes.fallback_service(health.service().metrics(move || render.render()))).await?;
    let prometheus = Prometheus::start(shop).await?;
    println!(
        "the shop       http://{shop}/health/ready  /metrics  /metrics.json\nPrometheus     http://{}",
        prometheus.address()
    );

    day(shop, 1_000).await?;
    if std::env::args().any(|arg| arg == "--serve") {
        println!("a day after the other, until it is stopped");
        loop {
            day(shop, 100).await?;
        }
    }

    for red in [&figures, &asking] {
        prometheus.agrees_with(red).await?;
    }
    traces.force_flush()?;
    collector.has_seen(["buy", "buttress.outcome", "buttress.attempts", "http.request.resend_count"])?;
    println!("\nPrometheus has scraped what the process has counted, and the spans have arrived.");
    Ok(())
}

/// Two of ten answers fail, and now and then there are none at all.
fn stock_keeper() -> Router {
    static ASKED: AtomicU64 = AtomicU64::new(0);
    Router::new().route(
        "/",
        get(async || {
            use axum::http::StatusCode;
            let asked = ASKED.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(asked % 7)).await;
            match asked % 300 {
                // A bad moment.
                200..208 => StatusCode::SERVICE_UNAVAILABLE,
                n if n % 5 == 0 => StatusCode::BAD_GATEWAY,
                100 => {
                    sleep(Duration::from_secs(1)).await;
                    StatusCode::OK
                }
                _ => StatusCode::OK,
            }
        }),
    )
}

/// The stack behind the shop.
fn client(
    asking: &RedHandle,
    circuit: &CircuitBreakerHandle,
    stock: Uri,
) -> impl Service<(), Response = Incoming, Error = Failure, Future: Send> + Clone + Send + Sync + 'static {
    let hyper = Client::builder(TokioExecutor::new()).build_http::<Empty<axum::body::Bytes>>();
    let by_status = ByStatus::new();
    let stack = ServiceBuilder::new()
        .layer(asking.layer().classify(by_status))
        .layer(DeadlineLayer::new(Duration::from_secs(2)))
        .layer(
            RetryLayer::new(RetrySettings::new().backoff(Backoff::constant(Duration::from_millis(5))).name("stock"))
                .classify(by_status),
        )
        .layer(circuit.layer().classify(by_status))
        .layer(TimeoutLayer::new(Duration::from_millis(300)))
        .map_err(buttress::Error::Service)
        .service(service_fn(move |()| hyper.get(stock.clone())));
    buttress::check::<(), _>(&stack);
    stack
}

/// The handler: its span is told what became of the call.
async fn buy<S>(client: S) -> axum::http::StatusCode
where
    S: Service<(), Response = Incoming, Error = Failure>,
{
    use axum::http::StatusCode;
    let span = info_span!(
        "buy",
        otel.kind = "client",
        error.type = Later,
        http.request.resend_count = Later,
        buttress.outcome = Later,
        buttress.attempts = Later,
        buttress.rejected_by = Later,
        buttress.rejected_reason = Later,
        buttress.circuit_state = Later,
    );
    match client.oneshot(()).instrument(span).await {
        Ok(answer) if answer.status().is_success() => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// So many customers, twenty at a time; one of fifty goes away before the answer, and one of ten only looks.
async fn day(shop: std::net::SocketAddr, customers: u32) -> Result<(), BoxError> {
    let hyper = Client::builder(TokioExecutor::new()).build_http::<Empty<axum::body::Bytes>>();
    let (buy, look): (Uri, Uri) = (format!("http://{shop}/buy").parse()?, format!("http://{shop}/").parse()?);
    let mut inside = JoinSet::new();
    for customer in 0..customers {
        if inside.len() >= 20 {
            inside.join_next().await;
        }
        sleep(Duration::from_millis(2)).await;
        let call = hyper.get(if customer % 10 == 0 { look.clone() } else { buy.clone() });
        inside.spawn(async move {
            let patience = Duration::from_millis(if customer % 50 == 7 { 1 } else { 10_000 });
            tokio::time::timeout(patience, call).await.is_ok()
        });
    }
    while inside.join_next().await.is_some() {}
    Ok(())
}

async fn serve(app: Router) -> Result<std::net::SocketAddr, BoxError> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}
