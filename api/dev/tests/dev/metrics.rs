//! What the golden lists of metrics have in common, and that the dashboard for Grafana knows nothing else.

use std::collections::{BTreeMap, BTreeSet};

use regex::Regex;
use serde_json::Value;

const LISTS: [&str; 4] = ["api/src", "api/bridge/src", "runner/src", "agent/src"];
/// Labels whose values are words of ours, or operations of ours: there are few of each.
const LABELS: [&str; 16] = [
    "code",
    "direction",
    "ending",
    "feed",
    "kind",
    "lane",
    "method",
    "operation",
    "origin",
    "outcome",
    "phase",
    "rule",
    "state",
    "status",
    "type",
    "verb",
];
/// What Prometheus itself adds.
const ADDED: [&str; 3] = ["instance", "job", "le"];

#[derive(Debug)]
struct Metric {
    kind: String,
    labels: BTreeSet<String>,
}

/// All metrics, by name.
fn metrics() -> BTreeMap<String, Metric> {
    let mut metrics = BTreeMap::new();
    for list in LISTS {
        let file = ovenbird_dev::tree::root().join(list).join("metrics/names.txt");
        for line in std::fs::read_to_string(file).unwrap().lines() {
            let mut words = line.split(' ').map(str::to_owned);
            let (name, kind) = (words.next().unwrap(), words.next().unwrap());
            metrics.insert(name, Metric { kind, labels: words.collect() });
        }
    }
    metrics
}

/// The series of a metric, as queries name them.
fn series(name: &str, metric: &Metric) -> Vec<String> {
    match metric.kind.as_str() {
        "counter" => vec![format!("{name}_total")],
        "histogram" => ["bucket", "sum", "count"].map(|end| format!("{name}_{end}")).into(),
        _ => vec![name.to_owned()],
    }
}

#[test]
fn names_have_their_unit_and_labels_have_few_values() {
    for (name, metric) in metrics() {
        let unknown: Vec<_> =
            metric.labels.iter().filter(|label| !LABELS.contains(&label.as_str())).collect();
        assert!(
            unknown.is_empty(),
            "{name} has labels of which nobody said how many there are: {unknown:?}"
        );
        let is_counter = metric.kind == "counter";
        assert!(!is_counter || !name.ends_with("_total"), "{name}: the library adds it");
        if metric.kind == "histogram" {
            assert!(name.ends_with("_seconds"), "{name} has no unit");
        }
        let says = |word: &str| name.split('_').any(|part| part == word);
        for (word, unit) in [("duration", "_seconds"), ("latency", "_seconds"), ("lag", "_seconds")]
        {
            assert!(!says(word) || name.ends_with(unit), "{name} is not in {unit}");
        }
    }
}

#[test]
fn grafana_asks_for_metrics_and_labels_of_the_golden_lists_alone() {
    let file = ovenbird_dev::tree::root().join(".deploy/grafana/ovenbird.json");
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let metrics = metrics();
    let known: BTreeMap<String, &Metric> = metrics
        .iter()
        .flat_map(|(name, metric)| series(name, metric).into_iter().map(move |it| (it, metric)))
        .collect();
    let (names, labels) = (
        Regex::new(r"\b(?:ovenbird|process)_[a-z_]+").unwrap(),
        Regex::new(r#"by \(([a-z_, ]+)\)|\b([a-z_]+)(?:=~|!~|!=|=)""#).unwrap(),
    );
    let mut asked = BTreeSet::new();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().unwrap();
        assert!(
            !title.is_empty() && panel["fieldConfig"]["defaults"]["unit"].is_string(),
            "{panel:#}"
        );
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            let of_query: Vec<&str> = names.find_iter(query).map(|found| found.as_str()).collect();
            assert!(!of_query.is_empty(), "{title}: {query}");
            for name in of_query {
                // Others than ours have such metrics, too.
                let is_ours = !name.starts_with("process_")
                    || query.contains(&format!(r#"{name}{{job=~".*ovenbird.*"}}"#));
                assert!(is_ours, "{title}: {query} shows every process of the Prometheus");
                let metric =
                    known.get(name).unwrap_or_else(|| panic!("{title}: {name} is in no list"));
                for found in labels.captures_iter(query) {
                    let found = found.get(1).or(found.get(2)).unwrap().as_str();
                    for label in found.split(", ").filter(|label| !ADDED.contains(label)) {
                        assert!(metric.labels.contains(label), "{title}: {name} has no {label}");
                    }
                }
                asked.insert(name.to_owned());
            }
        }
    }
    // Nothing is measured that nobody looks at.
    for (name, metric) in &metrics {
        let looked_at = series(name, metric).iter().any(|series| asked.contains(series));
        assert!(looked_at, "{name} is on no panel");
    }
}
