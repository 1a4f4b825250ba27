//! Who gets a build, and where it runs.

use std::time::Duration;

use futures::future::join_all;
use ovenbird_contract::{
    build::{Reason, ReasonCode, Status},
    id::{HostId, RunnerId, TemplateId},
};
use ovenbird_db::store::{claim::Refused, host::Labels, lease::Holder};
use ovenbird_testkit::wait_until;
use sea_orm::{ConnectionTrait as _, DatabaseBackend, Statement, TransactionTrait as _};

use crate::world::{World, report};

#[tokio::test]
async fn two_runners_claim_one_build_and_one_wins() {
    let world = World::with_host(4).await;
    let build = world.build("web").await;
    let claims = join_all((0..8).map(|_| world.claim(build, 1, RunnerId::new()))).await;
    let won = claims.iter().filter(|claim| claim.is_ok()).count();
    assert_eq!(won, 1);
    assert!(claims.iter().all(|claim| match claim {
        Ok(_) => true,
        Err(refused) => *refused == Refused::NotClaimable(Status::Running),
    }));
}

#[tokio::test]
async fn repeated_claim_of_the_same_runner_is_the_same() {
    let world = World::with_host(4).await;
    let build = world.build("web").await;
    let runner = RunnerId::new();
    let first = world.claim(build, 1, runner).await.unwrap();
    let second = world.claim(build, 1, runner).await.unwrap();
    assert_eq!(first.build.planned_template_id, second.build.planned_template_id);
    assert_eq!((first.host.id, first.base.id), (second.host.id, second.base.id));
    assert!(second.build.lease_until >= first.build.lease_until);
}

#[tokio::test]
async fn job_of_another_attempt_is_refused() {
    let world = World::with_host(4).await;
    let build = world.build("web").await;
    let refused = world.claim(build, 2, RunnerId::new()).await.unwrap_err();
    assert_eq!(refused, Refused::StaleAttempt { begun: 0 });
}

#[tokio::test]
async fn concurrent_claims_never_overbook_a_host() {
    let world = World::with_host(3).await;
    let mut builds = Vec::new();
    for n in 0..8 {
        builds.push(world.build(&format!("web{n}")).await);
    }
    let claims = join_all(builds.iter().map(|id| world.claim(*id, 1, RunnerId::new()))).await;
    assert_eq!(claims.iter().filter(|claim| claim.is_ok()).count(), 3);
    assert!(claims.iter().filter_map(|claim| claim.as_ref().err()).all(|e| *e == Refused::NoRoom));
}

#[tokio::test]
async fn many_claims_at_once_fill_every_host_and_overbook_none() {
    let world = World::with_host(4).await;
    for host in 2..=3 {
        let report = report(&format!("10.0.0.{host}:1"), 4);
        world.store.host_report(&report, std::time::Duration::ZERO).await.unwrap();
    }
    let mut builds = Vec::new();
    for n in 0..60 {
        builds.push(world.build(&format!("web{n}")).await);
    }
    let claims = join_all(builds.iter().map(|id| world.claim(*id, 1, RunnerId::new()))).await;
    let mut taken = std::collections::BTreeMap::<_, usize>::new();
    for claim in claims.iter().flatten() {
        *taken.entry(claim.host.id).or_default() += 1;
    }
    assert_eq!(taken.values().collect::<Vec<_>>(), [&4, &4, &4]);
    assert!(claims.iter().filter_map(|claim| claim.as_ref().err()).all(|e| *e == Refused::NoRoom));
}

#[tokio::test]
async fn lost_host_frees_what_its_builds_took_when_they_go_elsewhere() {
    let world = World::with_host(2).await;
    let holders = [world.running("one").await, world.running("two").await];
    let first = world.row(holders[0].build).await.host_id.unwrap();
    world.store.host_report(&report("10.0.0.2:1", 2), std::time::Duration::ZERO).await.unwrap();
    assert!(world.store.host_unreachable("10.0.0.1:1").await.unwrap());
    let reason = Reason {
        code: ReasonCode::HostLost,
        message: "the host agent cannot be reached".into(),
        step: None,
        tail: None,
    };
    for holder in &holders {
        world.store.build_lose(holder, &reason, 3).await.unwrap().unwrap();
        let elsewhere = world.claim(holder.build, 2, RunnerId::new()).await.unwrap();
        assert_ne!(elsewhere.host.id, first);
    }
    let next = world.build("three").await;
    assert_eq!(world.claim(next, 1, RunnerId::new()).await.unwrap_err(), Refused::NoRoom);
    // Back again, it has all of its room.
    world.store.host_report(&report("10.0.0.1:1", 2), std::time::Duration::ZERO).await.unwrap();
    for build in [next, world.build("four").await] {
        let claimed = world.claim(build, 1, RunnerId::new()).await.unwrap();
        assert_eq!(claimed.host.id, first);
    }
}

#[tokio::test]
async fn build_with_labels_goes_where_all_of_them_are() {
    let world = World::with_host(8).await;
    world.store.host_report(&report("10.0.0.2:1", 1), std::time::Duration::ZERO).await.unwrap();
    let hosts = world.store.host_list().await.unwrap();
    let small = HostId::from_uuid(hosts[1].id);
    let labels = |labels: &[(&str, &str)]| -> Labels {
        labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    };
    let build = async |wanted: &[(&str, &str)]| {
        let mut new = world.submission("web");
        let base = world.store.template_resolve("minimal", "latest").await.unwrap().unwrap();
        new.base_template_id = TemplateId::from_uuid(base.id);
        new.labels = labels(wanted);
        world.store.build_insert(&new).await.unwrap();
        new.id
    };
    let wanted = build(&[("zone", "b"), ("disk", "fast")]).await;
    let claim = async || world.claim(wanted, 1, RunnerId::new()).await;
    assert_eq!(claim().await.unwrap_err(), Refused::NoHost);
    let told = async || world.store.queue_page(None, None, 10).await.unwrap()[0].hosts;
    world.store.host_labels_set(small, &labels(&[("zone", "b")])).await.unwrap().unwrap();
    assert_eq!((claim().await.unwrap_err(), told().await), (Refused::NoHost, 0));
    let all = labels(&[("zone", "b"), ("disk", "fast"), ("gpu", "")]);
    world.store.host_labels_set(small, &all).await.unwrap().unwrap();
    assert_eq!(told().await, 1);
    assert_eq!(claim().await.unwrap().host.id, small.uuid());
    // What the host says of itself changes none of them.
    world.store.host_report(&report("10.0.0.2:1", 1), std::time::Duration::ZERO).await.unwrap();
    let kept = world.store.host_get(small).await.unwrap().unwrap().host.labels;
    assert_eq!(kept, serde_json::json!(all));
}

/// So many statements wait for a lock.
async fn waiting(world: &World, count: i64) {
    let text = "SELECT count(*) AS waiting FROM pg_stat_activity
        WHERE wait_event_type = 'Lock' AND datname = current_database()";
    let statement = Statement::from_string(DatabaseBackend::Postgres, text);
    wait_until("somebody waits for the lock", Duration::from_secs(20), || async {
        let row = world.store.connection().query_one_raw(statement.clone()).await.unwrap();
        row.unwrap().try_get::<i64>("", "waiting").unwrap() >= count
    })
    .await;
}

#[tokio::test]
async fn label_that_is_taken_away_while_a_claim_waits_counts() {
    let world = World::with_host(8).await;
    let host = HostId::from_uuid(world.store.host_list().await.unwrap()[0].id);
    let zone: Labels = [("zone".into(), "b".into())].into();
    world.store.host_labels_set(host, &zone).await.unwrap().unwrap();
    for attempts_before in [0, 1] {
        // The first attempt is begun otherwise than those after it.
        let mut new = world.submission("web");
        let base = world.store.template_resolve("minimal", "latest").await.unwrap().unwrap();
        new.base_template_id = TemplateId::from_uuid(base.id);
        new.labels = zone.clone();
        world.store.build_insert(&new).await.unwrap();
        world
            .sql(&format!(
                "UPDATE template_builds SET attempt = {attempts_before} WHERE id = '{}'",
                new.id.uuid()
            ))
            .await;
        // Both wait for the host's row, the labels first.
        let held = world.store.connection().begin().await.unwrap();
        let lock = format!("SELECT id FROM hosts WHERE id = '{}' FOR UPDATE", host.uuid());
        held.execute_unprepared(&lock).await.unwrap();
        let none = Labels::new();
        let set = world.store.host_labels_set(host, &none);
        let claim = async {
            waiting(&world, 1).await;
            world.claim(new.id, attempts_before + 1, RunnerId::new()).await
        };
        let freed = async {
            waiting(&world, 2).await;
            held.commit().await.unwrap();
        };
        let (set, claimed, ()) = tokio::join!(set, claim, freed);
        set.unwrap().unwrap();
        assert_eq!(claimed.unwrap_err(), Refused::NoHost);
        world.store.host_labels_set(host, &zone).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn second_host_takes_what_the_first_has_no_room_for() {
    let world = World::with_host(1).await;
    world.store.host_report(&report("10.0.0.2:1", 1), std::time::Duration::ZERO).await.unwrap();
    let (one, two) = (world.build("one").await, world.build("two").await);
    let one = world.claim(one, 1, RunnerId::new()).await.unwrap();
    let two = world.claim(two, 1, RunnerId::new()).await.unwrap();
    assert_ne!(one.host.id, two.host.id);
}

#[tokio::test]
async fn unreachable_host_gets_no_build() {
    let world = World::with_host(4).await;
    let build = world.build("web").await;
    assert!(world.store.host_unreachable("10.0.0.1:1").await.unwrap());
    assert_eq!(world.claim(build, 1, RunnerId::new()).await.unwrap_err(), Refused::NoHost);
}

#[tokio::test]
async fn next_attempt_knows_the_sandbox_before_and_begins_from_zero() {
    let world = World::with_host(4).await;
    let holder = world.running("web").await;
    let sandbox = uuid::Uuid::now_v7();
    world
        .sql(&format!(
            "UPDATE template_builds SET sandbox_id = '{sandbox}', current_step = 1, logs = '[{{}}]'"
        ))
        .await;
    world.store.build_release(&holder).await.unwrap().unwrap();
    let runner = RunnerId::new();
    let again = world.claim(holder.build, 2, runner).await.unwrap();
    assert_eq!(again.previous_sandbox, Some(sandbox));
    // What there was is kept until it is known that it is of no use.
    assert_eq!((again.build.sandbox_id, again.build.current_step), (Some(sandbox), 1));
    let begin = async |attempt, runner| {
        let holder = Holder { build: holder.build, attempt, runner };
        world.store.build_begin_afresh(&holder, " No.").await.unwrap()
    };
    let fresh = begin(2, runner).await.unwrap();
    assert_eq!((fresh.current_step, &fresh.logs), (0, &serde_json::json!([])));
    assert_eq!((fresh.sandbox_id, fresh.previous_sandbox_id), (None, Some(sandbox)));
    assert_ne!(fresh.planned_template_id, again.build.planned_template_id);
    assert_eq!(begin(2, runner).await.unwrap(), fresh, "repeating it changes nothing");
    assert_eq!(begin(2, RunnerId::new()).await, None);
    assert_eq!(begin(1, holder.runner).await, None);
}

#[tokio::test]
async fn host_that_failed_a_build_is_avoided_while_there_is_another() {
    let world = World::with_host(4).await;
    let holder = world.running("web").await;
    let first = world.row(holder.build).await.host_id.unwrap();
    let reason = Reason {
        code: ReasonCode::HostLost,
        message: "the host agent cannot be reached".into(),
        step: None,
        tail: None,
    };
    for _ in 0..2 {
        let lost = world.store.build_lose(&holder, &reason, 3).await.unwrap().unwrap();
        assert_eq!(lost.status, Status::Queued);
    }
    assert_eq!(world.row(holder.build).await.lost_attempts, 1, "counted once");
    // Alone it is better than none.
    let runner = RunnerId::new();
    let again = world.claim(holder.build, 2, runner).await.unwrap();
    assert_eq!(again.host.id, first);
    let holder = Holder { build: holder.build, attempt: 2, runner };
    world.store.build_lose(&holder, &reason, 3).await.unwrap().unwrap();
    world.store.host_report(&report("10.0.0.2:1", 1), std::time::Duration::ZERO).await.unwrap();
    let runner = RunnerId::new();
    let elsewhere = world.claim(holder.build, 3, runner).await.unwrap();
    assert_ne!(elsewhere.host.id, first);
    assert_eq!(elsewhere.previous_sandbox, None);
    let holder = Holder { build: holder.build, attempt: 3, runner };
    let lost = world.store.build_lose(&holder, &reason, 3).await.unwrap().unwrap();
    assert_eq!(lost.status, Status::Failed);
    let row = world.row(holder.build).await;
    let reason = row.reason.unwrap();
    assert_eq!(reason["code"], "host_lost");
    assert!(reason["message"].as_str().unwrap().contains("used up"), "{reason}");
}

#[tokio::test]
async fn sandbox_that_waits_for_the_next_runner_keeps_its_room() {
    let world = World::with_host(1).await;
    let holder = world.running("one").await;
    world.sql(&format!("UPDATE template_builds SET sandbox_id = '{}'", uuid::Uuid::now_v7())).await;
    world.store.build_release(&holder).await.unwrap().unwrap();
    let two = world.build("two").await;
    assert_eq!(world.claim(two, 1, RunnerId::new()).await.unwrap_err(), Refused::NoRoom);
    world.claim(holder.build, 2, RunnerId::new()).await.unwrap();
}
