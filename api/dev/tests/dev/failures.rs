//! What a user sees of a step that goes wrong, and what is left of it: nothing.

use std::time::{Duration, Instant};

use ovenbird_dev::build::follow;
use serde_json::json;

use crate::platform::Stage;

#[tokio::test]
async fn fault_9_failed_step_is_reported_with_its_number_and_the_tail_of_its_output() {
    let stage = Stage::set().await;
    let request = json!({
        "name": "fails", "memory_mb": 256,
        "recipe": ["# a comment is no step", "ENV A=b", "RUN echo going well; echo but then >&2; exit 3", "RUN never"],
    });
    let ended = follow(&stage.api, &request, |_| {}).await.unwrap();
    assert_eq!(ended.status(), "failed");
    let reason = &ended.build["reason"];
    assert_eq!((&reason["code"], &reason["step"]), (&json!("step_failed"), &json!(2)), "{reason}");
    assert!(reason["message"].as_str().unwrap().contains('3'), "{reason}");
    let tail = reason["tail"].as_str().unwrap();
    assert!(tail.contains("going well") && tail.contains("but then"), "{reason}");
    assert_eq!(ended.build["template_id"].as_str(), None);
    let never = ended.records.iter().any(|record| record["step"] == 3);
    assert!(!never, "a step after the failed one left a trace");
    stage.strike().await;
}

#[tokio::test]
async fn step_over_its_time_is_killed_with_its_children() {
    let stage = Stage::set().await;
    let started = Instant::now();
    // The child holds the step's output open: were it not killed, the step would last as long as it.
    let request = json!({
        "name": "slow", "memory_mb": 256,
        "recipe": ["RUN --timeout=1s echo begun; sleep 3601 & sleep 3600"],
    });
    let ended = follow(&stage.api, &request, |_| {}).await.unwrap();
    let reason = &ended.build["reason"];
    assert_eq!((&reason["code"], &reason["step"]), (&json!("step_timeout"), &json!(1)), "{reason}");
    assert!(started.elapsed() < Duration::from_secs(120));

    let sandbox = stage.host.start("minimal", 256).await.unwrap();
    let error =
        stage.host.exec_within(&sandbox.id, "sleep 3601 & sleep 3600", 1).await.unwrap_err();
    assert!(format!("{error:#}").to_lowercase().contains("deadline"), "{error:#}");
    let count = "grep -lx sleep /proc/[0-9]*/comm | wc -l";
    let sleeping = stage.host.exec(&sandbox.id, count).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&sleeping.stdout).trim(), "0", "a child survived");
    stage.host.destroy(&sandbox.id).await.unwrap();
    stage.strike().await;
}
