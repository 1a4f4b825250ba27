//! How the relay reads jobs, and how the sweep finds out that one is gone.

use std::time::Duration;

use chrono::{DateTime, Utc};
use ovenbird_contract::id::{BuildId, RunnerId};
use ovenbird_contract::nats::{DEFAULT_LANE, HIGH_LANE};
use ovenbird_db::store::job::{Published, QueueState};

use crate::world::World;

fn queue() -> QueueState {
    QueueState {
        lane: DEFAULT_LANE,
        created: DateTime::<Utc>::UNIX_EPOCH,
        last_seq: 10,
        acked_seq: 3,
        idle: false,
    }
}

async fn forgotten(world: &World, queue: QueueState) -> Vec<BuildId> {
    world.store.build_jobs_forget(&queue, Duration::ZERO, 10).await.unwrap()
}

async fn published(world: &World, stream_seq: u64) -> BuildId {
    let build = world.build("web").await;
    let published = Published { build, attempt: 1, resends: 0, stream_seq };
    world.store.build_jobs_published(&[published]).await.unwrap();
    build
}

#[tokio::test]
async fn only_queued_builds_have_jobs() {
    let world = World::with_host(4).await;
    let (queued, running) = (world.build("a").await, world.running("b").await.build);
    let jobs = world.store.build_jobs(&[queued, running, BuildId::new()]).await.unwrap();
    assert_eq!(jobs.len(), 1);
    assert_eq!((jobs[0].job.build_id, jobs[0].job.attempt, jobs[0].resends), (queued, 1, 0));
    assert_eq!(jobs[0].lane, "default");
}

#[tokio::test]
async fn build_without_a_known_job_is_listed() {
    let world = World::with_host(4).await;
    let build = world.build("web").await;
    let list = |waited| world.store.build_list_without_job(waited, 10);
    assert_eq!(list(Duration::ZERO).await.unwrap(), [build]);
    assert!(list(Duration::from_secs(60)).await.unwrap().is_empty());
    let published = Published { build, attempt: 1, resends: 0, stream_seq: 1 };
    world.store.build_jobs_published(&[published]).await.unwrap();
    assert!(list(Duration::ZERO).await.unwrap().is_empty());
}

#[tokio::test]
async fn job_that_waits_is_not_forgotten() {
    let world = World::with_host(4).await;
    published(&world, 5).await;
    assert!(forgotten(&world, queue()).await.is_empty());
}

#[tokio::test]
async fn job_that_is_gone_is_forgotten_once() {
    let world = World::with_host(4).await;
    let cases = [
        QueueState { created: Utc::now() + Duration::from_secs(60), ..queue() },
        QueueState { last_seq: 4, ..queue() },
        QueueState { acked_seq: 5, ..queue() },
        QueueState { idle: true, ..queue() },
    ];
    for case in cases {
        let build = published(&world, 5).await;
        assert!(forgotten(&world, QueueState { lane: HIGH_LANE, ..case }).await.is_empty());
        assert_eq!(forgotten(&world, case).await, [build], "{case:?}");
        assert!(forgotten(&world, case).await.is_empty());
        let jobs = world.store.build_jobs(&[build]).await.unwrap();
        assert_eq!(jobs[0].resends, 1);
        world.claim(build, 1, RunnerId::new()).await.unwrap();
    }
}

#[tokio::test]
async fn note_that_comes_after_its_job_was_taken_back_is_of_no_use() {
    let world = World::with_host(4).await;
    let build = published(&world, 5).await;
    let lost = QueueState { idle: true, ..queue() };
    assert_eq!(forgotten(&world, lost).await, [build]);
    let late = Published { build, attempt: 1, resends: 0, stream_seq: 5 };
    world.store.build_jobs_published(&[late]).await.unwrap();
    let list = || world.store.build_list_without_job(Duration::ZERO, 10);
    assert_eq!(list().await.unwrap(), [build], "it still has no job");
    let next = Published { resends: 1, stream_seq: 6, ..late };
    world.store.build_jobs_published(&[next]).await.unwrap();
    assert!(list().await.unwrap().is_empty());
    let old = world.store.build_jobs_old(Duration::ZERO, 10).await.unwrap();
    assert_eq!((old[0].resends, old[0].stream_seq), (1, 6));
}

#[tokio::test]
async fn job_that_is_too_young_is_left_alone() {
    let world = World::with_host(4).await;
    published(&world, 5).await;
    let lost = QueueState { idle: true, ..queue() };
    let settled = Duration::from_secs(60);
    let found = world.store.build_jobs_forget(&lost, settled, 10).await.unwrap();
    assert!(found.is_empty());
}
