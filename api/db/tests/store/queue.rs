//! Who waits, at which place, and for what.

use std::time::Duration;

use ovenbird_contract::id::RunnerId;
use ovenbird_db::{
    Store,
    store::{build_admin::After, queue::Waiting},
};
use sea_orm::{ConnectionTrait, DatabaseBackend, Statement};

use crate::world::{World, finish_of, report, success};

async fn waiting(world: &World) -> Vec<Waiting> {
    world.store.queue_page(None, None, 100).await.unwrap()
}

#[tokio::test]
async fn places_count_the_lane_and_pages_join_without_gap() {
    let world = World::with_host(1).await;
    let mut builds = Vec::new();
    for n in 0..5 {
        builds.push(world.build(&format!("web{n}")).await.uuid());
    }
    world
        .sql("UPDATE template_builds SET requested_by = 'other', lane = 'slow' WHERE name = 'web1'")
        .await;
    let all = waiting(&world).await;
    assert_eq!(all.iter().map(|one| one.id).collect::<Vec<_>>(), builds);
    assert_eq!(all.iter().map(|one| one.position).collect::<Vec<_>>(), [1, 1, 2, 3, 4]);
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = world.store.queue_page(None, after, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(After { created_at: last.queued_at, id: last.id });
        seen.extend(page);
    }
    assert_eq!(seen, all);
    let own = world.store.queue_page(Some("other"), None, 10).await.unwrap();
    assert_eq!(own.iter().map(|one| one.id).collect::<Vec<_>>(), [builds[1]]);
}

#[tokio::test]
async fn what_the_claim_would_refuse_is_told_beforehand() {
    let world = World::with_host(1).await;
    let build = world.build("web").await;
    let told = async || {
        waiting(&world)
            .await
            .into_iter()
            .map(|one| (one.has_base, one.hosts, one.fits))
            .next_back()
            .unwrap()
    };
    assert_eq!(told().await, (true, 1, true));
    world.store.host_unreachable("10.0.0.1:1").await.unwrap();
    assert_eq!(told().await, (true, 0, false));
    world.store.host_report(&report("10.0.0.1:1", 1), Duration::ZERO).await.unwrap();
    let holder = world.running("other").await;
    assert_eq!(told().await, (true, 1, false), "full");
    let counts = world.store.queue_counts().await.unwrap();
    assert_eq!((counts.queued, counts.running), (1, 1));
    world.store.build_finish(&finish_of(&holder, success())).await.unwrap().unwrap();
    assert_eq!(told().await, (true, 1, true));
    world.sql("UPDATE templates SET deleted_at = now() WHERE name = 'minimal'").await;
    assert_eq!(told().await, (false, 0, false));
    world.sql("UPDATE templates SET deleted_at = NULL").await;
    world.claim(build, 1, RunnerId::new()).await.unwrap();
    assert!(waiting(&world).await.is_empty());
}

#[tokio::test]
async fn half_made_build_has_its_place_in_the_lane_of_its_job() {
    let world = World::with_host(8).await;
    for name in ["a", "half", "b", "high"] {
        world.build(name).await;
    }
    world.sql("UPDATE template_builds SET lane = 'high' WHERE name = 'high'").await;
    let half = "UPDATE template_builds SET sandbox_id = gen_random_uuid() WHERE name = 'half'";
    world.sql(half).await;
    let told: Vec<_> = waiting(&world)
        .await
        .into_iter()
        .map(|one| (one.name, one.lane, one.job_lane, one.position))
        .collect();
    let row = |name: &str, lane: &str, job: &str, at| (name.into(), lane.into(), job.into(), at);
    assert_eq!(
        told,
        [
            row("a", "default", "default", 1),
            row("half", "default", "high", 1),
            row("b", "default", "default", 2),
            row("high", "high", "high", 2),
        ]
    );
}

#[tokio::test]
async fn hosts_are_asked_for_the_builds_of_the_page_alone() {
    let world = World::with_host(8).await;
    for n in 0..40 {
        world.build(&format!("web{n}")).await;
    }
    // A connection of its own tells at once what it looked up.
    let store = Store::new(ovenbird_db::connect(&world.url, 1, "store-tests").await.unwrap());
    let looked_up = async || {
        let flush = "SELECT pg_stat_force_next_flush()";
        store.connection().execute_unprepared(flush).await.unwrap();
        let text = "SELECT (seq_scan + idx_scan)::bigint FROM pg_stat_user_tables WHERE relname = 'template_placements'";
        let asked = Statement::from_string(DatabaseBackend::Postgres, text);
        let row = store.connection().query_one_raw(asked).await.unwrap().unwrap();
        row.try_get_by_index::<i64>(0).unwrap()
    };
    let before = looked_up().await;
    assert_eq!(store.queue_page(None, None, 3).await.unwrap().len(), 3);
    let looked_up = looked_up().await - before;
    assert!((1..=6).contains(&looked_up), "{looked_up} times for three builds");
}

#[tokio::test]
async fn duration_is_the_median_of_the_last_that_succeeded() {
    let world = World::with_host(8).await;
    for seconds in [1000, 10, 30, 20] {
        let holder = world.running("web").await;
        world.store.build_finish(&finish_of(&holder, success())).await.unwrap().unwrap();
        world
            .sql(&format!(
                "UPDATE template_builds SET started_at = completed_at - interval '{seconds} s' WHERE id = '{}'",
                holder.build.uuid()
            ))
            .await;
    }
    let took = world.store.build_durations(&["web", "never"], 3).await.unwrap();
    assert_eq!(took.len(), 1);
    assert_eq!(took["web"].as_secs(), 20);
    let ahead = world.store.queue_ahead(10).await.unwrap();
    assert!(ahead.is_empty(), "{ahead:?}");
}
