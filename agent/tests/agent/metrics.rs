//! What the agent measures of its sandboxes, and what Prometheus sees of the agent.

use ovenbird_agent::metrics::NAMES;
use ovenbird_hostagent::v1::{self as host, MetricPoint};
use ovenbird_testkit::{
    prometheus::{get, names, undescribed, value},
    wait_for,
};
use tonic::{Code, Status};

use crate::support::*;

const MIB: i64 = 1 << 20;

async fn points(host: &Host, id: &str, range: &str) -> Result<Vec<MetricPoint>, Status> {
    let request = host::GetSandboxMetricsRequest { sandbox_id: id.into(), range: range.into() };
    Ok(host.client.clone().get_sandbox_metrics(request).await?.into_inner().points)
}

async fn flush(host: &Host, id: &str) -> Result<[Vec<MetricPoint>; 3], Status> {
    let request = host::FlushSandboxMetricsRequest { sandbox_id: id.into() };
    let flushed = host.client.clone().flush_sandbox_metrics(request).await?.into_inner();
    Ok([flushed.points_10m, flushed.points_2h, flushed.points_24h])
}

/// Waits for a point of the finest range that is as it should be.
async fn point(
    host: &Host,
    id: &str,
    what: &str,
    is: impl Fn(&MetricPoint) -> bool,
) -> MetricPoint {
    wait_for(what, PATIENCE, || async {
        points(host, id, "10m").await.unwrap().into_iter().find(|point| is(point))
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn sandbox_that_works_shows_in_processor_memory_and_disk() {
    let host = Host::start().await;
    host.create("minimal", "busy").await;
    host.create("minimal", "idle").await;
    let first = point(&host, "busy", "a first point", |_| true).await;
    point(&host, "idle", "a first point", |_| true).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!((now.as_secs().cast_signed() - first.timestamp_unix).abs() < 120, "{first:?}");
    assert!((MIB..1024 * MIB).contains(&first.mem_bytes), "{first:?}");

    host.start_exec("busy", "loop", "while :; do :; done").await;
    // The idle one is looked at in the same rounds, so a busy machine slows both alike.
    point(&host, "busy", "a busy processor", |point| point.cpu_pct > 25.0).await;
    let idle = points(&host, "idle", "10m").await.unwrap();
    let least = idle.iter().map(|point| point.cpu_pct).fold(f64::INFINITY, f64::min);
    // The first point may be of a time in which the loop began.
    let works = |point: &MetricPoint| point.cpu_pct > f64::max(25.0, 3.0 * least);
    let busy = point(&host, "busy", "a processor busier than the idle one", works).await;
    println!("busy: {:.1} %, idle: {least:.1} %", busy.cpu_pct);
    assert!(busy.cpu_pct < 250.0, "one processor, and QEMU's own work: {busy:?}");

    host.shell("idle", "head -c 64M /dev/urandom > /dev/shm/memory").await;
    let before = idle.iter().map(|point| point.mem_bytes).max().unwrap();
    let grown = |point: &MetricPoint| point.mem_bytes > before + 48 * MIB;
    point(&host, "idle", "more memory", grown).await;
    let disk = idle.last().unwrap().disk_bytes;
    host.shell("idle", "head -c 64M /dev/urandom > /root/disk; sync").await;
    let grown = |point: &MetricPoint| point.disk_bytes > disk + 60 * MIB;
    point(&host, "idle", "more disk", grown).await;

    for range in ["2h", "24h"] {
        let points = points(&host, "busy", range).await.unwrap();
        assert!(points.last().unwrap().cpu_pct > 5.0, "{range}: {points:?}");
    }
    let idle_since = host.listed("idle").await.unwrap().last_active_at_unix;
    point(&host, "idle", "a point after the last use", |p| p.timestamp_unix > idle_since + 5).await;
    assert_eq!(host.listed("idle").await.unwrap().last_active_at_unix, idle_since, "no use");
    host.stop().await;
}

#[tokio::test]
async fn points_are_flushed_once_also_of_a_paused_sandbox_and_go_with_it() {
    let host = Host::start().await;
    host.create("minimal", "origin").await;
    host.snapshot("origin", "snap").await.unwrap();
    host.create("snap", "a").await;
    point(&host, "a", "a point", |_| true).await;
    for range in ["", "1h", "10M", "10m "] {
        let refused = points(&host, "a", range).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains(r#""10m", "2h", "24h""#), "{refused}");
    }
    for refused in [points(&host, "b", "10m").await.err(), flush(&host, "b").await.map(drop).err()]
    {
        assert_eq!(refused.unwrap().code(), Code::NotFound);
    }
    let bad = points(&host, "a/b", "10m").await.unwrap_err();
    assert_eq!(bad.code(), Code::InvalidArgument, "{bad}");

    host.pause("a").await.unwrap();
    let kept = points(&host, "a", "10m").await.unwrap();
    let [fine, minutes, tens] = flush(&host, "a").await.unwrap();
    assert_eq!(fine, kept);
    assert!(!minutes.is_empty() && !tens.is_empty());
    assert_eq!(flush(&host, "a").await.unwrap(), [const { Vec::new() }; 3]);
    assert!(points(&host, "a", "24h").await.unwrap().is_empty());
    host.resume("a", 0).await.unwrap();
    let after = point(&host, "a", "a point after the resume", |_| true).await;
    assert!(after.timestamp_unix > fine.last().unwrap().timestamp_unix);
    host.destroy("a").await;
    assert_eq!(points(&host, "a", "10m").await.unwrap_err().code(), Code::NotFound);
    host.stop().await;
}

#[tokio::test]
async fn prometheus_sees_the_names_of_the_golden_list_and_what_has_happened() {
    let options = Options { capacity: "vcpus = 3\nmemory_mb = 600".into(), ..Options::default() };
    let host = Host::start_with(options).await;
    let log = host.log_text();
    let line = log.lines().find(|line| line.contains("metrics are served")).unwrap();
    let address = line.split_once("address=").unwrap().1.trim().to_owned();
    assert_eq!(get(&address, "/healthz").await.unwrap(), "ok\n");

    host.create("minimal", "origin").await;
    host.snapshot("origin", "snap").await.unwrap();
    host.create("snap", "one").await;
    host.create("minimal", "two").await;
    host.pause("two").await.unwrap();
    host.shell("one", "true").await;
    host.start_exec("one", "detached", "true").await;
    let write = host::WriteFileRequest {
        sandbox_id: "one".into(),
        path: "/root/file".into(),
        content: vec![7; 1000],
        fence: None,
    };
    host.client.clone().write_file(write).await.unwrap();
    let read = host::ReadFileStreamRequest {
        sandbox_id: "one".into(),
        path: "/root/file".into(),
        ..Default::default()
    };
    let mut chunks = host.client.clone().read_file_stream(read).await.unwrap().into_inner();
    while chunks.message().await.unwrap().is_some() {}
    host.client.clone().create_sandbox(sandbox("nothing", "x")).await.unwrap_err();

    let text = wait_for("every call to be counted", PATIENCE, || async {
        let text = get(&address, "/metrics").await.unwrap();
        text.contains(r#"method="ReadFileStream""#).then_some(text)
    })
    .await
    .unwrap();
    assert_eq!(names(&text), NAMES, "agent/src/metrics/names.txt and the metrics differ");
    assert_eq!(undescribed(&text), Vec::<&str>::new());
    let of =
        |series: &str| value(&text, series).unwrap_or_else(|| panic!("no {series} in\n{text}"));
    let own = |series: &str| of(&format!("ovenbird_agent_{series}"));
    for (series, expected) in [
        (r#"sandboxes{state="running"}"#, 1.0),
        (r#"sandboxes{state="paused"}"#, 1.0),
        (r#"sandboxes{state="broken"}"#, 0.0),
        (r#"templates{type="image"}"#, 1.0),
        (r#"templates{type="snapshot"}"#, 1.0),
        ("vcpus_promised", 1.0),
        ("vcpus_total", 3.0),
        ("memory_promised_bytes", 256.0 * 1_048_576.0),
        ("memory_total_bytes", 600.0 * 1_048_576.0),
        (r#"create_duration_seconds_count{origin="boot",outcome="made"}"#, 2.0),
        (r#"create_duration_seconds_count{origin="fork",outcome="made"}"#, 1.0),
        (r#"execs_total{kind="attached"}"#, 1.0),
        (r#"execs_total{kind="detached"}"#, 1.0),
        (r#"file_bytes_total{direction="in"}"#, 1000.0),
        (r#"file_bytes_total{direction="out"}"#, 1000.0),
        (r#"calls_total{method="CreateSandbox",code="OK"}"#, 3.0),
        (r#"calls_total{method="CreateSandbox",code="NOT_FOUND"}"#, 1.0),
        (r#"calls_total{method="ReadFileStream",code="OK"}"#, 1.0),
        (r#"calls_total{method="PauseSandbox",code="OK"}"#, 1.0),
    ] {
        let found = own(series);
        assert!((found - expected).abs() < 1e-9, "{series} is {found}\n{text}");
    }
    assert!(of("process_resident_memory_bytes") > 1e6);
    for name in ["one", "two", "snap", "minimal"] {
        assert!(!text.contains(&format!("\"{name}\"")), "{name} has a series of its own\n{text}");
    }
    host.stop().await;
}
