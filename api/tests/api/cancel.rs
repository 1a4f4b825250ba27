//! Cancel and retry, as far as the api goes: what becomes of the sandbox is the runner's and the bridge's.

use std::time::Duration;

use futures::StreamExt as _;
use ovenbird_api::app::keys::Scope;
use ovenbird_contract::{
    build::{Reason, ReasonCode},
    desk::{Outcome, Published, TemplateKind},
    id::{BuildId, RunnerId},
};
use ovenbird_db::store::{claim, finish, lease::Holder};
use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{SOON, World};

async fn running(world: &World, name: &str) -> Holder {
    let (build, runner) = (world.submit_id(name).await, RunnerId::new());
    let request = claim::Request { build, attempt: 1, runner, lease: Duration::from_secs(600) };
    world.store.build_claim(&request).await.unwrap().unwrap();
    Holder { build, attempt: 1, runner }
}

async fn ended(world: &World, name: &str, outcome: Outcome) -> BuildId {
    let holder = running(world, name).await;
    let build = holder.build;
    let request = finish::Request { holder, outcome };
    world.store.build_finish(&request).await.unwrap().unwrap();
    build
}

fn failure() -> Outcome {
    let message = "step 1 failed".into();
    Outcome::Failed {
        reason: Reason { code: ReasonCode::StepFailed, message, step: Some(1), tail: None },
    }
}

fn success() -> Outcome {
    Outcome::Succeeded(Published {
        kind: TemplateKind::Image,
        size_bytes: 7,
        default_env: [].into(),
        default_user: None,
    })
}

async fn post(world: &World, build: &BuildId, what: &str, body: &Value) -> (u16, Value) {
    let response = world.post(&format!("/v1/admin/builds/{build}/{what}"), body).await;
    (response.status().as_u16(), response.json().await.unwrap())
}

async fn retry(world: &World, build: &BuildId, key: Option<&str>) -> (u16, Value) {
    let path = format!("/v1/admin/builds/{build}/retry");
    let mut request = world.request(Method::POST, &path);
    if let Some(key) = key {
        request = request.header("Idempotency-Key", key);
    }
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn queued_build_is_cancelled_at_once_and_a_second_cancel_changes_nothing() {
    let world = World::with_host().await;
    let build = world.submit_id("web").await;
    let (status, first) = post(&world, &build, "cancel", &json!({"why": " a newer commit "})).await;
    assert_eq!((status, &first["status"]), (200, &json!("cancelled")), "{first}");
    assert_eq!(first["cancel"]["why"], "a newer commit");
    assert!(first["cancel"]["at"].is_string() && first["completed_at"].is_string());
    assert_eq!(first["cancel"]["by"], first["requested_by"]);
    assert!(first.get("sandbox_destroyed_at").is_none(), "there was no sandbox");
    assert_eq!(first["links"]["retry"], format!("/v1/admin/builds/{build}/retry"));
    assert!(first["links"].get("cancel").is_none());

    let other = world.key(Scope::Admin, None).await;
    let url = format!("{}/v1/admin/builds/{build}/cancel", world.url);
    let again = world.client.post(url).bearer_auth(other).json(&json!({"why": "another"}));
    let again = again.send().await.unwrap();
    assert_eq!(again.status(), 200);
    assert_eq!(again.json::<Value>().await.unwrap(), first, "who and why of the first stay");
    assert_eq!(world.get_json(&format!("/v1/admin/builds/{build}")).await, first);
}

#[tokio::test]
async fn cancel_of_a_running_build_is_heard_at_once_whichever_replica_takes_it() {
    let world = World::with_host().await;
    let replica = world.replica().await;
    let holder = running(&world, "web").await;
    let client = async_nats::connect(world.nats.url()).await.unwrap();
    let mut control = client.subscribe(world.names.control(&holder.build)).await.unwrap();
    client.flush().await.unwrap();
    let url = format!("{}/v1/admin/builds/{}/cancel", replica.url, holder.build);
    // Without a body: the reason may be left out.
    let answer = world.client.post(url).bearer_auth(&world.admin).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["status"], "cancelling");
    assert!(answer["cancel"].get("why").is_none());
    tokio::time::timeout(SOON, control.next()).await.expect("the runner hears of it").unwrap();
    let renewed = world.store.build_renew(&holder, SOON).await.unwrap();
    assert_eq!(renewed, Ok(true), "Postgres knew before");
    let (status, second) = post(&world, &holder.build, "cancel", &json!({"why": "x"})).await;
    assert_eq!((status, second), (200, answer));
    replica.stop().await;
}

#[tokio::test]
async fn cancel_needs_only_postgres() {
    let mut world = World::with_host().await;
    let holder = running(&world, "web").await;
    world.nats.kill9();
    world.redis.kill9();
    let (status, answer) = post(&world, &holder.build, "cancel", &json!({})).await;
    assert_eq!((status, &answer["status"]), (200, &json!("cancelling")));
}

#[tokio::test]
async fn cancel_after_the_end_is_refused_and_changes_nothing() {
    let world = World::with_host().await;
    for (name, outcome) in [("a", success()), ("b", failure())] {
        let build = ended(&world, name, outcome).await;
        let path = format!("/v1/admin/builds/{build}");
        let before = world.get_json(&path).await;
        let (status, answer) = post(&world, &build, "cancel", &json!({"why": "late"})).await;
        assert_eq!((status, &answer["error"]["code"]), (409, &json!("build_over")), "{answer}");
        assert_eq!(world.get_json(&path).await, before);
        assert!(before.get("cancel").is_none() && before["links"].get("cancel").is_none());
    }
    let unknown = BuildId::new();
    for what in ["cancel", "retry"] {
        assert_eq!(post(&world, &unknown, what, &json!({})).await.0, 404, "{what}");
    }
}

#[tokio::test]
async fn reason_of_a_cancel_is_one_line_of_bounded_length() {
    let world = World::with_host().await;
    let build = world.submit_id("web").await;
    let cases = [
        (json!({"why": "x".repeat(501)}), "why", "wrong_length"),
        (json!({"why": "two\nlines"}), "why", "wrong_form"),
        (json!({"why": "a\u{0}b"}), "why", "wrong_form"),
        (json!({"why": 7}), "why", "wrong_type"),
        (json!({"reason": "x"}), "reason", "unknown_field"),
        (json!([]), "body", "wrong_type"),
    ];
    for (body, field, code) in cases {
        let (status, answer) = post(&world, &build, "cancel", &body).await;
        let detail = &answer["error"]["details"][0];
        assert_eq!((status, &detail["field"], &detail["code"]), (422, &json!(field), &json!(code)));
    }
    let path = format!("/v1/admin/builds/{build}");
    assert_eq!(world.get_json(&path).await["status"], "queued");
    let longest = "ü".repeat(500);
    let (status, answer) = post(&world, &build, "cancel", &json!({"why": longest})).await;
    assert_eq!((status, &answer["cancel"]["why"]), (200, &json!(longest)));
}

#[tokio::test]
async fn retry_submits_the_same_again_as_a_build_that_names_the_old_one() {
    let world = World::with_host().await;
    let body = json!({
        "name": "web", "tag": "v1", "base_template": "minimal:latest", "vcpus": 2, "memory_mb": 1024,
        "recipe": ["ENV A=b", {"type": "RUN", "args": ["make"], "retries": 1}],
        "healthcheck": "--retries=3 true", "disk_mb": 2048, "skip_hooks": true,
    });
    let old: Value = world.post("/v1/admin/builds", &body).await.json().await.unwrap();
    let id: BuildId = old["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(retry(&world, &id, None).await.1["error"]["code"], "build_not_ended");
    post(&world, &id, "cancel", &json!({})).await;

    let (status, new) = retry(&world, &id, Some("once")).await;
    assert_eq!(status, 201, "{new}");
    assert_ne!(new["id"], old["id"]);
    assert_eq!((&new["retry_of"], &new["status"]), (&old["id"], &json!("queued")));
    assert_eq!(new["links"]["retry_of"], old["links"]["self"]);
    for field in [
        "name",
        "tag",
        "base_template",
        "recipe",
        "healthcheck",
        "vcpus",
        "memory_mb",
        "disk_mb",
        "lane",
        "total_steps",
    ] {
        assert_eq!(new[field], old[field], "{field}");
    }
    let rows = "SELECT count(DISTINCT (plan, plan_digest, skip_hooks)) FROM template_builds";
    assert_eq!(world.postgres.sql("ovenbird", rows).await.unwrap(), "1");
    let (status, again) = retry(&world, &id, Some("once")).await;
    assert_eq!((status, &again["id"]), (201, &new["id"]), "the same key, the same build");
    let other: BuildId = ended(&world, "other", failure()).await;
    assert_eq!(retry(&world, &other, Some("once")).await.0, 409, "the key of another submission");
    // A submission is another operation, even when everything in it is the same.
    let same = world.request(Method::POST, "/v1/admin/builds").header("Idempotency-Key", "once");
    let same: Value = same.json(&body).send().await.unwrap().json().await.unwrap();
    assert!(same["id"].is_string() && same["id"] != new["id"]);
    let (status, third) = retry(&world, &id, None).await;
    assert_eq!(status, 201);
    assert_ne!(third["id"], new["id"]);
}

#[tokio::test]
async fn only_what_failed_or_was_cancelled_is_retried_and_from_the_base_of_today() {
    let world = World::with_host().await;
    let done = ended(&world, "base", success()).await;
    for build in [done, running(&world, "runs").await.build, world.submit_id("waits").await] {
        let (status, answer) = retry(&world, &build, None).await;
        assert_eq!(
            (status, &answer["error"]["code"]),
            (409, &json!("build_not_ended")),
            "{answer}"
        );
    }
    let body = json!({"name": "top", "base_template": "base", "recipe": ["RUN true"]});
    let old: Value = world.post("/v1/admin/builds", &body).await.json().await.unwrap();
    let old: BuildId = old["id"].as_str().unwrap().parse().unwrap();
    post(&world, &old, "cancel", &json!({})).await;
    // The name points to another template by now.
    ended(&world, "base", success()).await;
    assert_eq!(retry(&world, &old, None).await.0, 201);
    let bases = "SELECT count(DISTINCT base_template_id) FROM template_builds WHERE name = 'top'";
    assert_eq!(world.postgres.sql("ovenbird", bases).await.unwrap(), "2");
    world
        .postgres
        .sql("ovenbird", "UPDATE templates SET deleted_at = now() WHERE name = 'base'")
        .await
        .unwrap();
    let (status, answer) = retry(&world, &old, None).await;
    assert_eq!((status, &answer["error"]["details"][0]["code"]), (422, &json!("unknown_template")));
}
