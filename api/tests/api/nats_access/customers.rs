//! What a key opens on NATS.

use async_nats::Subscriber;
use chrono::{TimeDelta, Utc};
use futures::StreamExt as _;
use ovenbird_api::app::keys::Scope;
use ovenbird_contract::{build::Status, id::BuildId};
use serde_json::Value;

use super::party::{Party, is_refused};
use crate::world::{SOON, World};

async fn next(messages: &mut Subscriber) -> Value {
    let message = tokio::time::timeout(SOON, messages.next()).await.unwrap().unwrap();
    serde_json::from_slice(&message.payload).unwrap()
}

async fn submit(world: &World, key: &str, name: &str) -> BuildId {
    world.submit_as(key, name).await["id"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn key_that_reads_everything_joins_a_log_in_the_middle_and_has_it_gapless_with_history() {
    let world = World::guarded(|_| {}).await;
    let build = world.submit_id("joined").await;
    let mut writer = world.writer(build);
    writer.lines(300).await;
    let key = world.key(Scope::Read, None).await;
    let mut customer = Party::customer(&world, &key).await.unwrap();
    let mut live = customer.client.subscribe(world.names.logs(&build)).await.unwrap();
    let mut events = customer.client.subscribe(world.names.events(&build)).await.unwrap();
    customer.caught_up().await;
    writer.lines(300).await;
    writer.lines(7).await;
    writer.end(Status::Succeeded).await;
    let event = r#"{"type":"build.state"}"#;
    let tools = Party::role(&world, ovenbird_contract::nats_access::Role::Tools).await;
    tools.client.publish(world.names.events(&build), event.into()).await.unwrap();

    let mut heard = Vec::new();
    while heard.last().is_none_or(|record: &Value| record.get("end").is_none()) {
        heard.extend(next(&mut live).await["records"].as_array().unwrap().clone());
    }
    let first = heard[0]["seq"].as_u64().unwrap();
    assert_eq!(first, 301, "the live part begins where it was joined");
    let path = format!("/v1/admin/builds/{build}/logs?from_seq=1&limit={}", first - 1);
    let page = world.client.get(format!("{}{path}", world.url)).bearer_auth(&key);
    let page: Value = page.send().await.unwrap().json().await.unwrap();
    let history = page["records"].as_array().unwrap();
    let seqs: Vec<u64> =
        history.iter().chain(&heard).map(|record| record["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=608).collect::<Vec<_>>());
    assert_eq!(next(&mut events).await["type"], "build.state");
}

#[tokio::test]
async fn key_of_scope_build_hears_its_own_builds_only() {
    let world = World::guarded(|_| {}).await;
    let key = world.key(Scope::Build, None).await;
    let mut nobody = Party::customer(&world, &key).await.unwrap();
    for subject in [">", "ovenbird.logs.*", "_INBOX.>"] {
        nobody.must_not_subscribe(subject).await;
    }

    let own = submit(&world, &key, "own").await;
    let other = world.submit_id("other").await;
    let mut customer = Party::customer(&world, &key).await.unwrap();
    for subject in [
        world.names.logs(&other),
        world.names.events(&other),
        world.names.logs_all(),
        world.names.events_all(),
    ] {
        customer.must_not_subscribe(&subject).await;
    }
    let mut live = customer.client.subscribe(world.names.logs(&own)).await.unwrap();
    customer.caught_up().await;
    world.writer(other).lines(1).await;
    world.writer(own).lines(2).await;
    assert_eq!(next(&mut live).await["records"].as_array().unwrap().len(), 2);

    let newer = submit(&world, &key, "newer").await;
    customer.must_not_subscribe(&world.names.logs(&newer)).await;
    let mut again = Party::customer(&world, &key).await.unwrap();
    let mut live = again.client.subscribe(world.names.logs(&newer)).await.unwrap();
    again.caught_up().await;
    world.writer(newer).lines(3).await;
    assert_eq!(next(&mut live).await["records"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn anonymous_unknown_expired_and_malformed_keys_are_refused() {
    let world = World::guarded(|_| {}).await;
    let past = world.key(Scope::Admin, Some(Utc::now() - TimeDelta::seconds(1))).await;
    let mut unknown = world.key(Scope::Admin, None).await;
    let last = if unknown.ends_with('A') { "Q" } else { "A" };
    unknown.replace_range(unknown.len() - 1.., last);
    let long = "ovb_".repeat(200);
    for token in ["", "ovb_", "admin", "' OR 1=1 --", "ovb_\u{fffd}", &long, &past, &unknown] {
        is_refused(&world, token).await;
    }
    let error = async_nats::connect(world.nats.url()).await.unwrap_err();
    assert_eq!(error.kind(), async_nats::ConnectErrorKind::AuthorizationViolation);
    let nobodys = async_nats::ConnectOptions::with_nkey(nkeys::KeyPair::new_user().seed().unwrap());
    let error = nobodys.connect(world.nats.url()).await.unwrap_err();
    assert_eq!(error.kind(), async_nats::ConnectErrorKind::AuthorizationViolation);
}
