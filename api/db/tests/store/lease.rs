//! What keeps and ends a lease.

use std::time::Duration;

use futures::future::join_all;
use ovenbird_contract::{build::Status, id::RunnerId};
use ovenbird_db::store::lease::{Holder, Refused};
use sea_orm::{ConnectionTrait as _, DbBackend, Statement};

use crate::world::{LEASE, World, finish_of, success};

#[tokio::test]
async fn only_the_holder_renews() {
    let world = World::with_host(4).await;
    let holder = world.running("web").await;
    assert!(!world.store.build_renew(&holder, LEASE).await.unwrap().unwrap());
    let other = Holder { runner: RunnerId::new(), ..holder.clone() };
    let refused = world.store.build_renew(&other, LEASE).await.unwrap();
    assert_eq!(refused, Err(Refused::Stale { attempt: 1 }));
}

#[tokio::test]
async fn lease_that_ran_out_is_not_renewed() {
    let world = World::with_host(4).await;
    let holder = world.running("web").await;
    world.lease_runs_out(holder.build).await;
    assert!(world.store.build_renew(&holder, LEASE).await.unwrap().is_err());
}

#[tokio::test]
async fn stale_attempt_neither_renews_nor_releases() {
    let world = World::with_host(4).await;
    let stale = world.running("web").await;
    world.store.build_release(&stale).await.unwrap().unwrap();
    world.claim(stale.build, 2, RunnerId::new()).await.unwrap();
    let refused = Err(Refused::Stale { attempt: 2 });
    assert_eq!(world.store.build_renew(&stale, LEASE).await.unwrap().map(drop), refused);
    assert_eq!(world.store.build_release(&stale).await.unwrap(), refused);
    assert_eq!(world.status(stale.build).await, Status::Running);
}

#[tokio::test]
async fn renew_of_a_build_that_is_being_cancelled_says_so() {
    let world = World::with_host(4).await;
    let holder = world.running("web").await;
    world.cancel(holder.build).await;
    assert!(world.store.build_renew(&holder, LEASE).await.unwrap().unwrap());
    let refused = world.store.build_release(&holder).await.unwrap();
    assert_eq!(refused, Err(Refused::WrongStatus(Status::Cancelling)));
}

#[tokio::test]
async fn release_may_be_repeated_and_is_no_lost_attempt() {
    let world = World::with_host(4).await;
    let holder = world.running("web").await;
    for _ in 0..2 {
        world.store.build_release(&holder).await.unwrap().unwrap();
    }
    let row = world.row(holder.build).await;
    assert_eq!((row.status.as_str(), row.lost_attempts, row.attempt), ("queued", 0, 1));
}

#[tokio::test]
async fn expired_lease_requeues_then_fails_as_lost() {
    let world = World::with_host(4).await;
    let build = world.build("web").await;
    for attempt in 1..=3 {
        world.claim(build, attempt, RunnerId::new()).await.unwrap();
        assert!(world.store.build_expire(3, LEASE, 10).await.unwrap().is_empty());
        world.lease_runs_out(build).await;
        let expired = world.store.build_expire(3, LEASE, 10).await.unwrap();
        let status = if attempt < 3 { Status::Queued } else { Status::Failed };
        assert_eq!(
            (expired[0].build, expired[0].attempt, expired[0].status),
            (build, attempt, status)
        );
        assert!(world.store.build_expire(3, LEASE, 10).await.unwrap().is_empty());
    }
    let row = world.row(build).await;
    assert_eq!(row.reason.unwrap()["code"], "lost");
    assert!(row.completed_at.is_some());
}

#[tokio::test]
async fn lease_that_ends_while_nobody_could_be_heard_is_no_lost_attempt() {
    let world = World::with_host(4).await;
    let build = world.build("web").await;
    for (attempt, (since, last, lost)) in (1..).zip([
        // The lease was half a minute, and ended a second ago.
        ("33 seconds", "0 seconds", 1),
        ("29 seconds", "0 seconds", 1),
        ("1 hour", "18 seconds", 1),
        ("1 hour", "10 seconds", 2),
        ("1 hour", "1 hour", 2),
    ]) {
        world.claim(build, attempt, RunnerId::new()).await.unwrap();
        world.lease_runs_out_after(build, since, last).await;
        let expired = world.store.build_expire(3, LEASE, 10).await.unwrap();
        assert_eq!((expired[0].attempt, expired[0].status), (attempt, Status::Queued));
        assert_eq!(world.row(build).await.lost_attempts, lost, "{since}, {last}");
    }
    let reason = world.row(build).await.reason.unwrap();
    assert_eq!(reason["code"], "lost");
    let message = reason["message"].as_str().unwrap();
    assert!(message.contains("not counted") && message.contains("2 of 3"), "{message}");
}

#[tokio::test]
async fn hearing_begins_anew_after_a_break_and_goes_on_after_a_pause() {
    let world = World::with_host(1).await;
    let heard = || async {
        let row = world.store.connection().query_one_raw(Statement::from_string(
            DbBackend::Postgres,
            "SELECT extract(epoch FROM now() - since)::bigint AS since,
                    extract(epoch FROM now() - last)::bigint AS last FROM hearing",
        ));
        let row = row.await.unwrap().unwrap();
        (row.try_get::<i64>("", "since").unwrap(), row.try_get::<i64>("", "last").unwrap())
    };
    world.store.hearing_note(LEASE).await.unwrap();
    let (since, last) = heard().await;
    assert!(since < 10 && last < 10, "{since} {last}");
    world.heard_for("1 hour", "10 seconds").await;
    world.store.hearing_note(LEASE).await.unwrap();
    let (since, last) = heard().await;
    assert!(since >= 3600 && last < 10, "{since} {last}");
    world.heard_for("1 hour", "20 seconds").await;
    world.store.hearing_note(LEASE).await.unwrap();
    let (since, last) = heard().await;
    assert!(since < 10 && last < 10, "{since} {last}");
}

#[tokio::test]
async fn only_builds_that_wait_again_are_ended_when_their_time_is_over() {
    let world = World::with_host(4).await;
    let (never_begun, running) = (world.build("one").await, world.running("two").await);
    let waits = world.running("three").await;
    world.store.build_release(&waits).await.unwrap().unwrap();
    let hour = Duration::from_secs(3600);
    assert!(world.store.build_time_out(hour, 9).await.unwrap().is_empty(), "they began just now");
    world
        .sql(
            "UPDATE template_builds SET started_at = now() - interval '2 hours'
        WHERE started_at IS NOT NULL",
        )
        .await;
    let age = world.store.build_age(waits.build).await.unwrap();
    assert!(age >= 2 * hour && age < 3 * hour, "{age:?}");
    assert_eq!(world.store.build_age(never_begun).await.unwrap(), Duration::ZERO);
    let ends = join_all((0..3).map(|_| world.store.build_time_out(hour, 9))).await;
    let ended: Vec<_> = ends.into_iter().flat_map(Result::unwrap).collect();
    assert_eq!(ended.len(), 1);
    assert_eq!((ended[0].build, ended[0].status), (waits.build, Status::Failed));
    let row = world.row(waits.build).await;
    assert_eq!(row.reason.unwrap()["code"], "build_timeout");
    assert!(row.completed_at.is_some());
    for build in [never_begun, running.build] {
        assert!(!world.status(build).await.is_terminal());
    }
    let late = world.store.build_finish(&finish_of(&waits, success())).await.unwrap();
    assert!(late.is_err(), "{late:?}");
    assert!(world.claim(waits.build, 2, RunnerId::new()).await.is_err());
    let over = world.store.build_list_without_log_end(9).await.unwrap();
    assert!(over[0].lost.as_ref().unwrap().contains("longer than 1h"), "{:?}", over[0]);
}

#[tokio::test]
async fn losses_count_until_the_build_comes_further() {
    let world = World::with_host(4).await;
    let build = world.build("web").await;
    let mut attempt = 0;
    for (step, status) in [
        (1, Status::Queued),
        (1, Status::Queued),
        (2, Status::Queued),
        (2, Status::Queued),
        (1, Status::Failed),
    ] {
        attempt += 1;
        world.claim(build, attempt, RunnerId::new()).await.unwrap();
        world.sql(&format!("UPDATE template_builds SET current_step = {step}")).await;
        world.lease_runs_out(build).await;
        let expired = world.store.build_expire(3, LEASE, 10).await.unwrap();
        assert_eq!((expired[0].attempt, expired[0].status), (attempt, status), "step {step}");
    }
}
