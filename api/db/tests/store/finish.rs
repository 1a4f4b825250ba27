//! The end of a build.

use futures::future::join_all;
use ovenbird_contract::{
    build::{Reason, ReasonCode, Status},
    desk::Outcome,
    id::RunnerId,
    log::Record,
};
use ovenbird_db::{
    entity::{template, template_placement, template_tag},
    store::{lease::Refused, ledger::LogBatch},
};

use crate::world::{LEASE, World, finish_of, success};

#[tokio::test]
async fn success_publishes_template_tag_and_placement() {
    let world = World::with_host(4).await;
    let holder = world.running("web").await;
    let ended = world.store.build_finish(&finish_of(&holder, success())).await.unwrap().unwrap();
    assert_eq!((ended.status, ended.log_seq, ended.lost), (Status::Succeeded, 0, None));
    let template = world.store.template_resolve("web", "latest").await.unwrap().unwrap();
    let row = world.row(holder.build).await;
    assert_eq!(row.template_id, Some(template.id));
    assert_eq!(row.planned_template_id, Some(template.id));
    assert!(row.completed_at.is_some());
    assert_eq!(template.default_user.as_deref(), Some("app"));
    assert!(template.host_name.starts_with("tpl_"));
    assert_eq!(world.count::<template_placement::Entity>().await, 2);
}

#[tokio::test]
async fn repeated_finish_answers_the_same_and_publishes_once() {
    let world = World::with_host(4).await;
    let holder = world.running("web").await;
    let request = finish_of(&holder, success());
    let first = world.store.build_finish(&request).await.unwrap().unwrap();
    let answers = join_all((0..4).map(|_| world.store.build_finish(&request))).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap().unwrap() == first));
    assert_eq!(world.count::<template::Entity>().await, 2);
    assert_eq!(world.count::<template_tag::Entity>().await, 2);
}

#[tokio::test]
async fn stale_attempt_publishes_nothing() {
    let world = World::with_host(4).await;
    let stale = world.running("web").await;
    world.lease_runs_out(stale.build).await;
    let late = finish_of(&stale, success());
    assert!(world.store.build_finish(&late).await.unwrap().is_err());
    world.store.build_expire(3, LEASE, 10).await.unwrap();
    // Of a build that is over its runner would remove the template, which the next attempt looks for.
    let refused = world.store.build_finish(&late).await.unwrap();
    assert_eq!(refused, Err(Refused::Stale { attempt: 1 }));
    world.claim(stale.build, 2, RunnerId::new()).await.unwrap();
    let refused = world.store.build_finish(&late).await.unwrap();
    assert_eq!(refused, Err(Refused::Stale { attempt: 2 }));
    assert_eq!(world.count::<template::Entity>().await, 1);
    assert_eq!(world.status(stale.build).await, Status::Running);
}

#[tokio::test]
async fn cancelled_build_never_ends_otherwise() {
    let world = World::with_host(4).await;
    let holder = world.running("web").await;
    let early = world.store.build_finish(&finish_of(&holder, Outcome::Cancelled)).await.unwrap();
    assert_eq!(early, Err(Refused::WrongStatus(Status::Running)));
    world.cancel(holder.build).await;
    for outcome in [success(), failure()] {
        let refused = world.store.build_finish(&finish_of(&holder, outcome)).await.unwrap();
        assert_eq!(refused, Err(Refused::WrongStatus(Status::Cancelling)));
    }
    let ended =
        world.store.build_finish(&finish_of(&holder, Outcome::Cancelled)).await.unwrap().unwrap();
    assert_eq!(ended.status, Status::Cancelled);
    assert!(world.row(holder.build).await.sandbox_destroyed_at.is_some());
    assert_eq!(world.count::<template::Entity>().await, 1);
}

#[tokio::test]
async fn rebuild_of_a_name_moves_the_tag_and_keeps_where_it_pointed() {
    let world = World::with_host(4).await;
    let mut published = Vec::new();
    for _ in 0..2 {
        let holder = world.running("web").await;
        world.store.build_finish(&finish_of(&holder, success())).await.unwrap().unwrap();
        published.push(world.row(holder.build).await.template_id.unwrap());
    }
    let now = world.store.template_resolve("web", "latest").await.unwrap().unwrap();
    assert_eq!(now.id, published[1]);
    assert_eq!(world.count::<template_tag::Entity>().await, 3);
    assert_eq!(world.count::<template::Entity>().await, 3);
}

#[tokio::test]
async fn builds_of_one_name_may_end_at_the_same_time() {
    let world = World::with_host(8).await;
    let holders = join_all((0..6).map(|_| world.running("web"))).await;
    let requests: Vec<_> = holders.iter().map(|holder| finish_of(holder, success())).collect();
    let ends = join_all(requests.iter().map(|request| world.store.build_finish(request))).await;
    assert!(ends.into_iter().all(|end| end.unwrap().is_ok()));
    assert_eq!(world.count::<template::Entity>().await, 7);
}

#[tokio::test]
async fn failure_keeps_its_reason_even_with_a_nul_in_its_tail() {
    let world = World::with_host(4).await;
    let holder = world.running("web").await;
    world.store.build_finish(&finish_of(&holder, failure())).await.unwrap().unwrap();
    let row = world.row(holder.build).await;
    assert_eq!((row.status.as_str(), row.template_id), ("failed", None));
    assert_eq!(row.reason.unwrap()["tail"], "a\u{fffd}b");
}

#[tokio::test]
async fn build_without_the_end_of_its_log_is_listed_until_that_is_stored() {
    let world = World::with_host(4).await;
    let holder = world.running("web").await;
    assert!(world.store.build_list_without_log_end(10).await.unwrap().is_empty());
    world.store.build_finish(&finish_of(&holder, failure())).await.unwrap().unwrap();
    let listed = world.store.build_list_without_log_end(10).await.unwrap();
    assert_eq!((listed.len(), listed[0].build), (1, holder.build));
    let end = LogBatch {
        build: holder.build,
        stream_seq: 2,
        records: vec![Record::end(1, Status::Failed)],
    };
    world.store.build_log_store(&[end]).await.unwrap();
    assert!(world.store.build_list_without_log_end(10).await.unwrap().is_empty());
}

#[tokio::test]
async fn failure_after_the_lease_counts_as_long_as_nobody_took_the_build() {
    let world = World::with_host(4).await;
    let [left, taken] = [world.running("left").await, world.running("taken").await];
    world.lease_runs_out(left.build).await;
    let ended = world.store.build_finish(&finish_of(&left, failure())).await.unwrap().unwrap();
    assert_eq!(ended.status, Status::Failed);
    world.lease_runs_out(taken.build).await;
    world.store.build_expire(3, LEASE, 10).await.unwrap();
    assert!(world.store.build_finish(&finish_of(&taken, failure())).await.unwrap().is_err());
    assert_eq!(world.status(taken.build).await, Status::Queued);
}

fn failure() -> Outcome {
    Outcome::Failed {
        reason: Reason {
            code: ReasonCode::StepFailed,
            message: "step 1 failed".into(),
            step: Some(1),
            tail: Some("a\0b".into()),
        },
    }
}
