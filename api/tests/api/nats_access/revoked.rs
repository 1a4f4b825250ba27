//! Keys that end while their clients are connected.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use ovenbird_api::app::keys::Scope;
use ovenbird_contract::id::KeyId;
use ovenbird_testkit::Stalls;
use reqwest::Method;

use super::party::{Party, is_refused};
use crate::world::{SOON, World};

/// Within this time nobody hears anything by a key that was revoked.
const CUT_WITHIN: Duration = Duration::from_secs(2);

async fn id(world: &World, key: &str) -> KeyId {
    world.app().await.key_authenticate(key).await.unwrap().unwrap().key
}

/// Says in Postgres that a key is revoked, and nothing more.
async fn mark(world: &World, key: &str) {
    let id = id(world, key).await;
    let statement = format!("UPDATE api_keys SET revoked_at = now() WHERE id = '{}'", id.uuid());
    world.postgres.sql("ovenbird", &statement).await.unwrap();
}

#[tokio::test]
async fn revoking_a_key_cuts_its_connections_within_two_seconds_and_nobody_elses() {
    let world = World::guarded(|config| config.nats_access.sweep = Duration::from_secs(3600)).await;
    let build = world.submit_id("watched").await;
    let (key, other) = (world.key(Scope::Read, None).await, world.key(Scope::Read, None).await);
    let mut customers = Vec::new();
    for _ in 0..3 {
        customers.push(Party::customer(&world, &key).await.unwrap());
    }
    let mut stays = Party::customer(&world, &other).await.unwrap();
    let mut live = stays.client.subscribe(world.names.logs(&build)).await.unwrap();
    stays.caught_up().await;

    let path = format!("/v1/admin/keys/{}", id(&world, &key).await);
    let (begun, stalls) = (Instant::now(), Stalls::watch());
    let response = world.request(Method::DELETE, &path).send().await.unwrap();
    assert_eq!(response.status(), 200);
    for customer in &mut customers {
        let took = stalls.without(customer.closed(begun).await);
        println!("closed {took:?} after the revocation");
        assert!(took < CUT_WITHIN, "{took:?}");
    }
    is_refused(&world, &key).await;
    world.writer(build).lines(1).await;
    assert!(tokio::time::timeout(SOON, live.next()).await.unwrap().is_some());
}

#[tokio::test]
async fn key_that_a_dead_replica_revoked_is_cut_by_the_sweep_of_another() {
    let world =
        World::guarded(|config| config.nats_access.sweep = Duration::from_millis(300)).await;
    let key = world.key(Scope::Read, None).await;
    let mut customer = Party::customer(&world, &key).await.unwrap();
    mark(&world, &key).await;
    let took = customer.closed(Instant::now()).await;
    println!("closed {took:?} after the revocation, by the sweep");
}

#[tokio::test]
async fn session_ends_with_its_time_and_the_client_comes_back_by_itself() {
    let world = World::guarded(|config| config.nats_access.session = Duration::from_secs(2)).await;
    let key = world.key(Scope::Read, None).await;
    let mut customer = Party::customer(&world, &key).await.unwrap();
    customer.connected().await;
    customer.closed(Instant::now()).await;
    customer.connected().await;
}
