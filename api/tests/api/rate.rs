//! How often callers may ask.

use std::{num::NonZeroU32, time::Duration};

use futures::{StreamExt as _, stream::FuturesUnordered};
use ovenbird_api::app::keys::Scope;
use ovenbird_testkit::wait_until;
use reqwest::{Method, Response};
use sea_orm::{ConnectionTrait as _, TransactionTrait as _};
use serde_json::Value;
use tokio::time::Instant;

use crate::world::{SOON, World};

const BUILDS: &str = "/v1/admin/builds";
/// Far more than any bucket of these tests gives out while they are sent.
const MANY: u32 = 60;

fn few(count: u32) -> NonZeroU32 {
    NonZeroU32::new(count).unwrap()
}

fn number(response: &Response, header: &str) -> u32 {
    response.headers()[header].to_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn key_that_asks_too_often_waits_on_all_replicas_and_no_other_does() {
    let world = World::with(|config| {
        (config.rate.key_burst, config.rate.key_per_second) = (few(10), few(1));
    })
    .await;
    let replica = world.replica().await;
    let ask =
        |url: &str, key: &str| world.client.get(format!("{url}{BUILDS}")).bearer_auth(key).send();
    let first = ask(&world.url, &world.admin).await.unwrap();
    assert_eq!(first.status(), 200);
    assert_eq!(number(&first, "ratelimit-limit"), 10);
    assert_eq!(number(&first, "ratelimit-remaining"), 9);
    assert_eq!(number(&first, "ratelimit-reset"), 1);
    let second = ask(&replica.url, &world.admin).await.unwrap();
    assert!(number(&second, "ratelimit-remaining") <= 9, "the bucket is the same");

    let mut refused = None;
    for n in 0..MANY {
        let url = if n % 2 == 0 { &world.url } else { &replica.url };
        let response = ask(url, &world.admin).await.unwrap();
        if response.status() == 429 {
            refused = Some(response);
            break;
        }
    }
    let refused = refused.expect("somewhere it is enough");
    assert_eq!(number(&refused, "ratelimit-remaining"), 0);
    assert!((1..=2).contains(&number(&refused, "retry-after")));
    assert!(refused.headers().contains_key("x-request-id"));
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["error"]["code"], "rate_limited");

    let other = world.key(Scope::Read, None).await;
    assert_eq!(ask(&world.url, &other).await.unwrap().status(), 200);
    for _ in 0..MANY {
        let free = world.client.get(format!("{}/healthz", world.url)).send().await.unwrap();
        assert_eq!(free.status(), 200);
        assert!(!free.headers().contains_key("ratelimit-limit"));
    }
    replica.stop().await;
}

#[tokio::test]
async fn callers_without_a_valid_key_are_limited_by_address_and_fill_no_table() {
    let world = World::with(|config| {
        config.http.proxies = 1;
        (config.rate.address_burst, config.rate.address_per_second) = (few(5), few(1));
    })
    .await;
    let ask = |address: &'static str, key: Option<&str>| {
        let request = world.client.post(format!("{}{BUILDS}", world.url));
        let request = request.header("x-forwarded-for", format!("10.1.1.1, {address}"));
        match key {
            Some(key) => request.bearer_auth(key).send(),
            None => request.send(),
        }
    };
    let mut statuses = Vec::new();
    for n in 0..MANY {
        let key = if n % 2 == 0 { None } else { Some("ovb_wrong") };
        statuses.push(ask("192.0.2.1", key).await.unwrap().status().as_u16());
    }
    assert_eq!(statuses[..5], [401; 5]);
    let refused = statuses.iter().filter(|status| **status == 429).count();
    assert!(statuses.contains(&429), "{statuses:?}");
    assert_eq!(ask("192.0.2.2", None).await.unwrap().status(), 401, "another address");
    let own = ask("192.0.2.1", Some(&world.admin)).await.unwrap();
    assert_eq!(own.status(), 415, "a valid key does not pay for others behind its address");

    let sql = "SELECT count(*) FROM audit_log WHERE actor = 'anonymous' AND status = 401
               AND details->>'address' = '192.0.2.1'";
    let noted: usize = world.postgres.sql("ovenbird", sql).await.unwrap().parse().unwrap();
    assert_eq!(noted, statuses.len() - refused, "what is over the limit is not noted");
}

#[tokio::test]
async fn flood_of_wrong_keys_from_one_address_leaves_postgres_to_the_others() {
    let world = World::with(|config| {
        (config.rate.address_burst, config.rate.address_per_second) = (few(1), few(1));
    })
    .await;
    assert_eq!(world.get(BUILDS).await.status(), 200);
    let fresh = world.key(Scope::Read, None).await;
    let wrong = format!("ovb_{}", "x".repeat(43));
    let ask =
        |key: &str| world.client.get(format!("{}{BUILDS}", world.url)).bearer_auth(key).send();
    wait_until("its bucket to be empty", SOON, || async {
        ask(&wrong).await.unwrap().status() == 429
    })
    .await;
    // Whoever is looked up waits from now on.
    let tx = world.store.connection().begin().await.unwrap();
    tx.execute_unprepared("LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let mut flood: FuturesUnordered<_> = (0..30).map(|_| ask(&wrong)).collect();
    for _ in 0..28 {
        let answer = tokio::time::timeout(SOON, flood.next()).await.expect("without a look-up");
        let answer = answer.unwrap().unwrap();
        assert_eq!(answer.status(), 429);
        assert!(answer.headers().contains_key("retry-after"));
    }
    tx.rollback().await.unwrap();
    assert_eq!(flood.count().await, 2, "a few of them");
    assert_eq!(world.get(BUILDS).await.status(), 200, "it was valid before");
    assert_eq!(ask(&fresh).await.unwrap().status(), 200, "nobody else is looked up");
}

#[tokio::test]
async fn refusals_in_the_audit_log_are_bounded_over_all_addresses() {
    let world = World::with(|config| {
        (config.rate.address_burst, config.rate.address_per_second) = (few(10_000), few(10_000));
    })
    .await;
    let started = Instant::now();
    for _ in 0..4 {
        let asked = (0..50).map(|_| world.client.post(format!("{}{BUILDS}", world.url)).send());
        for response in futures::future::join_all(asked).await {
            assert_eq!(response.unwrap().status(), 401);
        }
    }
    let most = 60 + started.elapsed().as_secs() + 1;
    let noted = world.postgres.sql("ovenbird", "SELECT count(*) FROM audit_log").await.unwrap();
    let noted: u64 = noted.parse().unwrap();
    assert!((60..=most).contains(&noted), "{noted} of 200, at most {most}");
}

#[tokio::test]
async fn refusals_of_one_key_in_the_audit_log_are_bounded_and_what_it_did_is_not() {
    let world = World::with_host().await;
    let reader = world.key(Scope::Read, None).await;
    let started = Instant::now();
    for _ in 0..4 {
        let ask = || world.client.post(format!("{}{BUILDS}", world.url)).bearer_auth(&reader);
        for response in futures::future::join_all((0..50).map(|_| ask().send())).await {
            assert_eq!(response.unwrap().status(), 403);
        }
    }
    let most = 60 + started.elapsed().as_secs() + 1;
    let noted = "SELECT count(*) FROM audit_log WHERE status = 403";
    let noted: u64 = world.postgres.sql("ovenbird", noted).await.unwrap().parse().unwrap();
    assert!((60..=most).contains(&noted), "{noted} of 200, at most {most}");
    let open = "SELECT count(*) FROM audit_log WHERE status IS NULL";
    assert_eq!(world.postgres.sql("ovenbird", open).await.unwrap(), "0");

    for _ in 0..100 {
        assert_eq!(world.post(BUILDS, &Value::Null).await.status(), 422);
    }
    world.submit("web").await;
    let done = "SELECT count(*) FROM audit_log WHERE status = 201";
    assert_eq!(world.postgres.sql("ovenbird", done).await.unwrap(), "1");
}

#[tokio::test]
async fn without_redis_requests_go_through_without_waiting_long() {
    let mut world = World::with(|config| {
        (config.rate.key_burst, config.rate.key_per_second) = (few(1), few(1));
        (config.rate.address_burst, config.rate.address_per_second) = (few(1), few(1));
        config.rate.redis_deadline = Duration::from_millis(250);
    })
    .await;
    world.redis.kill9();
    let started = Instant::now();
    for _ in 0..20 {
        let response = world.get(BUILDS).await;
        assert_eq!(response.status(), 200);
        assert!(!response.headers().contains_key("ratelimit-limit"));
    }
    // Each failure is followed by a pause in which nobody waits for it.
    assert!(started.elapsed() < Duration::from_secs(15));
    for _ in 0..5 {
        let request = world.client.request(Method::POST, format!("{}{BUILDS}", world.url));
        assert_eq!(request.send().await.unwrap().status(), 401);
    }
    let noted = world.postgres.sql("ovenbird", "SELECT count(*) FROM audit_log").await.unwrap();
    assert_eq!(noted, "0", "nothing bounds these then");
}
