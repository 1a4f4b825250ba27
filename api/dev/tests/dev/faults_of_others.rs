//! The ten faults that users of the closest pipeline (Redis pop, worker in the API, host) live with, and where
//! each one is tested here. The tests of this file are named after them.
//!
//! 1. A long call sits behind a transport timeout of 45 s: [`fault_1_step_may_be_silent_for_a_minute`].
//! 2. A step has 30 s; a recipe is parsed after the boot, and up to its first error:
//!    [`fault_2_recipe_is_refused_with_all_its_errors_before_anything_boots`].
//! 3. Rebuilding a name loses the template's row and says success:
//!    [`fault_3_rebuild_of_a_name_publishes_a_second_template_and_moves_the_tag`].
//! 4. Status updates have no guard, so that a cancel is overwritten:
//!    [`fault_4_cancel_kills_the_command_proves_the_end_of_its_sandbox_and_is_never_overwritten`]; every other way to
//!    overwrite one, in `db`: `nothing_but_the_end_of_the_sandbox_ends_a_build_that_is_being_cancelled`.
//! 5. A crash leaves `running` for ever, loses the job and leaks microVMs: `cargo dev faults`, and in `bridge`:
//!    `fault_5_expired_lease_requeues_then_fails_as_lost_and_says_so_in_the_log`,
//!    `job_that_was_acknowledged_without_a_claim_comes_again`,
//!    `sandboxes_that_no_build_needs_are_destroyed_and_the_others_stay`.
//! 6. A healthcheck has no deadline, and no log: [`fault_6_healthcheck_ends_and_its_attempts_and_start_are_in_the_log`];
//!    that it always ends, in `runner`: `always_ends_within_its_deadline`.
//! 7. Logs are one column that is rewritten whole, silent while a step runs, and part of every list:
//!    [`fault_7_list_tells_no_logs`], `a_line_is_seen_over_sse_while_its_step_still_runs`.
//! 8. COPY re-owns whole directories and breaks on spaces:
//!    `fault_8_large_context_lands_whole_with_owner_and_mode_though_its_runner_is_killed_in_the_middle`; in `recipe`: the
//!    corpus.
//! 9. Step numbers count hidden steps: `fault_9_failed_step_is_reported_with_its_number_and_the_tail_of_its_output`.
//! 10. Cancel works only on the replica that runs the build, and a deleted template stays on hosts that were away:
//!     [`fault_10_cancel_needs_nobody_who_runs_the_build`]; in `api`:
//!     `cancel_of_a_running_build_is_heard_at_once_whichever_replica_takes_it`; in `bridge`:
//!     `template_deleted_while_its_host_was_away_goes_when_it_is_back`.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use ovenbird_dev::build::{follow, follow_existing};
use serde_json::{Value, json};

use crate::platform::Stage;

const MEMORY_MB: u32 = 256;

fn build(name: &str, recipe: &[&str]) -> Value {
    json!({ "name": name, "memory_mb": MEMORY_MB, "recipe": recipe })
}

fn texts(records: &[Value]) -> Vec<&str> {
    records.iter().filter_map(|record| record["text"].as_str()).collect()
}

/// Submits a build and waits until its step says `begun`.
async fn begun(stage: &Stage, request: &Value) -> String {
    let build = stage.api.build_create(request).await.unwrap();
    let id = build["id"].as_str().unwrap().to_owned();
    let mut stream = std::pin::pin!(stage.api.logs_stream(&id, 0).await.unwrap());
    let reading = async {
        while let Some(record) = stream.next().await {
            if record.unwrap()["text"] == "begun" {
                return;
            }
        }
        panic!("the build ended before its step began");
    };
    tokio::time::timeout(Duration::from_secs(300), reading).await.unwrap();
    id
}

#[tokio::test]
async fn fault_1_step_may_be_silent_for_a_minute() {
    let stage = Stage::set().await;
    let request = build("silent", &["RUN sleep 60; echo done"]);
    let ended = follow(&stage.api, &request, |_| {}).await.unwrap();
    assert_eq!(ended.status(), "succeeded", "{}", ended.reason());
    assert!(texts(&ended.records).contains(&"done"));
    assert!(ended.total > Duration::from_secs(60));
    stage.strike().await;
}

#[tokio::test]
async fn fault_2_recipe_is_refused_with_all_its_errors_before_anything_boots() {
    let stage = Stage::set().await;
    let request = build("wrong", &["RUN true", "FLY away", "WORKDIR", "RUN --timeout=9y true"]);
    let refused = stage.api.build_create(&request).await.unwrap_err().to_string();
    assert!(refused.contains("422"), "{refused}");
    for line in [2, 3, 4] {
        assert!(refused.contains(&format!("\"line\":{line}")), "line {line} in {refused}");
    }
    let listed = stage.api.builds().await.unwrap();
    assert!(listed.is_empty(), "{listed:?}");
    assert!(stage.host.sandboxes().await.unwrap().is_empty());
    stage.strike().await;
}

#[tokio::test]
async fn fault_3_rebuild_of_a_name_publishes_a_second_template_and_moves_the_tag() {
    let stage = Stage::set().await;
    let mut templates = Vec::new();
    for word in ["first", "second"] {
        let recipe = format!("RUN echo {word} > /etc/word");
        let ended = follow(&stage.api, &build("again", &[&recipe]), |_| {}).await.unwrap();
        assert_eq!(ended.status(), "succeeded", "{}", ended.reason());
        templates.push(ended.template().unwrap().to_owned());
    }
    let listed = stage.api.templates().await.unwrap();
    let tags_of = |id: &str| {
        let found = listed.iter().find(|template| template["id"] == id);
        found.unwrap_or_else(|| panic!("{id} is lost: {listed:?}"))["tags"].clone()
    };
    assert_eq!(tags_of(&templates[0]), json!([]), "the old one is kept, without the tag");
    assert_eq!(tags_of(&templates[1]), json!(["latest"]));
    for (template, word) in templates.iter().zip(["first\n", "second\n"]) {
        let sandbox = stage.host.start(template, 256).await.unwrap();
        let said = stage.host.exec(&sandbox.id, "cat /etc/word").await.unwrap();
        assert_eq!(String::from_utf8_lossy(&said.stdout), word);
        stage.host.destroy(&sandbox.id).await.unwrap();
    }
    // A further build from the name starts from the second one.
    let mut request = build("on-top", &["RUN cat /etc/word"]);
    request["base_template"] = json!("again");
    let ended = follow(&stage.api, &request, |_| {}).await.unwrap();
    assert!(texts(&ended.records).contains(&"second"), "{}", ended.reason());
    stage.strike().await;
}

#[tokio::test]
async fn fault_4_cancel_kills_the_command_proves_the_end_of_its_sandbox_and_is_never_overwritten() {
    let stage = Stage::set().await;
    let id = begun(&stage, &build("doomed", &["RUN echo begun; sleep 3600", "RUN never"])).await;
    let asked = Instant::now();
    let answer = stage.api.build_cancel(&id, "a newer commit").await.unwrap();
    assert_eq!(answer["status"], "cancelling");
    let again = stage.api.build_cancel(&id, "another reason").await.unwrap();
    assert_eq!(again["cancel"], answer["cancel"], "who and why of the first stay");
    let ended = follow_existing(&stage.api, &id, asked, |_| {}).await.unwrap();
    println!("from the cancel to the terminal record: {:?}", ended.total);
    assert_eq!(ended.status(), "cancelled", "{}", ended.build);
    assert!(stage.host.sandboxes().await.unwrap().is_empty());
    let cancel = &ended.build["cancel"];
    assert_eq!(cancel["why"], "a newer commit");
    assert!(cancel["by"].as_str().unwrap().starts_with("key_"));
    assert!(ended.build["sandbox_destroyed_at"].as_str() >= cancel["at"].as_str());
    assert!(ended.build.get("template_id").is_none() && ended.build.get("reason").is_none());
    let said = texts(&ended.records);
    assert!(said.last().unwrap().starts_with("cancelled by key_"), "{said:?}");
    assert_eq!(ended.records.last().unwrap()["end"]["status"], "cancelled");
    assert!(!ended.records.iter().any(|record| record["step"] == 2), "the next step left a trace");

    // While the template is written, too: it is never published.
    let big = build("doomed-late", &["RUN dd if=/dev/zero of=/var/big bs=1M count=64"]);
    let created = stage.api.build_create(&big).await.unwrap();
    let id = created["id"].as_str().unwrap();
    {
        let mut stream = std::pin::pin!(stage.api.logs_stream(id, 0).await.unwrap());
        while let Some(record) = stream.next().await {
            if record.unwrap()["text"] == "writing the image template" {
                break;
            }
        }
    }
    let answer = stage.api.build_cancel(id, "too late?").await.unwrap();
    let ended = follow_existing(&stage.api, id, Instant::now(), |_| {}).await.unwrap();
    assert_eq!((&answer["status"], ended.status()), (&json!("cancelling"), "cancelled"));
    let listed = stage.api.templates().await.unwrap();
    assert!(listed.iter().all(|template| template["name"] == "minimal"), "{listed:?}");
    assert!(ended.build["sandbox_destroyed_at"].is_string());

    // It may be submitted again.
    let retried = stage.api.build_retry(id).await.unwrap();
    assert_eq!((&retried["retry_of"], &retried["status"]), (&json!(id), &json!("queued")));
    stage.api.build_cancel(retried["id"].as_str().unwrap(), "enough").await.unwrap();
    let id = retried["id"].as_str().unwrap();
    let ended = follow_existing(&stage.api, id, Instant::now(), |_| {}).await.unwrap();
    assert_eq!(ended.status(), "cancelled");
    stage.strike().await;
}

#[tokio::test]
async fn fault_6_healthcheck_ends_and_its_attempts_and_start_are_in_the_log() {
    let stage = Stage::set().await;
    let mut request = build("ill", &["START echo serving; exec sleep 3600"]);
    request["healthcheck"] = json!("--interval=100ms --retries=3 echo not yet; exit 7");
    let ended = follow(&stage.api, &request, |_| {}).await.unwrap();
    assert_eq!(ended.status(), "failed");
    let reason = &ended.build["reason"];
    assert_eq!(reason["code"], "health_failed", "{reason}");
    assert!(reason["tail"].as_str().unwrap().contains("not yet"), "{reason}");
    let said = texts(&ended.records);
    assert!(said.contains(&"serving"), "{said:?}");
    for nth in 1..=3 {
        let attempt = format!("healthcheck attempt {nth}: exit code 7");
        assert!(said.iter().any(|text| text.starts_with(&attempt)), "{attempt} in {said:?}");
    }
    assert_eq!(said.iter().filter(|text| **text == "not yet").count(), 3);

    let mut request = build("dead", &["START echo last words; exit 9"]);
    request["healthcheck"] = json!("--interval=100ms --retries=500 false");
    let refused = stage.api.build_create(&request).await.unwrap_err().to_string();
    assert!(refused.contains("duration_out_of_bounds"), "no check may go on for ever: {refused}");
    request["healthcheck"] = json!("--interval=100ms --retries=100 false");
    let ended = follow(&stage.api, &request, |_| {}).await.unwrap();
    let reason = &ended.build["reason"];
    assert_eq!((ended.status(), &reason["code"]), ("failed", &json!("start_died")), "{reason}");
    assert!(reason["tail"].as_str().unwrap().contains("last words"), "{reason}");
    stage.strike().await;
}

#[tokio::test]
async fn fault_7_list_tells_no_logs() {
    let stage = Stage::set().await;
    let chatty = build("chatty", &["RUN i=0; while [ $i -lt 5000 ]; do echo $i; i=$((i+1)); done"]);
    let ended = follow(&stage.api, &chatty, |_| {}).await.unwrap();
    assert_eq!(ended.status(), "succeeded", "{}", ended.reason());
    let step = ended.build["logs"].as_array().unwrap().iter().find(|log| log["step"] == 1).unwrap();
    let kept = step["stdout"].as_str().unwrap();
    assert!(kept.starts_with("0\n") && kept.trim_end().ends_with("4999"), "head and tail are kept");
    assert!(step["truncated"]["lines"].as_u64().unwrap() > 0, "{}", step["truncated"]);
    let listed = stage.api.builds().await.unwrap();
    assert_eq!(listed.len(), 1);
    assert!(listed[0].get("logs").is_none());
    assert!(listed[0].to_string().len() < 2_000, "{}", listed[0]);
    stage.strike().await;
}

#[tokio::test]
async fn fault_10_cancel_needs_nobody_who_runs_the_build() {
    let mut stage = Stage::set().await;
    let id = begun(&stage, &build("orphaned", &["RUN echo begun; sleep 3600"])).await;
    for pid in stage.pids("runner") {
        kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
    }
    let answer = stage.api.build_cancel(&id, "its runners are dead").await.unwrap();
    assert_eq!(answer["status"], "cancelling");
    // As soon as the lease of the dead runner is over.
    let ended = follow_existing(&stage.api, &id, Instant::now(), |_| {}).await.unwrap();
    println!("cancelled without a runner after {:?}", ended.total);
    assert_eq!(ended.status(), "cancelled");
    assert!(ended.build["sandbox_destroyed_at"].is_string(), "{}", ended.build);
    assert!(texts(&ended.records).last().unwrap().ends_with(": its runners are dead"));
    assert!(stage.host.sandboxes().await.unwrap().is_empty());
    stage.strike().await;
}
