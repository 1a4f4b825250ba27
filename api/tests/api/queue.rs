//! The queue over REST.

use async_nats::jetstream::{consumer::pull, stream};
use futures::StreamExt as _;
use ovenbird_api::app::{keys::Scope, page};
use ovenbird_contract::{
    id::{BuildId, RunnerId},
    job::{self, Job},
    nats::{DEFAULT_LANE, HIGH_LANE},
};
use ovenbird_db::store::{build_admin::After, claim, job::Published};
use ovenbird_testkit::wait_until;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    templates::template,
    world::{SOON, World},
};

const QUEUE: &str = "/v1/admin/queue";

/// The work queue, as the bridges make it.
async fn work_queue(world: &World) -> stream::Stream {
    let spec = world.names.builds_stream();
    let config = stream::Config {
        name: spec.name,
        subjects: spec.subjects,
        retention: stream::RetentionPolicy::WorkQueue,
        ..Default::default()
    };
    let stream = world.jetstream.create_stream(config).await.unwrap();
    for lane in world.names.runners_consumers() {
        let config = pull::Config {
            durable_name: Some(lane.durable),
            filter_subject: lane.subject.unwrap(),
            ..Default::default()
        };
        stream.create_consumer(config).await.unwrap();
    }
    stream
}

/// Publishes the job of a build, as the relay does.
async fn relay(world: &World, build: BuildId) {
    let job = Job { v: job::VERSION, build_id: build, attempt: 1, trace: String::new() };
    let payload = serde_json::to_vec(&job).unwrap();
    let ack = world.jetstream.publish(world.names.builds(DEFAULT_LANE), payload.into()).await;
    let stream_seq = ack.unwrap().await.unwrap().sequence;
    let published = Published { build, attempt: 1, resends: 0, stream_seq };
    world.store.build_jobs_published(&[published]).await.unwrap();
}

async fn claim(world: &World, build: BuildId) {
    let request = claim::Request { build, attempt: 1, runner: RunnerId::new(), lease: SOON };
    world.store.build_claim(&request).await.unwrap().unwrap();
}

#[tokio::test]
async fn build_hears_its_place_why_it_waits_and_until_when() {
    let world = World::with_host().await;
    template(&world, "web").await;
    let first = world.submit_id("web").await;
    let queue = world.get_json(QUEUE).await;
    assert_eq!(queue["items"][0]["reason"], "not_relayed", "{queue}");
    assert_eq!(queue.get("free_slots"), None, "no bridge has made the work queue");
    relay_all(&world, &[first]).await;
    let queue = world.get_json(QUEUE).await;
    assert_eq!(queue["items"][0]["reason"], "no_runner", "{queue}");
    assert_eq!(queue["free_slots"], 0);
    assert_eq!(queue["items"][0].get("eta"), None, "nobody could run it");

    // One slot, as a runner opens it.
    let consumer = world.names.runners_consumer();
    let stream = world.jetstream.get_stream(&consumer.stream).await.unwrap();
    let consumer = stream.get_consumer::<pull::Config>(&consumer.durable).await.unwrap();
    let mut jobs = consumer.batch().max_messages(1).expires(SOON).messages().await.unwrap();
    let taken = jobs.next().await.unwrap().unwrap();
    claim(&world, first).await;
    let waits =
        [world.submit_id("web").await, world.submit_id("new").await, world.submit_id("web").await];
    for build in waits {
        relay(&world, build).await;
    }
    let queue = world.get_json(QUEUE).await;
    assert_eq!((&queue["depth"], &queue["running"]), (&json!(3), &json!(1)));
    assert_eq!(queue["slots_wanted"], 4, "what is in flight counts");
    let items = queue["items"].as_array().unwrap();
    let ids: Vec<_> = items.iter().map(|item| item["build_id"].as_str().unwrap()).collect();
    assert_eq!(ids, waits.map(|id| id.to_string()));
    assert_eq!(
        items.iter().map(|item| item["position"].as_u64().unwrap()).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert!(items.iter().all(|item| item["reason"] == "no_runner" && item["message"].is_string()));
    // The one that runs is of a name with a past; the second is not, and whoever stands behind it knows nothing.
    assert!(items[0]["eta"].is_string(), "{queue}");
    assert!(items[1].get("eta").is_none() && items[2].get("eta").is_none(), "{queue}");
    taken.ack().await.unwrap();
}

async fn relay_all(world: &World, builds: &[BuildId]) {
    work_queue(world).await;
    for build in builds {
        relay(world, *build).await;
    }
}

#[tokio::test]
async fn free_slots_are_the_pulls_that_wait() {
    let world = World::with_host().await;
    let stream = work_queue(&world).await;
    let durable = world.names.runners_consumer().durable;
    let consumer = stream.get_consumer::<pull::Config>(&durable).await.unwrap();
    let mut pulls = Vec::new();
    for _ in 0..2 {
        pulls.push(consumer.batch().max_messages(1).expires(SOON).messages().await.unwrap());
    }
    wait_until("both pulls to wait", SOON, || async {
        world.get_json(QUEUE).await["free_slots"] == 2
    })
    .await;
    for name in ["a", "b", "c"] {
        let build = world.submit_id(name).await;
        world
            .store
            .build_jobs_published(&[Published { build, attempt: 1, resends: 0, stream_seq: 1 }])
            .await
            .unwrap();
    }
    let queue = world.get_json(QUEUE).await;
    let reasons: Vec<_> =
        queue["items"].as_array().unwrap().iter().map(|it| it["reason"].clone()).collect();
    assert_eq!(reasons, ["next", "next", "no_runner"]);
}

#[tokio::test]
async fn each_lane_has_its_own_places_and_a_key_at_its_limit_is_told_so() {
    let world = World::with_host().await;
    let stream = work_queue(&world).await;
    let durable = world.names.runners_consumer_of(HIGH_LANE).durable;
    let consumer = stream.get_consumer::<pull::Config>(&durable).await.unwrap();
    let _free = consumer.batch().max_messages(1).expires(SOON).messages().await.unwrap();
    let mut builds = Vec::new();
    for (name, lane) in [("a", "default"), ("b", "high"), ("c", "default"), ("d", "default")] {
        let body = json!({ "name": name, "recipe": ["RUN true"], "lane": lane });
        let build = world.request(Method::POST, "/v1/admin/builds").json(&body).send().await;
        let build: Value = build.unwrap().json().await.unwrap();
        builds.push(build["id"].as_str().unwrap().parse::<BuildId>().unwrap());
    }
    // As the relay does of a key that has as many builds running as it may.
    world.store.build_held(&builds[2..3]).await.unwrap();
    for build in [builds[0], builds[1], builds[3]] {
        let published = Published { build, attempt: 1, resends: 0, stream_seq: 1 };
        world.store.build_jobs_published(&[published]).await.unwrap();
    }
    let told = async || {
        let queue = world.get_json(QUEUE).await;
        let items = queue["items"].as_array().unwrap().clone();
        let each = items.iter().map(|it| (it["position"].as_u64().unwrap(), it["reason"].clone()));
        let held = items.iter().filter(|it| it["held"] == true).count();
        assert_eq!(json!(held), queue["held"]);
        (
            queue["depth"].clone(),
            queue["held"].clone(),
            queue["slots_wanted"].clone(),
            each.collect::<Vec<_>>(),
        )
    };
    let reasons = |texts: [(u64, &str); 4]| texts.map(|(at, text)| (at, json!(text))).to_vec();
    let expected = reasons([(1, "no_runner"), (1, "next"), (2, "not_relayed"), (2, "no_runner")]);
    wait_until("the pull to wait", SOON, || async {
        told().await == (json!(4), json!(1), json!(3), expected.clone())
    })
    .await;
    let refused = json!({ "name": "x", "recipe": ["RUN true"], "lane": "fast" });
    let response = world.request(Method::POST, "/v1/admin/builds").json(&refused).send().await;
    let error: Value = response.unwrap().json().await.unwrap();
    assert!(error.to_string().contains("default, high"), "{error}");
}

#[tokio::test]
async fn hosts_that_are_full_drained_or_without_the_base_are_told() {
    let world = World::with_host().await;
    for name in ["a", "b", "c", "d"] {
        let build = world.submit_id(name).await;
        claim(&world, build).await;
    }
    world.submit("e").await;
    let reason = async || world.get_json(QUEUE).await["items"][0]["reason"].clone();
    assert_eq!(reason().await, "no_room");
    let host = world.get_json("/v1/admin/hosts").await["items"][0]["id"].clone();
    let path = format!("/v1/admin/hosts/{}/drain", host.as_str().unwrap());
    assert_eq!(world.request(Method::POST, &path).send().await.unwrap().status(), 200);
    assert_eq!(reason().await, "no_host");
    let sql = "UPDATE templates SET deleted_at = now() WHERE name = 'minimal'";
    world.postgres.sql("ovenbird", sql).await.unwrap();
    assert_eq!(reason().await, "base_deleted");
}

#[tokio::test]
async fn key_of_scope_build_sees_its_own_and_pages_are_bounded() {
    let world = World::with_host().await;
    for n in 0..5 {
        world.submit(&format!("theirs{n}")).await;
    }
    let key = world.key(Scope::Build, None).await;
    let own = |method, path: &str| {
        world.client.request(method, format!("{}{path}", world.url)).bearer_auth(&key)
    };
    let body = json!({"name": "mine", "recipe": ["RUN true"]});
    let mine: Value = own(Method::POST, "/v1/admin/builds")
        .json(&body)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let queue: Value = own(Method::GET, QUEUE).send().await.unwrap().json().await.unwrap();
    assert_eq!(queue["items"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&queue["items"][0]["build_id"], &queue["items"][0]["position"]),
        (&mine["id"], &json!(6))
    );
    assert_eq!(queue["depth"], 6);

    let mut seen = Vec::new();
    let mut path = format!("{QUEUE}?limit=4");
    loop {
        let page = world.get_json(&path).await;
        seen.extend(
            page["items"].as_array().unwrap().iter().map(|item| item["position"].as_u64().unwrap()),
        );
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("{QUEUE}?limit=4&cursor={cursor}");
    }
    assert_eq!(seen, [1, 2, 3, 4, 5, 6]);

    let year = chrono::DateTime::from_timestamp(8_000_000_000_000, 0).unwrap();
    let forged = page::encode(After { created_at: year, id: uuid::Uuid::nil() });
    for query in ["limit=0", "limit=-1", "limit=201", "cursor=AAAA", &format!("cursor={forged}")] {
        let response = world.get(&format!("{QUEUE}?{query}")).await;
        assert_eq!(response.status(), 400, "{query}");
    }
}
