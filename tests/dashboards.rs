//! Every metric and label that the dashboard and the alerts name exists.

use std::{collections::BTreeSet, fs, path::Path};

use buttress::event::{METRICS, Metric, MetricKind};

/// What is not a label of ours: those of Prometheus, and of the rules.
const FOREIGN: [&str; 3] = ["le", "instance", "severity"];

fn files() -> Vec<(String, String)> {
    let dashboards = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards");
    let entries = fs::read_dir(dashboards).unwrap().map(|entry| entry.unwrap().path());
    let named = entries.filter(|path| path.extension().is_some_and(|extension| extension != "md"));
    named.map(|path| (path.display().to_string(), fs::read_to_string(path).unwrap().replace("\\\"", "\""))).collect()
}

/// The row of a series: Prometheus writes a histogram as three.
fn row(series: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|row| match row.kind {
        MetricKind::Histogram => {
            ["_bucket", "_sum", "_count"].iter().any(|suffix| series.strip_suffix(suffix) == Some(row.name))
        }
        _ => series == row.name,
    })
}

/// Where a name begins and ends.
fn names(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.match_indices("buttress_").filter_map(|(start, _)| {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        // A recording rule's name has colons, and is none of ours.
        let is_ours = !text[..start].ends_with(is_part);
        let length = text[start..].find(|c| !is_part(c))?;
        let (name, rest) = text[start..].split_at(length);
        (is_ours && name != "buttress_").then_some((name, rest))
    })
}

#[test]
fn every_metric_and_label_of_a_selector_exists() {
    let mut found = BTreeSet::new();
    for (path, text) in files() {
        for (name, rest) in names(&text) {
            let row = row(name).unwrap_or_else(|| panic!("{path} names {name}, which nobody emits"));
            found.insert(row.name);
            let Some(selector) = rest.strip_prefix('{').and_then(|rest| rest.split('}').next()) else {
                continue;
            };
            for matcher in selector.split(", ") {
                let label = matcher.split(['=', '!']).next().unwrap().trim();
                let exists = row.labels.contains(&label) || FOREIGN.contains(&label);
                assert!(exists, "{path}: {name} has no label {label}");
            }
        }
    }
    assert!(found.len() > 8, "{found:?}");
}

#[test]
fn every_label_that_is_summed_by_exists() {
    for (path, text) in files() {
        for by in text.split(" by (").skip(1) {
            for label in by.split(')').next().unwrap().split(", ") {
                let exists = METRICS.iter().any(|row| row.labels.contains(&label)) || FOREIGN.contains(&label);
                assert!(exists, "{path} sums by {label}");
            }
        }
    }
}

#[test]
fn the_dashboard_is_json() {
    let (_, grafana) = files().into_iter().find(|(path, _)| path.ends_with("grafana.json")).unwrap();
    assert!(grafana.contains("\"panels\""));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards/grafana.json");
    let dashboard: serde_json::Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    assert!(dashboard["panels"].as_array().unwrap().iter().all(|panel| panel["targets"][0]["expr"].is_string()));
}
