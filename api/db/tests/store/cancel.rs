//! Cancels.

use std::time::Duration;

use futures::future::join_all;
use ovenbird_contract::{
    build::{Reason, ReasonCode, Status},
    desk::Outcome,
    id::{BuildId, RunnerId},
};
use ovenbird_db::store::{
    cancel::{Asked, Wish},
    claim, lease,
};

use crate::world::{LEASE, World, finish_of, report, success};

fn wish(build: BuildId, by: &str) -> Wish {
    Wish { build, by: by.into(), why: Some("a newer commit".into()) }
}

async fn ask(world: &World, build: BuildId) -> Asked {
    world.store.build_cancel(&wish(build, "key_first")).await.unwrap()
}

#[tokio::test]
async fn queued_build_is_cancelled_at_once_and_no_runner_gets_it() {
    let world = World::with_host(4).await;
    let build = world.build("web").await;
    let Asked::Now(row) = ask(&world, build).await else { panic!("not cancelled") };
    assert_eq!(row.status, "cancelled");
    assert!(row.completed_at.is_some());
    assert_eq!(row.sandbox_destroyed_at, None, "there was none");
    let refused = world.claim(build, 1, RunnerId::new()).await.unwrap_err();
    assert_eq!(refused, claim::Refused::NotClaimable(Status::Cancelled));
    let over = world.store.build_list_without_log_end(9).await.unwrap();
    assert_eq!(over[0].cancelled.as_deref(), Some("cancelled by key_first: a newer commit"));
}

#[tokio::test]
async fn second_cancel_changes_nothing_and_the_first_one_stays() {
    let world = World::with_host(4).await;
    let (queued, running) = (world.build("one").await, world.running("two").await.build);
    for (build, status) in [(queued, "cancelled"), (running, "cancelling")] {
        assert!(matches!(ask(&world, build).await, Asked::Now(_)));
        let first = world.row(build).await;
        let asks = (0..4)
            .map(|_| async { world.store.build_cancel(&wish(build, "key_second")).await.unwrap() });
        for asked in join_all(asks).await {
            let Asked::Before(row) = asked else { panic!("{asked:?}") };
            assert_eq!((row.status.as_str(), &*row), (status, &first));
        }
        assert_eq!(world.row(build).await, first);
    }
}

#[tokio::test]
async fn of_cancels_at_the_same_time_one_is_the_first() {
    let world = World::with_host(4).await;
    let build = world.running("web").await.build;
    let names: Vec<String> = (0..6).map(|n| format!("key_{n}")).collect();
    let asks = names
        .iter()
        .map(|name| async { world.store.build_cancel(&wish(build, name)).await.unwrap() });
    let asked = join_all(asks).await;
    let first: Vec<_> = asked.iter().filter(|asked| matches!(asked, Asked::Now(_))).collect();
    assert_eq!(first.len(), 1);
}

#[tokio::test]
async fn cancel_after_the_end_changes_nothing() {
    let world = World::with_host(4).await;
    let holder = world.running("web").await;
    world.store.build_finish(&finish_of(&holder, success())).await.unwrap().unwrap();
    let before = world.row(holder.build).await;
    assert_eq!(ask(&world, holder.build).await, Asked::Over(Status::Succeeded));
    assert_eq!(world.row(holder.build).await, before);
    assert_eq!(ask(&world, BuildId::new()).await, Asked::NotFound);
}

/// Fault 4 of the closest pipeline: there, `running` overwrites a cancel, and an error turns `cancelled`
/// into `failed`.
#[tokio::test]
async fn nothing_but_the_end_of_the_sandbox_ends_a_build_that_is_being_cancelled() {
    let world = World::with_host(4).await;
    let holder = world.running("web").await;
    ask(&world, holder.build).await;
    let failed = Reason {
        code: ReasonCode::HostLost,
        message: "create failed".into(),
        step: None,
        tail: None,
    };
    for outcome in [success(), Outcome::Failed { reason: failed }] {
        let refused = world.store.build_finish(&finish_of(&holder, outcome)).await.unwrap();
        assert_eq!(refused, Err(lease::Refused::WrongStatus(Status::Cancelling)));
    }
    assert!(world.store.build_release(&holder).await.unwrap().is_err());
    assert!(world.claim(holder.build, 1, holder.runner).await.is_err());
    assert!(world.claim(holder.build, 2, RunnerId::new()).await.is_err());
    world.lease_runs_out(holder.build).await;
    assert!(world.store.build_expire(1, LEASE, 10).await.unwrap().is_empty());
    assert_eq!(world.status(holder.build).await, Status::Cancelling);
}

#[tokio::test]
async fn cancel_without_a_runner_ends_by_the_sweep_once_and_only_after_the_lease() {
    let world = World::with_host(4).await;
    let holder = world.running("web").await;
    ask(&world, holder.build).await;
    assert!(world.store.build_list_cancel_left(9).await.unwrap().is_empty(), "the runner does it");
    assert!(world.store.build_renew(&holder, LEASE).await.unwrap().unwrap(), "the runner hears");
    world.lease_runs_out(holder.build).await;
    let left = world.store.build_list_cancel_left(9).await.unwrap();
    assert_eq!((left.len(), left[0].build, left[0].attempt), (1, holder.build, 1));
    let row = world.row(holder.build).await;
    assert_eq!(left[0].template.map(|id| id.uuid()), row.planned_template_id);
    assert_eq!((Some(left[0].host.uuid()), left[0].address.as_str()), (row.host_id, "10.0.0.1:1"));
    let ends = join_all((0..3).map(|_| world.store.build_cancel_end(&left[0], None))).await;
    assert_eq!(ends.iter().filter(|end| end.as_ref().unwrap().is_some()).count(), 1);
    let row = world.row(holder.build).await;
    assert_eq!((row.status.as_str(), row.reason), ("cancelled", None));
    assert!(row.sandbox_destroyed_at.is_some());
    // The runner was only slow.
    let late = world.store.build_finish(&finish_of(&holder, success())).await.unwrap();
    assert_eq!(late, Err(lease::Refused::WrongStatus(Status::Cancelled)));
}

#[tokio::test]
async fn end_without_the_hosts_word_says_why_until_there_is_one() {
    let world = World::with_host(4).await;
    let holder = world.running("web").await;
    ask(&world, holder.build).await;
    world.lease_runs_out(holder.build).await;
    let left = world.store.build_list_cancel_left(9).await.unwrap().remove(0);
    let reason = |message: &str| Reason {
        code: ReasonCode::HostLost,
        message: message.into(),
        step: None,
        tail: None,
    };
    for _ in 0..2 {
        world.store.build_cancel_waits(&left, &reason("it does not answer")).await.unwrap();
    }
    let row = world.row(holder.build).await;
    assert_eq!((row.status.as_str(), row.sandbox_destroyed_at), ("cancelling", None));
    assert_eq!(row.reason.unwrap()["message"], "it does not answer");
    let unproven = || world.store.build_list_unproven(9);
    assert!(unproven().await.unwrap().is_empty(), "it is not over");

    let gave_up = reason("it has not answered");
    let ended = world.store.build_cancel_end(&left, Some(&gave_up)).await.unwrap().unwrap();
    assert!(ended.cancelled.unwrap().ends_with("(it has not answered)"));
    assert_eq!(world.row(holder.build).await.sandbox_destroyed_at, None);
    world.store.host_unreachable("10.0.0.1:1").await.unwrap();
    assert!(unproven().await.unwrap().is_empty(), "it is not asked while it is away");
    world.store.host_report(&report("10.0.0.1:1", 4), Duration::ZERO).await.unwrap();
    assert_eq!(unproven().await.unwrap()[0].build, holder.build);
    world.store.build_sandbox_destroyed(holder.build).await.unwrap();
    let row = world.row(holder.build).await;
    assert!(row.sandbox_destroyed_at.is_some() && row.reason.is_none());
    assert!(unproven().await.unwrap().is_empty());
    world.store.build_sandbox_destroyed(holder.build).await.unwrap();
    assert_eq!(world.row(holder.build).await, row, "the first word stays");
}
