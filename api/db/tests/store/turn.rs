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
    let published =
        |build: &BuildId| Published { build: *build, attempt: 1, resends: 0, stream_seq: 1 };
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

#[tokio::test]
async fn builds_that_no_host_could_take_hold_up_none_of_their_key_that_could_run() {
    let world = limited(2).await;
    let builds = builds(&world, 5).await;
    // As where nobody has the label, or where the base is gone.
    world.sql(r#"UPDATE template_builds SET labels = '{"gpu": "a100"}' WHERE name IN ('web0', 'web1', 'web2')"#).await;
    assert_eq!(
        turns(&world, &builds).await,
        [builds[0], builds[1], builds[3], builds[4]],
        "nor do they fill the work queue"
    );
    for build in &builds[..2] {
        assert_eq!(world.claim(*build, 1, RunnerId::new()).await.unwrap_err(), Refused::NoHost);
    }
    let runner = RunnerId::new();
    world.claim(builds[3], 1, runner).await.unwrap();
    assert_eq!(turns(&world, &builds).await, [builds[0], builds[4]]);
    world.claim(builds[4], 1, runner).await.unwrap();
    assert_eq!(turns(&world, &builds).await, Vec::<BuildId>::new(), "the key is at its limit");
    world.sql(r#"UPDATE hosts SET labels = '{"gpu": "a100"}'"#).await;
    let holder = ovenbird_db::store::lease::Holder { build: builds[3], attempt: 1, runner };
    world.store.build_finish(&finish_of(&holder, success())).await.unwrap().unwrap();
    assert_eq!(turns(&world, &builds).await, [builds[0]], "there is a host: first come");

    let sql = "UPDATE templates SET deleted_at = now() WHERE name = 'minimal'";
    world.sql(sql).await;
    assert_eq!(turns(&world, &builds).await, [builds[0]], "one of those that cannot run");
}

#[tokio::test]
async fn build_that_is_too_large_for_the_room_of_now_lets_smaller_ones_of_its_key_go_first() {
    let world = limited(4).await;
    let other = world.running("other").await;
    world.sql("UPDATE template_builds SET requested_by = 'other'").await;
    let builds = builds(&world, 4).await;
    let sql = "UPDATE template_builds SET vcpus = 4 WHERE name IN ('web0', 'web1')";
    world.sql(sql).await;
    assert_eq!(turns(&world, &builds[2..]).await, builds[2..]);
    world.store.build_finish(&finish_of(&other, success())).await.unwrap().unwrap();
    assert_eq!(
        turns(&world, &builds).await,
        builds[..2],
        "with the whole host free they are first"
    );
    // What stands half-made has its room there, which leaves none.
    let half = "UPDATE template_builds SET sandbox_id = gen_random_uuid(), host_id = (SELECT id FROM hosts)
         WHERE name = 'web0'";
    world.sql(half).await;
    // It is before all others; those have no room beside it, and of them as many may have jobs.
    assert_eq!(turns(&world, &builds).await, builds[..3]);
}

#[tokio::test]
async fn build_that_is_cancelled_where_no_runner_is_any_more_does_not_count() {
    let world = limited(64).await;
    let builds = builds(&world, 4).await;
    for build in &builds[..2] {
        world.claim(*build, 1, RunnerId::new()).await.unwrap();
        world.cancel(*build).await;
    }
    let counted = async || {
        let (counts, stats) = (world.store.queue_counts().await, world.store.stats().await);
        let ahead = world.store.queue_ahead(10).await.unwrap();
        let running = ahead.iter().filter(|one| one.is_running).count();
        (counts.unwrap().running, stats.unwrap().running, running)
    };
    assert_eq!(turns(&world, &builds).await, Vec::<BuildId>::new(), "their runner ends them");
    assert_eq!(counted().await, (2, 2, 2));
    for build in &builds[..2] {
        world.lease_runs_out(*build).await;
    }
    assert_eq!(counted().await, (0, 0, 0));
    assert_eq!(turns(&world, &builds).await, builds[2..]);
    for build in &builds[2..] {
        world.claim(*build, 1, RunnerId::new()).await.unwrap();
    }
}
