//! What a build leaves for whoever runs Ovenbird: one trace through all processes, log lines with its ids, and numbers.

use std::{collections::BTreeSet, time::Duration};

use ovenbird_dev::platform::{Options, member::Kind, part::Part};
use ovenbird_testkit::{prometheus, wait_for};
use serde_json::{Map, Value, json};

use crate::{
    collector::{Collector, Span},
    platform::Stage,
};

/// A build, this machine's load considered.
const LONG: Duration = Duration::from_secs(240);
const SERVICES: [&str; 4] =
    ["ovenbird-api", "ovenbird-bridge", "ovenbird-runner", "ovenbird-agent"];

/// Waits until a record of the build's log contains `text`.
async fn logged(stage: &Stage, id: &str, text: &str) {
    wait_for(&format!("{text:?} in the log"), LONG, || async {
        let page = stage.api.logs(id, 1, 1000).await.ok()?;
        let records = page["records"].as_array()?;
        let is = |record: &Value| record["text"].as_str().is_some_and(|it| it.contains(text));
        records.iter().any(is).then_some(())
    })
    .await
    .unwrap();
}

/// Every line of a process's log, each an object.
fn lines(stage: &Stage, process: &str) -> Vec<Map<String, Value>> {
    let file = stage.platform.logs().join(format!("{process}.log"));
    let text = std::fs::read_to_string(file).unwrap();
    let object = |line: &str| {
        serde_json::from_str(line).unwrap_or_else(|_| panic!("{process} says {line:?}"))
    };
    text.lines().map(object).collect()
}

/// The runner, from 0, whose log says that it has claimed the build.
async fn runner_of(stage: &Stage, id: &str) -> usize {
    let claimed =
        |line: &Map<String, Value>| line["message"] == "build claimed" && line["build_id"] == id;
    wait_for("a runner that has the build", LONG, || async {
        (0..2).find(|at| lines(stage, &format!("runner-{}", at + 1)).iter().any(claimed))
    })
    .await
    .unwrap()
}

/// The names of a span and of everything around it, from the inside.
fn path<'a>(spans: &'a [Span], mut span: &'a Span) -> Vec<&'a str> {
    let mut path = vec![span.name.as_str()];
    while !span.parent.is_empty() {
        let around = spans.iter().find(|other| other.id == span.parent);
        span = around.unwrap_or_else(|| panic!("nothing is around {span:#?}"));
        path.push(&span.name);
    }
    path
}

#[tokio::test]
async fn build_is_one_trace_through_all_processes_also_when_another_runner_goes_on_with_it() {
    let collector = Collector::start().await;
    let options =
        Options { otlp_port: Some(collector.port), json_logs: true, ..Options::default() };
    let mut stage = Stage::set_with(options).await;
    let request = json!({
        "name": "traced", "memory_mb": 256,
        "recipe": [
            "ENV SECRET_OF_RECIPE=never-in-a-trace",
            "RUN --retries=1 test -e /root/tried || { touch /root/tried; exit 3; }",
            "RUN i=0; while [ $i -lt 30 ]; do i=$((i+1)); echo \"line $i\"; sleep 1; done",
        ],
    });
    let build = stage.api.build_create(&request).await.unwrap();
    let id = build["id"].as_str().unwrap().to_owned();
    logged(&stage, &id, "line 2").await;
    let at = runner_of(&stage, &id).await;
    let patience = Kind::Runner.patience();
    stage.platform.terminate(Part::Member(Kind::Runner, at), patience).await.unwrap();
    let ended = wait_for("the build's end", LONG, || async {
        let build = stage.api.build_get(&id).await.ok()?;
        (build["completed_at"] != Value::Null).then_some(build)
    })
    .await
    .unwrap();
    assert_eq!(
        (&ended["status"], &ended["attempt"]),
        (&json!("succeeded"), &json!(2)),
        "{ended:#}"
    );

    // Each process sends its own, in its own time.
    let spans = wait_for("all of the trace", LONG, || async {
        let spans = collector.spans();
        let ids: BTreeSet<&str> = spans.iter().map(|span| span.id.as_str()).collect();
        let is_last = |span: &Span| span.name == "attempt" && span.field("ending") == "succeeded";
        let is_all = spans.iter().any(is_last)
            && spans.iter().any(|span| span.name == "desk finish")
            && spans.iter().any(|span| span.name == "FlattenRootfs")
            && spans.iter().all(|it| it.parent.is_empty() || ids.contains(&*it.parent));
        is_all.then_some(spans)
    })
    .await
    .unwrap_or_else(|error| panic!("{error}: {:#?}", collector.spans()));
    let trace = whole(&spans, &id);
    numbers(&stage, at).await;
    let other = format!("runner-{}", 2 - at);
    for process in ["api", "bridge", &format!("runner-{}", at + 1), &other, "agent-1"] {
        let lines = lines(&stage, process);
        let of_build: Vec<_> = lines
            .iter()
            .filter(|line| line.get("build_id").is_some_and(|it| *it == id))
            .filter(|line| line.contains_key("span"))
            .collect();
        assert!(!of_build.is_empty(), "{process} says nothing of the build: {lines:#?}");
        for line in of_build {
            assert_eq!(line.get("trace_id"), Some(&json!(trace)), "{process}: {line:#?}");
            assert!(process == "api" || line["attempt"].is_u64(), "{process}: {line:#?}");
        }
    }
    stage.strike().await;
}

/// The spans of the build are one tree, and nothing else did anything in a trace but the api. Answers with the id.
fn whole(spans: &[Span], build: &str) -> String {
    let (api, others): (Vec<_>, Vec<_>) =
        spans.iter().partition(|span| span.service == "ovenbird-api");
    let root = api.iter().find(|span| span.name == "build_create").expect("the api's request");
    assert_eq!((root.parent.as_str(), root.field("build.id")), ("", build), "{root:#?}");
    let strange: Vec<_> = others.iter().filter(|span| span.trace != root.trace).collect();
    assert!(strange.is_empty(), "not of the build's trace: {strange:#?}");

    let spans: Vec<Span> = spans.iter().filter(|span| span.trace == root.trace).cloned().collect();
    let services: BTreeSet<&str> = spans.iter().map(|span| span.service.as_str()).collect();
    assert_eq!(services, BTreeSet::from(SERVICES));
    let ids: BTreeSet<&str> = spans.iter().map(|span| span.id.as_str()).collect();
    assert_eq!(ids.len(), spans.len());
    // Each of them leads to the one root.
    let paths: Vec<Vec<&str>> = spans.iter().map(|span| path(&spans, span)).collect();
    assert!(paths.iter().all(|path| path.ends_with(&["build_create"])), "{paths:#?}");
    println!("{} spans, the deepest {:?}", spans.len(), paths.iter().max_by_key(|it| it.len()));

    for expected in [
        &["desk claim", "attempt", "relay", "build_create"][..],
        &["desk finish", "attempt", "relay", "build_create"],
        &["desk release", "attempt", "relay", "build_create"],
        &["launch", "CreateSandbox", "boot", "attempt", "relay", "build_create"],
        &["StartExec", "step 3 RUN", "attempt", "relay", "build_create"],
        &["AttachExec", "step 3 RUN", "attempt", "relay", "build_create"],
        &["FlattenRootfs", "publish", "attempt", "relay", "build_create"],
    ] {
        assert!(paths.iter().any(|path| path == expected), "no {expected:?} in {paths:#?}");
    }
    let named =
        |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>().into_iter();
    let attempts: BTreeSet<(&str, &str)> =
        named("attempt").map(|span| (span.field("attempt"), span.field("ending"))).collect();
    assert_eq!(attempts, BTreeSet::from([("1", "handed_over"), ("2", "succeeded")]));
    // A step says how it ended, try by try; the one that was handed over was not over.
    let tries: BTreeSet<(&str, &str, bool)> =
        named("step 2 RUN").map(|it| (it.field("nth"), it.field("exit"), it.is_error)).collect();
    assert_eq!(tries, BTreeSet::from([("1", "3", true), ("2", "0", false)]));
    let exits: BTreeSet<&str> = named("step 3 RUN").map(|span| span.field("exit")).collect();
    assert_eq!(exits, BTreeSet::from(["", "0"]));
    assert!(named("AttachExec").any(|span| span.field("exit") == "3"));
    assert_eq!(named("step 1 ENV").count(), 1);
    assert!(!format!("{spans:?}").contains("never-in-a-trace"));
    root.trace.clone()
}

/// Every process counted its part. `first` is the runner that ended.
async fn numbers(stage: &Stage, first: usize) {
    for (process, golden, series) in [
        (
            "api",
            "api/src/metrics/names.txt",
            r#"ovenbird_api_requests_total{operation="build_create",status="201"}"#,
        ),
        (
            "bridge",
            "api/bridge/src/metrics/names.txt",
            r#"ovenbird_bridge_builds_ended_total{status="succeeded"}"#,
        ),
        (
            ["runner-2", "runner-1"][first],
            "runner/src/metrics/names.txt",
            r#"ovenbird_runner_attempts_total{ending="succeeded"}"#,
        ),
        (
            "agent-1",
            "agent/src/metrics/names.txt",
            r#"ovenbird_agent_create_duration_seconds_count{origin="boot",outcome="made"}"#,
        ),
    ] {
        let log = stage.platform.logs().join(format!("{process}.log"));
        let address = prometheus::address(&log).await.unwrap();
        let text = wait_for(series, LONG, || async {
            let text = prometheus::get(&address, "/metrics").await.ok()?;
            (prometheus::value(&text, series) == Some(1.0)).then_some(text)
        })
        .await
        .unwrap();
        let golden = std::fs::read_to_string(ovenbird_dev::tree::root().join(golden)).unwrap();
        let known: BTreeSet<&str> = golden.lines().filter_map(|it| it.split(' ').next()).collect();
        let told = prometheus::names(&text);
        let told: BTreeSet<&str> = told.lines().filter_map(|it| it.split(' ').next()).collect();
        // What has not happened may be missing; each package's own test has it all.
        assert!(told.is_subset(&known), "{process} tells {told:#?}");
        assert_eq!(prometheus::undescribed(&text), Vec::<&str>::new(), "{process}");
    }
}
