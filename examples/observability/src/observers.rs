//! Who looks: Prometheus, and whoever takes spans.

use std::{
    error::Error,
    net::SocketAddr,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State, http::Uri, routing::post};
use buttress::{BoxError, red::RedHandle};
use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::sleep,
};
use tracing_subscriber::{layer::SubscriberExt, util::SubscriberInitExt};

/// Without buckets a histogram would be a summary, and summaries of several processes cannot be added up.
const BUCKETS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

pub(crate) fn install_recorder() -> Result<PrometheusHandle, BoxError> {
    let durations = Matcher::Suffix("_duration_seconds".into());
    Ok(PrometheusBuilder::new().set_buckets_for_metric(durations, &BUCKETS)?.install_recorder()?)
}

/// Spans go to OTLP, in batches.
pub(crate) fn export_spans(endpoint: &str) -> Result<SdkTracerProvider, BoxError> {
    let exporter = SpanExporter::builder().with_http().with_endpoint(endpoint).build()?;
    let resource = Resource::builder().with_service_name("shop").build();
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("shop"));
    tracing_subscriber::registry().with(layer).init();
    Ok(provider)
}

/// Takes what is exported, when nobody else does.
pub(crate) struct Collector {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Collector {
    pub(crate) async fn start() -> Result<Self, BoxError> {
        let seen = Arc::default();
        let take = async |State(seen): State<Arc<Mutex<Vec<u8>>>>, batch: Bytes| {
            seen.lock().expect("nobody panics with it").extend_from_slice(&batch);
        };
        let app = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&seen));
        Ok(Self { address: super::serve(app).await?, seen })
    }

    pub(crate) fn endpoint(&self) -> String {
        match std::env::var("OTEL_EXPORTER_OTLP_ENDPOINT") {
            Ok(endpoint) => format!("{endpoint}/v1/traces"),
            Err(_) => format!("http://{}/v1/traces", self.address),
        }
    }

    /// Names stand in the batches as they are.
    pub(crate) fn has_seen<const N: usize>(&self, names: [&str; N]) -> Result<(), BoxError> {
        if std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT").is_some() {
            return Ok(());
        }
        let seen = self.seen.lock().expect("nobody panics with it");
        println!("\nOTLP: {} bytes of spans", seen.len());
        for name in names {
            if !seen.windows(name.len()).any(|window| window == name.as_bytes()) {
                return Err(format!("no span has said {name}").into());
            }
        }
        Ok(())
    }
}

/// A real one, with a directory of its own, stopped when it is dropped.
pub(crate) struct Prometheus {
    address: SocketAddr,
    _process: Child,
    _directory: TempDir,
}

impl Prometheus {
    pub(crate) async fn start(target: SocketAddr) -> Result<Self, BoxError> {
        let directory = tempfile::tempdir()?;
        let config = directory.path().join("prometheus.yml");
        std::fs::write(
            &config,
            format!(
                "global: {{ scrape_interval: 1s }}\nscrape_configs:\n  - job_name: shop\n    static_configs: [{{ targets: ['{target}'] }}]\n"
            ),
        )?;
        // Somebody else may take the port in between, but hardly on this machine.
        let address = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{error}: it takes Prometheus: apt-get install prometheus"))?;
        Ok(Self { address, _process: process, _directory: directory })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it has scraped what the figures say now that all is quiet.
    pub(crate) async fn agrees_with(&self, red: &RedHandle) -> Result<(), BoxError> {
        let query = format!("sum%20by%20(outcome)%20(buttress_red_requests_total%7Bname=%22{}%22%7D)", red.name());
        let uri: Uri = format!("http://{}/api/v1/query?query={query}", self.address).parse()?;
        let mut last = String::new();
        for _ in 0..60 {
            let requests = red.snapshot().requests;
            let expected = [
                ("cancelled", requests.cancelled),
                ("error", requests.error),
                ("ignored", requests.ignored),
                ("ok", requests.ok),
                ("permanent", requests.permanent),
                ("rejected", requests.rejected),
            ];
            let scraped = scraped(&uri).await.unwrap_or_default();
            let of = |outcome| scraped.iter().find(|(name, _)| name == outcome).map_or(0, |(_, count)| *count);
            let agrees = requests.in_flight == 0 && expected.iter().all(|(outcome, count)| of(outcome) == *count);
            last = format!("{}: the process {expected:?}, Prometheus {scraped:?}", red.name());
            if agrees && !scraped.is_empty() {
                println!("\n{}, as Prometheus has scraped it: {scraped:?}", red.name());
                println!("{}", serde_json::to_string(&red.snapshot().duration)?);
                return Ok(());
            }
            sleep(Duration::from_millis(500)).await;
        }
        Err(format!("they do not agree: {last}").into())
    }
}

/// Outcomes and counts.
async fn scraped(uri: &Uri) -> Result<Vec<(String, u64)>, Box<dyn Error>> {
    let hyper = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let body = hyper.get(uri.clone()).await?.into_body().collect().await?.to_bytes();
    let answer: Value = serde_json::from_slice(&body)?;
    let series = answer["data"]["result"].as_array().ok_or("no result")?;
    let count = |series: &Value| {
        let outcome = series["metric"]["outcome"].as_str()?.to_owned();
        Some((outcome, series["value"][1].as_str()?.parse().ok()?))
    };
    Ok(series.iter().filter_map(count).collect())
}
