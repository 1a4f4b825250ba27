//! Redis list → JetStream job, and nothing lost on the way.

use std::{collections::HashSet, time::Duration};

use ovenbird_testkit::wait_until;
use redis::AsyncCommands;

use crate::rig::{Rig, SOON, Servers};

#[tokio::test]
async fn relay_keeps_the_id_until_the_ack() {
    let mut rig = Rig::new().await;
    let build = rig.build("web").await;
    rig.start_relay("b1");
    rig.queue.push(&[build]).await.unwrap();
    let own = rig.keys.relaying("b1");
    wait_until("the id is taken", SOON, || async { rig.list(own.clone()).await.len() == 1 }).await;
    assert!(rig.list(rig.keys.queued()).await.is_empty());
    // There is no stream yet, so there is no ack.
    rig.ensure().await;
    let job = rig.job().await;
    assert_eq!((job.build_id, job.attempt), (build, 1));
    wait_until("the id is gone", SOON, || async { rig.list(own.clone()).await.is_empty() }).await;
    assert!(rig.row(build).await.job_published_at.is_some());
    rig.stop().await;
}

#[tokio::test]
async fn killed_nats_and_emptied_redis_lose_no_build() {
    let mut servers = Servers::durable().await;
    let mut rig = Rig::on(&servers).await;
    rig.ensure().await;
    rig.start_relay("b1");
    servers.nats.kill9();
    let build = rig.build("web").await;
    rig.queue.push(&[build]).await.unwrap();
    let own = rig.keys.relaying("b1");
    wait_until("the id is taken", SOON, || async { rig.list(own.clone()).await.len() == 1 }).await;
    servers.nats.restart().await.unwrap();
    assert_eq!(rig.job().await.build_id, build);

    servers.redis.kill9();
    servers.redis.restart().await.unwrap();
    let lost = rig.build("api").await;
    // The push of the api is lost with Redis; the sweep finds the build in Postgres.
    let sweep = rig.sweep();
    wait_until("it is pushed again", SOON, || async { sweep.queued().await.is_ok_and(|n| n > 0) })
        .await;
    assert_eq!(rig.job().await.build_id, lost);
    rig.stop().await;
}

#[tokio::test]
async fn id_that_is_pushed_twice_becomes_one_job() {
    let mut rig = Rig::with_streams().await;
    let build = rig.build("web").await;
    rig.start_relay("b1");
    rig.queue.push(&[build, build]).await.unwrap();
    let own = rig.keys.relaying("b1");
    wait_until("a job is there", SOON, || async { rig.jobs().await == 1 }).await;
    rig.queue.push(&[build]).await.unwrap();
    wait_until("all is relayed", SOON, || async {
        rig.list(rig.keys.queued()).await.is_empty() && rig.list(own.clone()).await.is_empty()
    })
    .await;
    assert_eq!(rig.jobs().await, 1);
    rig.stop().await;
}

#[tokio::test]
async fn id_of_no_queued_build_is_dropped() {
    let mut rig = Rig::with_streams().await;
    let mut redis = rig.redis.clone();
    let unknown = ovenbird_contract::id::BuildId::new().to_string();
    let () = redis.rpush(rig.keys.queued(), vec!["nonsense".to_owned(), unknown]).await.unwrap();
    rig.start_relay("b1");
    let own = rig.keys.relaying("b1");
    wait_until("both are dropped", SOON, || async {
        rig.list(rig.keys.queued()).await.is_empty() && rig.list(own.clone()).await.is_empty()
    })
    .await;
    assert_eq!(rig.jobs().await, 0);
    rig.stop().await;
}

#[tokio::test]
async fn several_bridges_relay_each_build_once() {
    let mut rig = Rig::with_streams().await;
    let mut builds = HashSet::new();
    for n in 0..60 {
        builds.insert(rig.build(&format!("web{n}")).await);
    }
    for id in ["b1", "b2", "b3"] {
        rig.start_relay(id);
    }
    rig.queue.push(&builds.iter().copied().collect::<Vec<_>>()).await.unwrap();
    wait_until("all jobs are there", SOON, || async { rig.jobs().await == 60 }).await;
    for _ in 0..60 {
        assert!(builds.remove(&rig.job().await.build_id));
    }
    rig.stop().await;
}

#[tokio::test]
async fn stopped_relay_gives_back_what_it_holds() {
    let mut rig = Rig::new().await;
    let build = rig.build("web").await;
    rig.queue.push(&[build]).await.unwrap();
    rig.start_relay("b1");
    let (own, queued) = (rig.keys.relaying("b1"), rig.keys.queued());
    wait_until("the id is taken", SOON, || async { rig.list(own.clone()).await.len() == 1 }).await;
    let mut redis = rig.redis.clone();
    let begun = std::time::Instant::now();
    let _servers = rig.stop().await;
    // The publish in flight may take its whole time.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let ids: Vec<String> = redis.lrange(queued, 0, -1).await.unwrap();
    assert_eq!(ids, [build.to_string()]);
}
