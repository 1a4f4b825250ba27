//! What the ledger writes stays right whatever the order and however often.

use chrono::{DateTime, Utc};
use ovenbird_contract::{
    build::Status,
    id::{BuildId, SandboxId},
    log::{LineRecord, Record, Stream},
    step::{Phase, StepLog},
};
use ovenbird_db::store::{
    finish::Said,
    ledger::{LogBatch, Progress},
};

use crate::world::World;

fn line(seq: u64) -> Record {
    Record::Line(LineRecord {
        seq,
        ts: DateTime::<Utc>::UNIX_EPOCH,
        attempt: 1,
        step: 1,
        stream: Stream::Stdout,
        text: format!("line {seq}"),
        cont: false,
        data: None,
    })
}

fn batch(build: BuildId, stream_seq: u64, seqs: std::ops::RangeInclusive<u64>) -> LogBatch {
    LogBatch { build, stream_seq, records: seqs.map(line).collect() }
}

async fn logged(world: &World, build: BuildId) -> Vec<u64> {
    let runs = world.store.build_log_runs(build, 1, 100).await.unwrap();
    runs.iter().flatten().map(Record::seq).collect()
}

fn step(step: u32, stdout: &str) -> StepLog {
    StepLog {
        step,
        phase: Phase::Step,
        cmd: format!("RUN {step}"),
        stdout: stdout.into(),
        stderr: String::new(),
        exit: Some(0),
        ok: true,
        elapsed_ms: 1,
        cached: false,
        truncated: None,
        log_truncated: None,
    }
}

fn progress(build: BuildId, attempt: u32, steps: Vec<StepLog>, stream_seq: u64) -> Progress {
    let current_step = steps.iter().map(|step| step.step).max().unwrap_or(0);
    Progress { build, attempt, steps, current_step, sandbox: None, stream_seq }
}

#[tokio::test]
async fn log_messages_are_stored_once_in_any_order_and_grouping() {
    let world = World::with_host(4).await;
    let build = world.build("web").await;
    let (one, two, three) =
        (batch(build, 1, 1..=3), batch(build, 2, 4..=6), batch(build, 3, 7..=9));
    let rounds: [&[&LogBatch]; 6] =
        [&[&three], &[&one, &two], &[&two, &three], &[&one, &two, &three], &[&two], &[&one]];
    for round in rounds {
        let batches: Vec<LogBatch> = round.iter().map(|one| (*one).clone()).collect();
        world.store.build_log_store(&batches).await.unwrap();
    }
    assert_eq!(logged(&world, build).await, (1..=9).collect::<Vec<_>>());
    for (seq, message) in [(1, 0), (7, 2), (10, 3)] {
        assert_eq!(world.store.build_log_stored(build, seq).await.unwrap(), message);
    }
    assert_eq!(world.row(build).await.log_seq, 9);
}

#[tokio::test]
async fn long_runs_are_split_and_read_back_whole() {
    let world = World::with_host(4).await;
    let build = world.build("web").await;
    world.store.build_log_store(&[batch(build, 1, 1..=2_500)]).await.unwrap();
    assert_eq!(logged(&world, build).await.len(), 2_500);
    assert_eq!(world.store.build_log_runs(build, 1, 100).await.unwrap().len(), 3);
}

#[tokio::test]
async fn terminal_record_marks_the_log_as_ended() {
    let world = World::with_host(4).await;
    let build = world.build("web").await;
    let end = Record::end(2, Status::Succeeded);
    let batch = LogBatch { build, stream_seq: 4, records: vec![line(1), end] };
    world.store.build_log_store(&[batch]).await.unwrap();
    let row = world.row(build).await;
    assert_eq!((row.log_end_written, row.log_seq), (true, 2));
}

#[tokio::test]
async fn log_that_has_ended_takes_what_was_missing_but_no_other_end() {
    let world = World::with_host(4).await;
    let build = world.build("web").await;
    let end = |seq| Record::end(seq, Status::Failed);
    let rounds = [
        (vec![line(1), line(2)], 0),
        (vec![line(4), end(5)], 1),
        (vec![line(3)], 0),
        (vec![line(5), end(6)], 0),
        (vec![line(5), line(6)], 0),
        (vec![end(5)], 0),
    ];
    for (at, (records, ends)) in (1..).zip(rounds) {
        let batch = LogBatch { build, stream_seq: at, records };
        let ended = world.store.build_log_store(&[batch]).await.unwrap();
        assert_eq!(ended.len(), ends, "round {at}");
    }
    let stored = world.store.build_log_runs(build, 1, 100).await.unwrap().concat();
    assert_eq!(stored, [line(1), line(2), line(3), line(4), end(5)]);
    assert_eq!(world.row(build).await.log_seq, 5);
}

#[tokio::test]
async fn end_that_was_written_where_lines_have_come_meanwhile_follows_them() {
    let world = World::with_host(4).await;
    let end = |seq| Record::end(seq, Status::Failed);
    let said = |seq| match line(seq) {
        Record::Line(line) => Record::Line(LineRecord { text: "cancelled".into(), ..line }),
        end => end,
    };
    let whole: Vec<Record> = (1..=7).map(line).chain([said(8), end(9)]).collect();
    // In one transaction with them, and in the next one.
    let late = [
        vec![vec![(3, vec![said(3), end(4)]), (2, (3..=7).map(line).collect())]],
        vec![vec![(2, (3..=7).map(line).collect())], vec![(3, vec![said(3), end(4)])]],
    ];
    for (name, rounds) in ["one", "two"].into_iter().zip(late) {
        let build = world.build(name).await;
        world.store.build_log_store(&[batch(build, 1, 1..=2)]).await.unwrap();
        for round in rounds {
            let batches: Vec<_> = round
                .into_iter()
                .map(|(stream_seq, records)| LogBatch { build, stream_seq, records })
                .collect();
            world.store.build_log_store(&batches).await.unwrap();
        }
        let stored = world.store.build_log_runs(build, 1, 100).await.unwrap().concat();
        assert_eq!(stored, whole, "{name}");
        let row = world.row(build).await;
        assert_eq!((row.log_end_written, row.log_seq), (true, 9), "{name}");
    }
}

#[tokio::test]
async fn log_of_an_unknown_build_does_not_hold_up_the_others() {
    let world = World::with_host(4).await;
    let build = world.build("web").await;
    let batches = [batch(BuildId::new(), 1, 1..=1), batch(build, 2, 1..=1)];
    world.store.build_log_store(&batches).await.unwrap();
    assert_eq!(logged(&world, build).await, [1]);
}

#[tokio::test]
async fn step_is_kept_once_and_replay_changes_nothing() {
    let world = World::with_host(4).await;
    let holder = world.running("web").await;
    let first = progress(holder.build, 1, vec![step(1, "one")], 3);
    let second = progress(holder.build, 1, vec![step(2, "two\0")], 5);
    for progress in [&second, &first, &second, &first] {
        world.store.build_progress(std::slice::from_ref(progress)).await.unwrap();
    }
    let row = world.row(holder.build).await;
    let steps: Vec<StepLog> = serde_json::from_value(row.logs).unwrap();
    assert_eq!(steps, [step(1, "one"), step(2, "two\u{fffd}")]);
    assert_eq!((row.current_step, row.event_stream_seq), (2, 5));
    world.store.build_log_store(&[batch(holder.build, 1, 1..=2)]).await.unwrap();
    world.store.build_log_store(&[batch(holder.build, 3, 4..=4)]).await.unwrap();
    // Record 3 is not there, so 4 are not.
    let cases = [(5, 0, true), (6, 0, false), (5, 2, true), (5, 4, false), (5, 5, false)];
    for (event_stream_seq, log_seq, applied) in cases {
        let said = Said { event_stream_seq, log_seq };
        assert_eq!(world.store.build_applied(&holder, said).await.unwrap(), applied, "{said:?}");
    }
}

#[tokio::test]
async fn event_of_another_attempt_changes_nothing() {
    let world = World::with_host(4).await;
    let holder = world.running("web").await;
    world.store.build_progress(&[progress(holder.build, 2, vec![step(1, "x")], 3)]).await.unwrap();
    world.store.build_progress(&[progress(holder.build, 0, vec![step(1, "x")], 3)]).await.unwrap();
    assert_eq!(world.row(holder.build).await.logs, serde_json::json!([]));
}

#[tokio::test]
async fn newest_sandbox_of_the_attempt_stays() {
    let world = World::with_host(4).await;
    let holder = world.running("web").await;
    let (old, new) = (SandboxId::new(), SandboxId::new());
    for sandbox in [new, old] {
        let told = Progress { sandbox: Some(sandbox), ..progress(holder.build, 1, vec![], 1) };
        world.store.build_progress(&[told]).await.unwrap();
    }
    assert_eq!(world.row(holder.build).await.sandbox_id, Some(old.uuid().max(new.uuid())));
}
