//! What a build may not do without end: write, and run.

use std::time::{Duration, Instant};

use ovenbird_dev::{build::follow, platform::Options};
use serde_json::json;

use crate::platform::Stage;

#[tokio::test]
async fn step_that_writes_megabytes_and_fails_has_its_head_and_its_tail_in_the_log() {
    const LINES: u64 = 120_000;
    let options = Options { log_step_bytes: Some(256 * 1024), ..Options::default() };
    let stage = Stage::set_with(options).await;
    let line = "0123456789".repeat(10)[1..].to_owned();
    let flood = format!("RUN echo first; yes {line} | head -n {LINES}; echo last; exit 3");
    let request = json!({ "name": "loud", "memory_mb": 256, "recipe": [flood, "RUN never"] });
    let ended = follow(&stage.api, &request, |_| {}).await.unwrap();
    println!("twelve megabytes of output after {:?}", ended.total);
    let reason = &ended.build["reason"];
    assert_eq!((&reason["code"], &reason["step"]), (&json!("step_failed"), &json!(1)), "{reason}");
    assert!(reason["tail"].as_str().unwrap().ends_with("\nlast"), "{reason}");

    let seqs: Vec<u64> =
        ended.records.iter().map(|record| record["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>(), "a gap or a duplicate");
    let of = |stream: &str| {
        let records = ended.records.iter().filter(|record| record["stream"] == stream);
        records.map(|record| record["text"].as_str().unwrap()).collect::<Vec<_>>()
    };
    let output = of("stdout");
    assert_eq!((output[0], output[1], *output.last().unwrap()), ("first", line.as_str(), "last"));
    let logged = output.iter().map(|text| text.len() as u64 + 1).sum::<u64>();
    assert!((256 * 1024..400 * 1024).contains(&logged), "{logged}");
    let step = ended.build["logs"].as_array().unwrap().iter().find(|log| log["step"] == 1).unwrap();
    let cut = &step["log_truncated"];
    let (bytes, lines) = (cut["bytes"].as_u64().unwrap(), cut["lines"].as_u64().unwrap());
    let whole = LINES * 100 + "first\nlast\n".len() as u64;
    assert_eq!((logged + bytes, output.len() as u64 + lines), (whole, LINES + 2));
    let said = format!("{bytes} bytes, {lines} lines are left out so far");
    assert!(of("system").iter().any(|text| text.contains(&said)), "{:#?}", of("system"));
    let kept = step["stdout"].as_str().unwrap();
    assert!(kept.starts_with("first\n") && kept.ends_with("\nlast\n"), "head and tail are kept");
    assert!(step["truncated"]["bytes"].as_u64().unwrap() > bytes, "{step}");
    stage.strike().await;
}

#[tokio::test]
async fn build_over_its_time_fails_with_its_reason_and_leaves_no_sandbox() {
    let limit = Duration::from_secs(60);
    let options = Options { build_time_max: Some(limit), ..Options::default() };
    let stage = Stage::set_with(options).await;
    let request = json!({
        "name": "endless", "memory_mb": 256,
        "recipe": ["RUN --timeout=1h --retries=5 echo begun; sleep 3600", "RUN never"],
    });
    let begun = Instant::now();
    let ended = follow(&stage.api, &request, |_| {}).await.unwrap();
    println!("ended {:?} after it was submitted", begun.elapsed());
    assert_eq!(ended.status(), "failed");
    let reason = &ended.build["reason"];
    assert_eq!(
        (&reason["code"], &reason["step"]),
        (&json!("build_timeout"), &json!(1)),
        "{reason}"
    );
    let message = reason["message"].as_str().unwrap();
    assert!(message.contains("1m") && message.contains("step 1 (RUN"), "{message}");
    assert_eq!(reason["tail"], "begun");
    assert_eq!(ended.build["attempt"], 1, "it is not tried again");
    assert!(stage.host.sandboxes().await.unwrap().is_empty());
    assert!(begun.elapsed() < limit * 4);
    stage.strike().await;
}
