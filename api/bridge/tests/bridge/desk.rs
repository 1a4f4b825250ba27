//! What runners get from the desk.

use futures::future::join_all;
use ovenbird_contract::{
    desk::{Finished, RefusalCode, ReleaseRequest, Released, RenewRequest, Renewed, Reply},
    id::RunnerId,
    log::Record,
};
use ovenbird_db::entity::template;
use ovenbird_testkit::wait_until;
use sea_orm::EntityTrait;

use crate::rig::{Rig, SOON, finish, ok};

fn code<T: std::fmt::Debug>(reply: Reply<T>) -> RefusalCode {
    match reply {
        Reply::Refused(refusal) => refusal.code,
        Reply::Ok(done) => panic!("not refused: {done:?}"),
    }
}

#[tokio::test]
async fn two_runners_claim_one_build_and_one_wins() {
    let mut rig = Rig::with_streams().await;
    rig.start_desk();
    let build = rig.build("web").await;
    let replies = join_all((0..6).map(|_| rig.claim(build, 1, RunnerId::new()))).await;
    let (won, lost): (Vec<_>, Vec<_>) =
        replies.into_iter().partition(|reply| matches!(reply, Reply::Ok(_)));
    assert_eq!((won.len(), lost.len()), (1, 5));
    assert!(lost.into_iter().all(|reply| code(reply) == RefusalCode::NotClaimable));
    let claim = ok(won.into_iter().next().unwrap());
    assert_eq!((claim.base.host_name.as_str(), claim.name.as_str()), ("minimal", "web"));
    assert_eq!((claim.log.next_seq, claim.log.stream_seq), (1, 0));
    assert_eq!(claim.plan["steps"][0], "RUN true");
    rig.stop().await;
}

#[tokio::test]
async fn repeated_claim_answers_the_same_but_where_the_log_stands_now() {
    let mut rig = Rig::with_streams().await;
    rig.start_desk();
    let (build, runner) = (rig.build("web").await, RunnerId::new());
    let first = ok(rig.claim(build, 1, runner).await);
    assert_eq!(ok(rig.claim(build, 1, runner).await), first);
    let at = rig.log(build, first.log, 3).await.unwrap();
    let again = ok(rig.claim(build, 1, runner).await);
    assert_eq!((again.log, again.template_id), (at, first.template_id));
    rig.stop().await;
}

#[tokio::test]
async fn stale_attempt_neither_renews_nor_finishes_nor_logs() {
    let mut rig = Rig::with_streams().await;
    rig.start_desk();
    let (build, stale, next) = (rig.build("web").await, RunnerId::new(), RunnerId::new());
    let first = ok(rig.claim(build, 1, stale).await);
    let at = rig.log(build, first.log, 2).await.unwrap();
    rig.lease_runs_out(build).await;
    rig.sweep().leases().await.unwrap();
    let second = ok(rig.claim(build, 2, next).await);
    // The desk's own record says that attempt 2 begins, and stands between the two runners.
    assert_eq!(second.log.next_seq, 4);
    assert!(rig.log(build, at, 1).await.is_err());
    let renew = RenewRequest { build_id: build, attempt: 1, runner_id: stale };
    assert_eq!(code(rig.ask::<_, Renewed>("renew", &renew).await), RefusalCode::StaleAttempt);
    let late = finish(&first, stale, at, 0);
    assert_eq!(code(rig.ask::<_, Finished>("finish", &late).await), RefusalCode::StaleAttempt);
    let renew = RenewRequest { build_id: build, attempt: 2, runner_id: next };
    assert!(!ok(rig.ask::<_, Renewed>("renew", &renew).await).cancel);
    rig.log(build, second.log, 1).await.unwrap();
    let seqs: Vec<u64> = rig.streamed(build).await.iter().map(Record::seq).collect();
    assert_eq!(seqs, [1, 2, 3, 4]);
    rig.stop().await;
}

#[tokio::test]
async fn finish_twice_answers_the_same_and_publishes_one_template_and_one_end() {
    let mut rig = Rig::with_streams().await;
    rig.start_desk();
    rig.start_ledger();
    let (build, runner) = (rig.build("web").await, RunnerId::new());
    let claim = ok(rig.claim(build, 1, runner).await);
    let at = rig.log(build, claim.log, 3).await.unwrap();
    let request = finish(&claim, runner, at, 0);
    let replies = join_all((0..4).map(|_| rig.ask::<_, Finished>("finish", &request))).await;
    assert!(replies.into_iter().all(|reply| ok(reply) == Finished {}));
    let templates = template::Entity::find().all(rig.store.connection()).await.unwrap();
    assert_eq!(templates.len(), 2);
    let records = rig.streamed(build).await;
    assert_eq!(records.len(), 4);
    assert!(records[3].is_end());
    wait_until("the end is stored", SOON, || async { rig.row(build).await.log_end_written }).await;
    let row = rig.row(build).await;
    assert_eq!((row.status.as_str(), row.log_seq), ("succeeded", 4));
    assert!(rig.log(build, at, 1).await.is_err());
    rig.stop().await;
}

#[tokio::test]
async fn released_build_is_queued_again_at_once() {
    let mut rig = Rig::with_streams().await;
    rig.start_desk();
    rig.start_relay("b1");
    let (build, runner_id) = (rig.build("web").await, RunnerId::new());
    ok(rig.claim(build, 1, runner_id).await);
    let release = ReleaseRequest {
        build_id: build,
        attempt: 1,
        runner_id,
        why: "draining".into(),
        lost: None,
    };
    for _ in 0..2 {
        ok(rig.ask::<_, Released>("release", &release).await);
    }
    let job = rig.job().await;
    assert_eq!((job.build_id, job.attempt), (build, 2));
    rig.stop().await;
}

#[tokio::test]
async fn request_that_cannot_be_read_is_refused() {
    let mut rig = Rig::with_streams().await;
    rig.start_desk();
    for verb in ["claim", "renew", "finish", "release"] {
        let reply =
            rig.ask::<_, serde_json::Value>(verb, &serde_json::json!({"build_id": 1})).await;
        assert_eq!(code(reply), RefusalCode::BadRequest, "{verb}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn finish_waits_for_the_ledger() {
    let mut rig = Rig::with_streams().await;
    rig.start_desk();
    let (build, runner) = (rig.build("web").await, RunnerId::new());
    let claim = ok(rig.claim(build, 1, runner).await);
    let event_seq = crate::ledger::step_finished(&rig, build, 1, 1).await;
    let request = finish(&claim, runner, claim.log, event_seq);
    let (finished, ()) = tokio::join!(rig.ask::<_, Finished>("finish", &request), async {
        assert_eq!(rig.row(build).await.status, "running");
    });
    // Without a ledger it ends after its wait.
    ok(finished);
    assert_eq!(rig.row(build).await.logs, serde_json::json!([]));
    let (build, runner) = (rig.build("lag").await, RunnerId::new());
    let claim = ok(rig.claim(build, 1, runner).await);
    let at = rig.log(build, claim.log, 3).await.unwrap();
    ok(rig.ask::<_, Finished>("finish", &finish(&claim, runner, at, 0)).await);
    assert_eq!(rig.row(build).await.log_seq, 0);

    rig.start_ledger();
    wait_until("the ledger to be at work", SOON, || async { rig.row(build).await.log_seq > 0 })
        .await;
    let (build, runner) = (rig.build("api").await, RunnerId::new());
    let claim = ok(rig.claim(build, 1, runner).await);
    let event_seq = crate::ledger::step_finished(&rig, build, 1, 1).await;
    let at = rig.log(build, claim.log, 3).await.unwrap();
    ok(rig.ask::<_, Finished>("finish", &finish(&claim, runner, at, event_seq)).await);
    let row = rig.row(build).await;
    assert_eq!((&row.logs[0]["cmd"], row.log_seq >= 3), (&serde_json::json!("RUN 1"), true));
    wait_until("the end is stored", SOON, || async { rig.row(build).await.log_end_written }).await;
    rig.stop().await;
}

#[tokio::test]
async fn success_whose_log_was_lost_before_it_was_stored_is_a_lost_attempt() {
    let mut rig = Rig::with_streams().await;
    rig.start_desk();
    let (build, runner) = (rig.build("web").await, RunnerId::new());
    let claim = ok(rig.claim(build, 1, runner).await);
    let at = rig.log(build, claim.log, 3).await.unwrap();
    rig.js.delete_stream(rig.names.logs_stream().name).await.unwrap();
    rig.ensure().await;
    let request = finish(&claim, runner, at, 0);
    assert_eq!(code(rig.ask::<_, Finished>("finish", &request).await), RefusalCode::StaleAttempt);
    assert_eq!(rig.row(build).await.status, "queued");
    let (next, runner) = (rig.claim(build, 2, RunnerId::new()).await, RunnerId::new());
    assert!(ok(next).resume.is_none(), "it begins from the first step");
    // One that is stored whole has no need of the stream.
    rig.start_ledger();
    let build = rig.build("api").await;
    let claim = ok(rig.claim(build, 1, runner).await);
    let at = rig.log(build, claim.log, 3).await.unwrap();
    wait_until("the log is stored", SOON, || async { rig.row(build).await.log_seq == 3 }).await;
    rig.js.delete_stream(rig.names.logs_stream().name).await.unwrap();
    rig.ensure().await;
    ok(rig.ask::<_, Finished>("finish", &finish(&claim, runner, at, 0)).await);
    assert_eq!(rig.row(build).await.status, "succeeded");
    rig.stop().await;
}
