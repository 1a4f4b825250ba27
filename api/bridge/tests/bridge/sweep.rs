//! What becomes true again whatever died.

use std::time::Duration;

use ovenbird_contract::{
    build::{Reason, ReasonCode, Status},
    desk::{Finished, Outcome},
    id::{BuildId, KeyId, RunnerId},
    log::{LogCaps, Record},
};
use ovenbird_db::store::{
    audit::{AuditFilter, NewEntry},
    claim, finish,
    idempotency::{Claim, Claimed, Slot},
    key::NewKey,
    lease::Holder,
    ledger::LogBatch,
};
use ovenbird_testkit::wait_until;
use redis::AsyncCommands;
use sea_orm::ConnectionTrait as _;
use uuid::Uuid;

use crate::rig::{LEASE, Rig, SOON, Servers, TIME_MAX, finish as finish_of, line, ok};

async fn failed(rig: &Rig, name: &str) -> BuildId {
    let (build, runner) = (rig.build(name).await, RunnerId::new());
    let request = claim::Request { build, attempt: 1, runner, lease: LEASE };
    rig.store.build_claim(&request).await.unwrap().unwrap();
    let reason =
        Reason { code: ReasonCode::StepFailed, message: "no".into(), step: None, tail: None };
    let request = finish::Request {
        holder: Holder { build, attempt: 1, runner },
        outcome: Outcome::Failed { reason },
    };
    rig.store.build_finish(&request).await.unwrap().unwrap();
    build
}

#[tokio::test]
async fn list_of_a_dead_bridge_is_reclaimed_in_its_order() {
    let rig = Rig::new().await;
    let mut redis = rig.redis.clone();
    let () = redis.rpush(rig.keys.queued(), "third").await.unwrap();
    let () = redis.rpush(rig.keys.relaying("dead"), vec!["first", "second"]).await.unwrap();
    let () = redis.rpush(rig.keys.relaying("lives"), "other").await.unwrap();
    rig.queue.alive("lives", Duration::from_secs(60)).await.unwrap();
    assert_eq!(rig.sweep().relaying().await.unwrap(), 2);
    assert_eq!(rig.sweep().relaying().await.unwrap(), 0);
    assert_eq!(rig.list(rig.keys.queued()).await, ["first", "second", "third"]);
    assert_eq!(rig.list(rig.keys.relaying("lives")).await, ["other"]);
}

#[tokio::test]
async fn queued_build_is_pushed_again_when_redis_was_emptied() {
    let mut rig = Rig::with_streams().await;
    let build = rig.build("web").await;
    rig.queue.push(&[build]).await.unwrap();
    let mut redis = rig.redis.clone();
    let sweep = rig.sweep();
    assert_eq!(sweep.queued().await.unwrap(), 0, "its id is in Redis");
    let () = redis.del(rig.keys.queued()).await.unwrap();
    assert_eq!(sweep.queued().await.unwrap(), 1);
    assert_eq!(sweep.queued().await.unwrap(), 0, "its id is in Redis again");
    rig.start_relay("b1");
    assert_eq!(rig.job().await.build_id, build);
    rig.stop().await;
}

#[tokio::test]
async fn job_that_was_acknowledged_without_a_claim_comes_again() {
    let mut rig = Rig::with_streams().await;
    rig.start_relay("b1");
    let build = rig.build("web").await;
    rig.queue.push(&[build]).await.unwrap();
    let sweep = rig.sweep();
    for _ in 0..2 {
        let job = rig.job().await;
        assert_eq!((job.build_id, job.attempt), (build, 1));
        // The relay may note the job a moment after a runner has it.
        ovenbird_testkit::wait_until("the job is found gone", crate::rig::SOON, || async {
            sweep.jobs().await.unwrap() == 1
        })
        .await;
        assert_eq!(sweep.queued().await.unwrap(), 1);
    }
    rig.stop().await;
}

#[tokio::test]
async fn job_that_went_with_its_stream_comes_again() {
    let mut rig = Rig::with_streams().await;
    rig.start_relay("b1");
    let build = rig.build("web").await;
    rig.queue.push(&[build]).await.unwrap();
    let sweep = rig.sweep();
    ovenbird_testkit::wait_until("the job is noted", crate::rig::SOON, || async {
        rig.row(build).await.job_published_at.is_some()
    })
    .await;
    assert_eq!(sweep.jobs().await.unwrap(), 0, "it waits in the stream");
    rig.js.delete_stream(rig.names.builds_stream().name).await.unwrap();
    assert!(sweep.jobs().await.is_err());
    rig.ensure().await;
    assert_eq!(sweep.jobs().await.unwrap(), 1);
    assert_eq!(sweep.queued().await.unwrap(), 1);
    assert_eq!(rig.job().await.build_id, build);
    rig.stop().await;
}

#[tokio::test]
async fn old_job_is_looked_for_and_comes_again_only_when_it_is_gone() {
    let mut rig = Rig::with_streams().await;
    rig.start_relay("b1");
    let (waits, gone) = (rig.build("waits").await, rig.build("gone").await);
    rig.queue.push(&[waits, gone]).await.unwrap();
    ovenbird_testkit::wait_until("the jobs are noted", crate::rig::SOON, || async {
        rig.row(waits).await.job_published_at.is_some()
            && rig.row(gone).await.job_published_at.is_some()
    })
    .await;
    let seq = rig.row(gone).await.job_stream_seq.unwrap().cast_unsigned();
    let stream = rig.js.get_stream(rig.names.builds_stream().name).await.unwrap();
    stream.delete_message(seq).await.unwrap();
    let mut sweep = rig.sweep();
    assert_eq!(sweep.jobs().await.unwrap(), 0, "nothing is old");
    sweep.times.job_fallback = Duration::ZERO;
    assert_eq!(sweep.jobs().await.unwrap(), 1);
    assert_eq!((rig.row(waits).await.job_resends, rig.row(gone).await.job_resends), (0, 1));
    assert_eq!(sweep.jobs().await.unwrap(), 0, "the one that waits is there");
    rig.stop().await;
}

#[tokio::test]
async fn fault_5_expired_lease_requeues_then_fails_as_lost_and_says_so_in_the_log() {
    let mut rig = Rig::with_streams().await;
    rig.start_relay("b1");
    rig.start_desk();
    let build = rig.build("web").await;
    rig.queue.push(&[build]).await.unwrap();
    let sweep = rig.sweep();
    for attempt in 1..=3 {
        let job = rig.job().await;
        assert_eq!((job.build_id, job.attempt), (build, attempt));
        ok(rig.claim(build, attempt, RunnerId::new()).await);
        rig.lease_runs_out(build).await;
        assert_eq!(sweep.leases().await.unwrap(), 1);
        assert_eq!(sweep.leases().await.unwrap(), 0);
    }
    let row = rig.row(build).await;
    assert_eq!((row.status.as_str(), row.lost_attempts), ("failed", 3));
    assert_eq!(row.reason.unwrap()["code"], "lost");
    for ends in [1, 0] {
        assert_eq!(sweep.ends().await.unwrap(), ends);
    }
    let records = rig.streamed(build).await;
    assert_eq!(records.iter().map(Record::seq).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(matches!(&records[2], Record::Line(line) if line.text.contains("used up")));
    assert_eq!(records[3], Record::end(4, Status::Failed));
    rig.stop().await;
}

/// An attempt whose runner is never heard of, until a sweep has ended it; answers the losses that count.
async fn lose(rig: &Rig, build: BuildId) -> i32 {
    let attempt = rig.row(build).await.attempt.unsigned_abs() + 1;
    let request = claim::Request { build, attempt, runner: RunnerId::new(), lease: LEASE };
    rig.store.build_claim(&request).await.unwrap().unwrap();
    rig.lease_ends(build).await;
    let queued = || async { rig.row(build).await.status == "queued" };
    wait_until("the end of the lease", SOON, queued).await;
    rig.row(build).await.lost_attempts
}

#[tokio::test]
async fn lost_attempts_count_only_when_desks_could_be_heard_for_a_whole_lease() {
    let mut servers = Servers::durable().await;
    let mut rig = Rig::on(&servers).await;
    rig.ensure().await;
    let build = rig.build("web").await;
    // So that a machine that stands still for a second makes no break.
    let lease = Duration::from_secs(3);
    let mut sweep = rig.sweep();
    sweep.times.lease = lease;
    rig.spawn(sweep.run(rig.stop_token()));
    rig.start_desk_with(lease);
    let first =
        "INSERT INTO hearing (since, last) VALUES (now(), now()) ON CONFLICT (id) DO NOTHING";
    rig.store.connection().execute_unprepared(first).await.unwrap();
    assert_eq!(lose(&rig, build).await, 0, "the desk has just begun");
    wait_until("a loss that counts", 3 * SOON, || async { Box::pin(lose(&rig, build)).await == 1 })
        .await;

    servers.nats.kill9();
    wait_until("a lease without a desk", SOON, || async {
        let silent = "UPDATE hearing SET id = 1 WHERE last < now() - interval '3 seconds'";
        let silent = rig.store.connection().execute_unprepared(silent).await.unwrap();
        silent.rows_affected() == 1
    })
    .await;
    for _ in 0..4 {
        assert_eq!(lose(&rig, build).await, 1, "NATS is away");
    }
    servers.nats.restart().await.unwrap();
    assert_eq!(lose(&rig, build).await, 1, "NATS has just come back");
    wait_until("a loss that counts", 3 * SOON, || async { Box::pin(lose(&rig, build)).await == 2 })
        .await;
    rig.stop().await;
}

#[tokio::test]
async fn build_whose_time_is_over_while_no_runner_has_it_fails_and_says_so_in_the_log() {
    let mut rig = Rig::with_streams().await;
    rig.start_desk();
    let (build, fresh) = (rig.build("web").await, rig.build("fresh").await);
    let claim = ok(rig.claim(build, 1, RunnerId::new()).await);
    let limit = claim.time_limit.unwrap();
    assert_eq!((limit.max_ms, limit.left_ms), (3_600_000, 3_600_000));
    assert_eq!(claim.log_caps, LogCaps { step_bytes: 1_000, build_bytes: 2_000 });
    let sweep = rig.sweep();
    rig.began(build, TIME_MAX / 2).await;
    rig.lease_runs_out(build).await;
    assert_eq!(sweep.leases().await.unwrap(), 1);
    assert_eq!(sweep.times_over().await.unwrap(), 0, "half of its time is left");
    let left = ok(rig.claim(build, 2, RunnerId::new()).await).time_limit.unwrap().left_ms;
    assert!((1_700_000..=1_800_000).contains(&left), "{left}");
    rig.began(build, TIME_MAX * 2).await;
    assert_eq!(sweep.times_over().await.unwrap(), 0, "its runner ends it");
    rig.lease_runs_out(build).await;
    assert_eq!(sweep.leases().await.unwrap(), 1);
    assert_eq!(sweep.times_over().await.unwrap(), 1);
    assert_eq!(sweep.times_over().await.unwrap(), 0);
    let row = rig.row(build).await;
    assert_eq!((row.status.as_str(), rig.row(fresh).await.status.as_str()), ("failed", "queued"));
    assert_eq!(row.reason.unwrap()["code"], "build_timeout");
    assert_eq!(sweep.ends().await.unwrap(), 1);
    let records = rig.streamed(build).await;
    let said = &records[records.len() - 2];
    assert!(matches!(said, Record::Line(line) if line.text.contains("longer than 1h")), "{said:?}");
    assert_eq!(records.last().unwrap(), &Record::end(records.len() as u64, Status::Failed));
    rig.stop().await;
}

#[tokio::test]
async fn end_of_a_log_is_written_exactly_once_by_several_bridges() {
    let rig = Rig::with_streams().await;
    let (one, two) = (failed(&rig, "one").await, failed(&rig, "two").await);
    let sweeps = [rig.sweep(), rig.sweep(), rig.sweep()];
    for result in futures::future::join_all(sweeps.iter().map(|sweep| sweep.ends())).await {
        result.unwrap();
    }
    rig.sweep().ends().await.unwrap();
    for build in [one, two] {
        assert_eq!(rig.streamed(build).await, [Record::end(1, Status::Failed)]);
    }
}

#[tokio::test]
async fn end_that_the_stream_lost_before_it_was_stored_is_written_once_more() {
    let mut rig = Rig::with_streams().await;
    rig.start_desk();
    let (build, runner) = (rig.build("web").await, RunnerId::new());
    let claim = ok(rig.claim(build, 1, runner).await);
    let at = rig.log(build, claim.log, 3).await.unwrap();
    let reason =
        Reason { code: ReasonCode::StepFailed, message: "no".into(), step: Some(1), tail: None };
    let mut request = finish_of(&claim, runner, at, 0);
    request.outcome = Outcome::Failed { reason };
    ok(rig.ask::<_, Finished>("finish", &request).await);
    assert_eq!(rig.streamed(build).await.last(), Some(&Record::end(4, Status::Failed)));
    // All but the last lines and the end is stored.
    let records = vec![line(1), line(2)];
    rig.store.build_log_store(&[LogBatch { build, stream_seq: 1, records }]).await.unwrap();
    rig.js.delete_stream(rig.names.logs_stream().name).await.unwrap();
    rig.ensure().await;
    for _ in 0..2 {
        rig.sweep().ends().await.unwrap();
    }
    rig.start_ledger();
    wait_until("the end is stored", SOON, || async { rig.row(build).await.log_end_written }).await;
    assert_eq!(rig.sweep().ends().await.unwrap(), 0);
    let stored = rig.stored(build).await;
    let said =
        |record: &Record| matches!(record, Record::Line(line) if line.text.contains("missing"));
    assert!(said(&stored[2]), "{stored:?}");
    assert_eq!((stored.len(), &stored[3]), (4, &Record::end(4, Status::Failed)));
    rig.stop().await;
}

#[tokio::test]
async fn answers_and_audit_entries_go_when_their_time_is_over() {
    let rig = Rig::new().await;
    let hash = [7; 32];
    let key =
        NewKey { id: KeyId::new(), name: "k".into(), hash, scope: "read".into(), expires_at: None };
    rig.store.key_insert(&key).await.unwrap();
    let claim = |name: &str, kept: Duration| Claim {
        slot: Slot { api_key: key.id, operation: "build_create".into(), key: name.into() },
        fingerprint: hash,
        resource: Uuid::now_v7(),
        holder: Uuid::new_v4(),
        hold: LEASE,
        kept,
    };
    let (old, young) = (claim("old", Duration::ZERO), claim("young", LEASE));
    for claim in [&old, &young] {
        let claimed = rig.store.idempotency_claim(claim).await.unwrap();
        assert_eq!(claimed, Claimed::Yours { resource: claim.resource });
    }
    assert_eq!(rig.sweep().answers().await.unwrap(), 1);
    assert_eq!(rig.sweep().answers().await.unwrap(), 0);
    let again = rig.store.idempotency_claim(&young).await.unwrap();
    assert_eq!(again, Claimed::Held, "the young one is still there");

    let entry = |action: &str| NewEntry {
        id: Uuid::now_v7(),
        actor: "anonymous".into(),
        action: action.into(),
        target: "/".into(),
        request_id: None,
        status: Some(401),
        details: serde_json::json!({}),
    };
    rig.store.audit_insert(&entry("old")).await.unwrap();
    let aged = "UPDATE audit_log SET at = now() - interval '1 hour'";
    rig.store.connection().execute_unprepared(aged).await.unwrap();
    rig.store.audit_insert(&entry("young")).await.unwrap();
    assert_eq!(rig.sweep().audit().await.unwrap(), 1);
    assert_eq!(rig.sweep().audit().await.unwrap(), 0);
    let left = rig.store.audit_list(&AuditFilter::default(), None, 9).await.unwrap();
    assert_eq!(left.iter().map(|it| it.action.as_str()).collect::<Vec<_>>(), ["young"]);
}
