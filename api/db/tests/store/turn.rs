//! A limit of running builds for each API key.

use futures::future::join_all;
use ovenbird_contract::id::{BuildId, RunnerId};
use ovenbird_db::store::{claim::Refused, job::Published};

use crate::world::{World, finish_of, success};

const MAX: u32 = 2;

async fn limited(vcpus: u32) -> World {
    let mut world = World::with_host(vcpus).await;
    world.store = world.store.clone().limited(MAX);
    world
}

async fn builds(world: &World, count: usize) -> Vec<BuildId> {
    let mut builds = Vec::new();
    for n in 0..count {
        builds.push(world.build(&format!("web{n}")).await);
    }
    builds
}

/// Those that may have a job.
async fn turns(world: &World, builds: &[BuildId]) -> Vec<BuildId> {
    let jobs = world.store.build_jobs(builds).await.unwrap();
    jobs.iter().filter(|job| job.has_turn).map(|job| job.job.build_id).collect()
}

#[tokio::test]
async fn claims_at_the_same_moment_do_not_go_over_the_limit() {
    let world = limited(64).await;
    let builds = builds(&world, 8).await;
    let published = |build: &BuildId| Published { build: *build, attempt: 1, stream_seq: 1 };
    let jobs: Vec<Published> = builds.iter().map(published).collect();
    world.store.build_jobs_published(&jobs).await.unwrap();
    let outcomes =
        join_all(builds.iter().map(|build| world.claim(*build, 1, RunnerId::new()))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 2);
    for (build, outcome) in builds.iter().zip(outcomes) {
        let row = world.row(*build).await;
        match outcome {
            Ok(_) => assert_eq!(row.held_since, None),
            Err(why) => {
                assert_eq!(why, Refused::KeyLimit);
                // Its job is taken back, and the next one is no duplicate of it.
                assert_eq!((row.job_published_at, row.job_resends), (None, 1));
                assert!(row.held_since.is_some());
            }
        }
    }
    let counts = world.store.queue_counts().await.unwrap();
    assert_eq!((counts.queued, counts.held, counts.running), (6, 6, 2));
}

#[tokio::test]
async fn key_at_its_limit_gets_no_jobs_and_is_in_nobodys_way() {
    let world = limited(64).await;
    let theirs = builds(&world, 5).await;
    let other = world.build("other").await;
    let sql = "UPDATE template_builds SET requested_by = 'other' WHERE name = 'other'";
    world.sql(sql).await;
    let all = [theirs.clone(), vec![other]].concat();
    assert_eq!(turns(&world, &all).await, [theirs[0], theirs[1], other]);
    world.store.build_held(&theirs[2..]).await.unwrap();
    let line = world.store.queue_page(None, None, 10).await.unwrap();
    let told: Vec<_> = line.iter().map(|one| (one.held, one.position)).collect();
    assert_eq!(told, [(false, 1), (false, 2), (true, 3), (true, 3), (true, 3), (false, 3)]);

    let runner = RunnerId::new();
    for build in &theirs[..2] {
        world.claim(*build, 1, runner).await.unwrap();
    }
    assert_eq!(turns(&world, &all).await, [other]);
    assert_eq!(world.store.build_list_after(theirs[0], 9).await.unwrap(), Vec::<BuildId>::new());
    let waiting = world.store.build_list_without_job(std::time::Duration::ZERO, 10).await.unwrap();
    assert_eq!(waiting, [other], "nor does the sweep push the others");

    let holder = ovenbird_db::store::lease::Holder { build: theirs[0], attempt: 1, runner };
    world.store.build_finish(&finish_of(&holder, success())).await.unwrap().unwrap();
    assert_eq!(world.store.build_list_after(theirs[0], 9).await.unwrap(), [theirs[2]]);
    assert_eq!(turns(&world, &all).await, [theirs[2], other]);
}

#[tokio::test]
async fn turns_are_in_the_order_half_made_high_oldest() {
    let world = limited(64).await;
    let builds = builds(&world, 4).await;
    assert_eq!(turns(&world, &builds).await, builds[..2]);
    world.sql("UPDATE template_builds SET lane = 'high' WHERE name = 'web2'").await;
    assert_eq!(turns(&world, &builds).await, [builds[0], builds[2]]);
    let sandbox = "UPDATE template_builds SET sandbox_id = gen_random_uuid() WHERE name = 'web3'";
    world.sql(sandbox).await;
    assert_eq!(turns(&world, &builds).await, [builds[2], builds[3]]);
    let jobs = world.store.build_jobs(&builds).await.unwrap();
    let lanes: Vec<&str> = jobs.iter().map(|job| job.lane.as_str()).collect();
    assert_eq!(lanes, ["default", "default", "high", "high"], "what is half-made goes first");
}
