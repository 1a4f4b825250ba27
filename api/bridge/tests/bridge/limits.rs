//! A key that has as many builds running as it may.

use ovenbird_contract::{
    desk::{Finished, RefusalCode, Reply},
    id::{BuildId, RunnerId},
};
use ovenbird_testkit::wait_until;
use sea_orm::ConnectionTrait as _;

use crate::{
    rig::{Rig, SOON, finish, ok},
    whole::start_bridge,
};

#[tokio::test]
async fn builds_over_the_limit_wait_outside_of_the_queue_and_come_one_by_one() {
    let mut rig = Rig::new().await;
    start_bridge(&mut rig, "key_builds_max = 2\nsweep_interval = '200ms'\npush_after = '0s'\n")
        .await;
    let mut theirs = Vec::new();
    for name in ["a", "b", "c", "d"] {
        theirs.push(rig.build(name).await);
    }
    let other = rig.build("other").await;
    let sql = "UPDATE template_builds SET requested_by = 'other' WHERE name = 'other'";
    rig.store.connection().execute_unprepared(sql).await.unwrap();
    rig.queue.push(&[theirs.clone(), vec![other]].concat()).await.unwrap();
    wait_until("two to be held", SOON, || async {
        rig.row(theirs[2]).await.held_since.is_some()
            && rig.row(theirs[3]).await.held_since.is_some()
    })
    .await;

    let runner = RunnerId::new();
    let taken: [BuildId; 3] =
        [rig.job().await.build_id, rig.job().await.build_id, rig.job().await.build_id];
    assert_eq!(taken, [theirs[0], theirs[1], other], "nobody waits behind a key at its limit");
    let mut claims = Vec::new();
    for build in taken {
        claims.push(ok(rig.claim(build, 1, runner).await));
    }
    // A job from before the limit, say.
    let Reply::Refused(refusal) = rig.claim(theirs[2], 1, runner).await else {
        panic!("over the limit");
    };
    assert_eq!((refusal.code, refusal.retry_after_ms), (RefusalCode::KeyLimit, None));
    assert_eq!(rig.jobs().await, 0, "what is held is in no queue");

    for (claim, next) in claims.iter().zip(&theirs[2..]) {
        ok(rig.ask::<_, Finished>("finish", &finish(claim, runner, claim.log, 0)).await);
        assert_eq!(rig.job().await.build_id, *next);
        wait_until("its job to be noted", SOON, || async {
            rig.row(*next).await.held_since.is_none()
        })
        .await;
        ok(rig.claim(*next, 1, runner).await);
    }
    rig.stop().await;
}

#[tokio::test]
async fn turn_that_nobody_told_of_is_found_by_the_sweep() {
    let mut rig = Rig::new().await;
    start_bridge(&mut rig, "key_builds_max = 1\nsweep_interval = '100ms'\npush_after = '0s'\n")
        .await;
    let (first, second) = (rig.build("a").await, rig.build("b").await);
    rig.queue.push(&[first, second]).await.unwrap();
    assert_eq!(rig.job().await.build_id, first);
    wait_until("the second to be held", SOON, || async {
        rig.row(second).await.held_since.is_some()
    })
    .await;
    // As the api cancels a build that waits.
    let sql = format!(
        "UPDATE template_builds SET status = 'cancelled', cancel_requested_at = now(), completed_at = now()
         WHERE id = '{}'",
        first.uuid()
    );
    rig.store.connection().execute_unprepared(&sql).await.unwrap();
    assert_eq!(rig.job().await.build_id, second);
    rig.stop().await;
}
