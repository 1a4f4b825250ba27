//! Who gets a build, and where it runs.

use futures::future::join_all;
use ovenbird_contract::{build::Status, id::RunnerId};
use ovenbird_db::store::claim::Refused;

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
    let again = world.claim(holder.build, 2, RunnerId::new()).await.unwrap();
    assert_eq!(again.previous_sandbox, Some(sandbox));
    assert_eq!((again.build.current_step, again.build.logs), (0, serde_json::json!([])));
    assert_ne!(again.build.planned_template_id, None);
}
