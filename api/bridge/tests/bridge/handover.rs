//! What the second attempt of a build is told, and what is left of the first.

use ovenbird_contract::{
    build::{Reason, ReasonCode},
    desk::{Claim, LogPosition, ReleaseRequest, Released, Reply},
    id::{BuildId, HostId, RunnerId},
    log::{Batch, Record, Resume},
    standing::Standing,
};
use ovenbird_testkit::wait_until;

use crate::rig::{Rig, SOON, line, ok};

type Claimed = Claim<serde_json::Value>;

fn standing(claim: &Claimed) -> Standing {
    let output =
        Resume { exec_id: "run".into(), stdout: 14, stderr: 14, step: 1, ..Resume::default() };
    Standing {
        host_id: claim.host.id,
        sandbox_id: "sbx_01h455vb4pex5vsknk084sn02q".into(),
        ready: true,
        steps_done: 0,
        step_try: 1,
        healthy: false,
        failed: None,
        outputs: vec![output],
        log_bytes: 14,
    }
}

fn text(record: &Record) -> &str {
    match record {
        Record::Line(line) => &line.text,
        Record::End(_) => "end",
    }
}

/// A repeated claim is the same, but that less time is left.
fn assert_same(again: Claimed, first: &Claimed) {
    let left = |claim: &Claimed| claim.time_limit.unwrap().left_ms;
    assert!(left(&again) <= left(first));
    assert_eq!(Claim { time_limit: first.time_limit, ..again }, *first);
}

/// The runner is not heard of any more. A row that the ledger is just writing to is left to the sweep's next run.
async fn expire(rig: &Rig, build: BuildId) {
    rig.lease_runs_out(build).await;
    wait_until("the lease is ended", SOON, || async {
        rig.sweep().leases().await.unwrap();
        rig.row(build).await.status == "queued"
    })
    .await;
}

/// The first attempt logs two lines and where it stands, and is not heard of any more.
async fn lost(rig: &mut Rig, of: impl Fn(&Claimed) -> Option<Standing>) -> (BuildId, Claimed) {
    let build = rig.build("web").await;
    let first = ok(rig.claim(build, 1, RunnerId::new()).await);
    let records = vec![line(1), line(2)];
    let batch = Batch { records, resume: None, standing: of(&first) };
    rig.log_batch(build, first.log, &batch).await.unwrap();
    expire(rig, build).await;
    (build, first)
}

#[tokio::test]
async fn second_attempt_goes_on_where_the_log_says_and_keeps_what_there_is() {
    let mut rig = Rig::with_streams().await;
    rig.start_desk();
    rig.start_ledger();
    let build = rig.build("web").await;
    let first = ok(rig.claim(build, 1, RunnerId::new()).await);
    crate::ledger::step_finished(&rig, build, 1, 1).await;
    let batch =
        Batch { records: vec![line(1), line(2)], resume: None, standing: Some(standing(&first)) };
    let at = rig.log_batch(build, first.log, &batch).await.unwrap();
    expire(&rig, build).await;
    let runner = RunnerId::new();
    let second = ok(rig.claim(build, 2, runner).await);
    let from = second.resume.clone().expect("it goes on");
    assert_eq!(from.standing, standing(&first));
    let lines: Vec<&str> = from.lines.iter().map(|line| line.text.as_str()).collect();
    assert_eq!(lines, ["line 1", "line 2"]);
    assert_eq!((second.template_id, &second.previous_sandbox_id), (first.template_id, &None));
    assert_eq!(second.log.next_seq, 4);
    assert_same(ok(rig.claim(build, 2, runner).await), &second);
    let row = rig.row(build).await;
    assert_eq!(row.logs[0]["cmd"], "RUN 1", "events that came late are in the row");
    let records = rig.streamed(build).await;
    assert!(text(&records[2]).starts_with("Attempt 2 goes on in step 1."), "{records:?}");
    // The first runner can write no more, and what it says is not heard.
    assert!(rig.log(build, at, 1).await.is_err());
    let late = crate::ledger::step_finished(&rig, build, 1, 2).await;
    let mine = crate::ledger::step_finished(&rig, build, 2, 3).await;
    wait_until("events are applied", SOON, || async {
        rig.row(build).await.event_stream_seq.cast_unsigned() >= mine.max(late)
    })
    .await;
    let logs = rig.row(build).await.logs;
    let steps: Vec<i64> =
        logs.as_array().unwrap().iter().map(|log| log["step"].as_i64().unwrap()).collect();
    assert_eq!(steps, [1, 3]);
    // An attempt that says nothing leaves it to the one after.
    expire(&rig, build).await;
    let third = ok(rig.claim(build, 3, RunnerId::new()).await);
    assert_eq!(third.resume.map(|from| from.standing), Some(standing(&first)));
    rig.stop().await;
}

#[tokio::test]
async fn without_a_ready_sandbox_on_its_host_an_attempt_begins_from_the_first_step() {
    let mut rig = Rig::with_streams().await;
    rig.start_desk();
    type Of = fn(&Claimed) -> Option<Standing>;
    let cases: [Of; 3] = [
        |_| None,
        |claim| Some(Standing { ready: false, ..standing(claim) }),
        |claim| Some(Standing { host_id: HostId::new(), ..standing(claim) }),
    ];
    for of in cases {
        let (build, first) = lost(&mut rig, of).await;
        let runner = RunnerId::new();
        let second = ok(rig.claim(build, 2, runner).await);
        assert_eq!(second.resume, None);
        assert_ne!(second.template_id, first.template_id);
        assert_same(ok(rig.claim(build, 2, runner).await), &second);
        let records = rig.streamed(build).await;
        assert!(text(&records[2]).starts_with("Attempt 2 begins from the first step"));
        let reason = rig.row(build).await.reason.unwrap();
        let message = reason["message"].as_str().unwrap();
        assert!(message.ends_with("Attempt 2 begins from the first step."), "{message}");
    }
    rig.stop().await;
}

#[tokio::test]
async fn failure_that_the_log_knows_is_gone_on_with_wherever_the_sandbox_was() {
    let mut rig = Rig::with_streams().await;
    rig.start_desk();
    let reason = Reason {
        code: ReasonCode::StepFailed,
        message: "exit code 7".into(),
        step: Some(1),
        tail: None,
    };
    let failed = |claim: &Claimed| Standing {
        host_id: HostId::new(),
        ready: false,
        failed: Some(reason.clone()),
        ..standing(claim)
    };
    let (build, first) = lost(&mut rig, |claim| Some(failed(claim))).await;
    let second = ok(rig.claim(build, 2, RunnerId::new()).await);
    let from = second.resume.expect("it goes on");
    assert_eq!(from.standing.failed, failed(&first).failed);
    let records = rig.streamed(build).await;
    assert!(text(&records[2]).starts_with("Attempt 2 only tells that the build failed."));
    rig.stop().await;
}

#[tokio::test]
async fn log_that_was_lost_leaves_nothing_to_go_on_with() {
    let mut rig = Rig::with_streams().await;
    rig.start_desk();
    let (build, _) = lost(&mut rig, |claim| Some(standing(claim))).await;
    rig.js.delete_stream(rig.names.logs_stream().name).await.unwrap();
    rig.ensure().await;
    assert_eq!(ok(rig.claim(build, 2, RunnerId::new()).await).resume, None);
    rig.stop().await;
}

#[tokio::test]
async fn build_that_is_handed_over_goes_on_and_counts_nothing() {
    let mut rig = Rig::with_streams().await;
    rig.start_desk();
    rig.start_relay("b1");
    let (build, runner_id) = (rig.build("web").await, RunnerId::new());
    let first = ok(rig.claim(build, 1, runner_id).await);
    let records = vec![line(1)];
    let batch = Batch { records, resume: None, standing: Some(standing(&first)) };
    rig.log_batch(build, first.log, &batch).await.unwrap();
    let why = "the runner ends".into();
    let release = ReleaseRequest { build_id: build, attempt: 1, runner_id, why, lost: None };
    ok(rig.ask::<_, Released>("release", &release).await);
    assert_eq!(rig.job().await.attempt, 2);
    let second = ok(rig.claim(build, 2, RunnerId::new()).await);
    assert_eq!(second.resume.map(|from| from.standing), Some(standing(&first)));
    let row = rig.row(build).await;
    assert_eq!((row.lost_attempts, row.reason), (0, None));
    let records = rig.streamed(build).await;
    assert_eq!(text(&records[1]), "Attempt 2 goes on in step 1.");
    rig.stop().await;
}

#[tokio::test]
async fn host_that_fails_a_build_again_and_again_ends_it_with_what_the_host_did() {
    let mut rig = Rig::with_streams().await;
    rig.start_desk();
    rig.start_relay("b1");
    let build = rig.build("web").await;
    rig.queue.push(&[build]).await.unwrap();
    for attempt in 1..=3 {
        assert_eq!(rig.job().await.attempt, attempt);
        let runner_id = RunnerId::new();
        ok(rig.claim(build, attempt, runner_id).await);
        let lost = Reason {
            code: ReasonCode::GuestNotReady,
            message: "no microVM became ready, 3 were tried".into(),
            step: None,
            tail: Some("panic".into()),
        };
        let why = "the host failed".into();
        let release = ReleaseRequest { build_id: build, attempt, runner_id, why, lost: Some(lost) };
        for _ in 0..2 {
            ok(rig.ask::<_, Released>("release", &release).await);
        }
        // There is no other host, so this one gets a moment.
        let is_left = usize::from(attempt < 3);
        assert_eq!(rig.sweep().queued().await.unwrap(), is_left);
        let stale = ReleaseRequest { attempt, runner_id: RunnerId::new(), ..release };
        let refused = rig.ask::<_, Released>("release", &stale).await;
        assert!(matches!(refused, Reply::Refused(_)), "{refused:?}");
    }
    let row = rig.row(build).await;
    assert_eq!((row.status.as_str(), row.lost_attempts), ("failed", 3));
    let reason = row.reason.unwrap();
    assert_eq!((&reason["code"], &reason["tail"]), (&"guest_not_ready".into(), &"panic".into()));
    rig.stop().await;
}

#[tokio::test]
async fn position_of_the_log_is_where_the_attempt_begins() {
    let mut rig = Rig::with_streams().await;
    rig.start_desk();
    let (build, _) = lost(&mut rig, |claim| Some(standing(claim))).await;
    let second = ok(rig.claim(build, 2, RunnerId::new()).await);
    let LogPosition { next_seq, .. } = rig.log(build, second.log, 2).await.unwrap();
    assert_eq!(next_seq, 6);
    let seqs: Vec<u64> = rig.streamed(build).await.iter().map(Record::seq).collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5]);
    rig.stop().await;
}
