//! Health: what makes a process unready, and what it says over HTTP.

#![cfg(feature = "full")]

use std::time::Duration;

use buttress::{
    circuit_breaker::{CircuitBreakerHandle, CircuitBreakerSettings},
    health::{Health, HealthService, Matters, Status},
    red::RedHandle,
};
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

async fn get(service: &HealthService, method: Method, path: &str) -> (StatusCode, String) {
    let request = Request::builder().method(method).uri(path).body(()).unwrap();
    let response = service.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.into()).unwrap())
}

#[test]
fn what_is_unwell_matters_to_what_it_was_registered_for() {
    for (matters, live, ready) in
        [(Matters::ToLiveness, false, false), (Matters::ToReadiness, true, false), (Matters::ToNobody, true, true)]
    {
        let health = Health::new();
        health.part("store", "well", matters, Status::well);
        assert!(health.is_live() && health.is_ready());
        health.part("store", "unwell", matters, || Status::unwell().with("since", "noon"));
        assert_eq!((health.is_live(), health.is_ready()), (live, ready), "{matters:?}");
        let report = health.report();
        assert_eq!((&report["live"], &report["ready"]), (&json!(live), &json!(ready)));
        assert_eq!(report["store"]["unwell"]["well"], false);
        assert_eq!(report["store"]["unwell"]["since"], "noon");
        assert_eq!(report["store"]["well"]["well"], true);
    }
}

#[tokio::test(start_paused = true)]
async fn a_circuit_is_unwell_only_while_it_is_open() {
    let settings = CircuitBreakerSettings::consecutive_failures(1).open_for(Duration::from_secs(1)).successes(1);
    let circuit = CircuitBreakerHandle::try_new(settings.name("payments")).unwrap();
    let health = Health::new();
    health.circuit(&circuit, Matters::ToReadiness);
    assert!(health.is_ready());
    circuit.try_acquire().unwrap().failure();
    assert!(!health.is_ready());
    let part = &health.report()["circuit"]["payments"];
    assert_eq!((&part["state"], &part["mode"]), (&json!("open"), &json!("enforced")));
    assert_eq!(part["time_to_half_open_ms"], 1000.0);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(health.is_ready(), "half-open, and so it must get requests");
    assert_eq!(health.report()["circuit"]["payments"]["state"], "half_open");
}

#[test]
fn a_part_can_be_replaced_and_removed_also_by_itself() {
    let health = Health::new();
    health.part("cache", "users", Matters::ToReadiness, Status::unwell);
    health.clone().part("cache", "users", Matters::ToReadiness, Status::well);
    assert!(health.is_ready(), "clones share the parts");
    let own = health.clone();
    health.part("cache", "fleeting", Matters::ToReadiness, move || {
        own.remove("cache", "fleeting");
        Status::unwell()
    });
    assert!(!health.is_ready());
    assert!(health.is_ready());
    health.remove("cache", "fleeting");
    assert_eq!(health.report()["cache"].as_object().unwrap().keys().collect::<Vec<_>>(), ["users"]);
}

#[test]
fn a_part_that_panics_is_unwell_and_harms_no_other() {
    let health = Health::new();
    health.part("store", "a", Matters::ToReadiness, || panic!("told so"));
    health.part("store", "b", Matters::ToReadiness, Status::well);
    let report = health.report();
    assert_eq!((&report["store"]["a"]["panicked"], &report["store"]["b"]["well"]), (&json!(true), &json!(true)));
    assert!(!health.is_ready());
}

#[tokio::test]
async fn over_http_it_says_the_same_with_the_status_that_orchestrators_read() {
    let health = Health::new();
    let service = health.service();
    health.part("queue", "jobs", Matters::ToReadiness, || Status::unwell().with("length", 7));
    let red = RedHandle::try_new("api").unwrap();
    health.red(&red);
    drop(red.begin());

    let (status, body) = get(&service, Method::GET, "/health/live").await;
    assert_eq!((status, serde_json::from_str::<Value>(&body).unwrap()), (StatusCode::OK, health.report()));
    assert_eq!(get(&service, Method::GET, "/health/ready").await.0, StatusCode::SERVICE_UNAVAILABLE);
    let (status, body) = get(&service, Method::GET, "/metrics.json").await;
    let page: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(status, StatusCode::OK);
    let sections: Vec<_> = page.as_object().unwrap().keys().cloned().collect();
    assert_eq!(sections, ["cache", "circuit", "duration", "queue", "requests"]);
    assert_eq!(page["requests"]["api"]["cancelled"], 1);
    assert_eq!(page["duration"]["api"]["count"], 1);
    assert_eq!(page["queue"]["jobs"]["length"], 7);

    assert_eq!(get(&service, Method::HEAD, "/health/ready").await, (StatusCode::SERVICE_UNAVAILABLE, String::new()));
    assert_eq!(get(&service, Method::POST, "/health/ready").await.0, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(get(&service, Method::GET, "/health").await.0, StatusCode::NOT_FOUND);
    assert_eq!(get(&service, Method::GET, "/metrics").await.0, StatusCode::NOT_FOUND, "nobody renders it");
    let rendering = service.metrics(|| "up 1\n".into());
    assert_eq!(get(&rendering, Method::GET, "/metrics").await, (StatusCode::OK, "up 1\n".into()));
}

#[tokio::test]
async fn it_is_a_fallback_for_axum() {
    let app: axum::Router = axum::Router::new().fallback_service(Health::new().service());
    let request = Request::get("/health/live").body(axum::body::Body::empty()).unwrap();
    let response = app.oneshot(request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), r#"{"live":true,"ready":true}"#);
}
