//! What is noted of requests for changes.

use chrono::{TimeDelta, Utc};
use ovenbird_api::app::keys::Scope;
use ovenbird_testkit::wait_until;
use reqwest::Method;
use sea_orm::{ConnectionTrait as _, TransactionTrait as _};
use serde_json::{Value, json};

use crate::world::{SOON, World};

const AUDIT: &str = "/v1/admin/audit";
const BUILDS: &str = "/v1/admin/builds";

async fn entries(world: &World, query: &str) -> Vec<Value> {
    let page = world.get_json(&format!("{AUDIT}{query}")).await;
    page["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn every_mutation_is_noted_granted_or_refused_and_nothing_else() {
    let world = World::with_host().await;
    let reader = world.key(Scope::Read, None).await;
    let body = json!({"name": "web", "recipe": ["RUN echo password"]});
    let granted = world.request(Method::POST, BUILDS).header("x-request-id", "granted-1");
    let build: Value = granted.json(&body).send().await.unwrap().json().await.unwrap();
    world.post(BUILDS, &json!({"name": true})).await;
    let url = format!("{}{BUILDS}", world.url);
    world.client.post(&url).bearer_auth(&reader).json(&body).send().await.unwrap();
    world.client.post(&url).json(&body).send().await.unwrap();
    // What changes nothing.
    world.get(BUILDS).await;
    world.post("/v1/admin/builds/validate", &body).await;
    world.get("/nothing").await;

    let noted = entries(&world, "").await;
    let brief: Vec<_> = noted
        .iter()
        .map(|it| (it["outcome"].as_str().unwrap(), it["status"].as_u64(), it["code"].as_str()))
        .collect();
    let expected = [
        ("refused", Some(401), Some("unauthorized")),
        ("refused", Some(403), Some("forbidden")),
        ("refused", Some(422), Some("invalid")),
        ("granted", Some(201), None),
    ];
    assert_eq!(brief[1..], expected[1..]);
    assert_eq!((brief[0].0, brief[0].1), (expected[0].0, expected[0].1));
    let granted = &noted[3];
    let location = format!("{BUILDS}/{}", build["id"].as_str().unwrap());
    for (field, expected) in [
        ("actor", &build["requested_by"]),
        ("action", &json!("build_create")),
        ("target", &json!(BUILDS)),
        ("request_id", &json!("granted-1")),
        ("location", &json!(location)),
        ("address", &json!("127.0.0.1")),
    ] {
        assert_eq!(&granted[field], expected, "{field}");
    }
    assert_eq!(noted[0]["actor"], "anonymous");
    let table = "SELECT string_agg(a::text, ' ') FROM audit_log a";
    let table = world.postgres.sql("ovenbird", table).await.unwrap();
    assert!(!table.contains("password") && !table.contains(&world.admin[4..]));
}

#[tokio::test]
async fn log_is_filtered_by_actor_action_and_time_and_paged() {
    let world = World::with_host().await;
    let build = world.submit_id("a").await;
    let before = Utc::now();
    let cancel = format!("{BUILDS}/{build}/cancel");
    for _ in 0..3 {
        assert_eq!(world.post(&cancel, &json!({})).await.status(), 200);
    }
    world.client.post(format!("{}{cancel}", world.url)).send().await.unwrap();

    assert_eq!(entries(&world, "").await.len(), 5);
    assert_eq!(entries(&world, "?actor=anonymous").await.len(), 1);
    let own = entries(&world, "").await[4]["actor"].as_str().unwrap().to_owned();
    assert_eq!(entries(&world, &format!("?actor={own}&action=build_cancel")).await.len(), 3);
    assert_eq!(entries(&world, "?action=build_create").await.len(), 1);
    let since = before.format("%Y-%m-%dT%H:%M:%S%.6fZ");
    assert_eq!(entries(&world, &format!("?since={since}")).await.len(), 4);
    let later = (before + TimeDelta::hours(1)).format("%Y-%m-%dT%H:%M:%SZ");
    assert_eq!(entries(&world, &format!("?since={later}")).await.len(), 0);
    let (mut seen, mut path) = (0, format!("{AUDIT}?limit=2"));
    loop {
        let page = world.get_json(&path).await;
        seen += page["items"].as_array().unwrap().len();
        let Some(cursor) = page.get("next_cursor") else { break };
        path = format!("{AUDIT}?limit=2&cursor={}", cursor.as_str().unwrap());
    }
    assert_eq!(seen, 5);
    for wrong in [
        "actor=me",
        "actor=",
        "since=yesterday",
        "action=A-B",
        "until=2020",
        "limit=0",
        "since=-200000-01-01T00:00:00Z",
    ] {
        let response = world.get(&format!("{AUDIT}?{wrong}")).await;
        assert_eq!(response.status(), 400, "{wrong}");
    }
}

#[tokio::test]
async fn change_that_cannot_be_noted_is_not_made() {
    let world = World::with_host().await;
    let sql = |text: &'static str| world.postgres.sql("ovenbird", text);
    sql("ALTER TABLE audit_log RENAME TO audit_log_away").await.unwrap();
    let response = world.post(BUILDS, &json!({"name": "a", "recipe": ["RUN true"]})).await;
    assert_eq!(response.status(), 500);
    assert_eq!(world.builds().await, "0");
    assert_eq!(world.get(BUILDS).await.status(), 200, "reading needs no entry");
    sql("ALTER TABLE audit_log_away RENAME TO audit_log").await.unwrap();
    world.submit("a").await;
}

#[tokio::test]
async fn change_whose_client_goes_away_is_made_and_its_end_is_noted() {
    let world = World::with_host().await;
    let tx = world.store.connection().begin().await.unwrap();
    tx.execute_unprepared("LOCK TABLE template_builds IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let body = json!({"name": "a", "recipe": ["RUN true"]});
    let client = tokio::spawn(world.request(Method::POST, BUILDS).json(&body).send());
    wait_until("the change to begin", SOON, || async { entries(&world, "").await.len() == 1 })
        .await;
    assert_eq!(entries(&world, "").await[0]["outcome"], "open");
    client.abort();
    tx.commit().await.unwrap();
    wait_until("the change to have its end", SOON, || async {
        entries(&world, "").await[0]["status"] == 201
    })
    .await;
    assert_eq!(world.builds().await, "1");
}
