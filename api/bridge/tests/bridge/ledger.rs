//! What stands in LOGS and EVENTS comes to Postgres once.

use async_nats::jetstream::{AckKind, consumer::PullConsumer, message::PublishMessage};
use chrono::Utc;
use futures::{StreamExt as _, TryStreamExt as _};
use ovenbird_contract::{
    desk::LogPosition,
    event::{Event, What},
    id::{BuildId, RunnerId},
    log::Record,
    step::{Phase, StepLog},
};
use ovenbird_db::store::claim;
use ovenbird_testkit::wait_until;

use crate::rig::{LEASE, Rig, SOON};

const BEGIN: LogPosition = LogPosition { next_seq: 1, stream_seq: 0 };

/// Publishes the end of a step as a runner does; answers the stream sequence.
pub(crate) async fn step_finished(rig: &Rig, build: BuildId, attempt: u32, step: u32) -> u64 {
    let log = StepLog {
        step,
        phase: Phase::Step,
        cmd: format!("RUN {step}"),
        stdout: "out\0".into(),
        stderr: String::new(),
        exit: Some(0),
        ok: true,
        elapsed_ms: 3,
        cached: false,
        truncated: None,
        log_truncated: None,
    };
    let n = u64::from(step);
    publish(rig, Event::new(build, attempt, n, Utc::now(), What::StepFinished(log))).await
}

async fn publish(rig: &Rig, event: Event) -> u64 {
    let message = PublishMessage::build()
        .message_id(&event.id)
        .payload(serde_json::to_vec(&event).unwrap().into());
    let ack = rig.js.send_publish(rig.names.events(&event.build_id), message).await.unwrap();
    ack.await.unwrap().sequence
}

async fn running(rig: &Rig, name: &str) -> BuildId {
    let build = rig.build(name).await;
    let request = claim::Request { build, attempt: 1, runner: RunnerId::new(), lease: LEASE };
    rig.store.build_claim(&request).await.unwrap().unwrap();
    build
}

async fn wait_stored(rig: &Rig, build: BuildId, records: usize) {
    wait_until("the log is stored", SOON, || async { rig.stored(build).await.len() == records })
        .await;
}

#[tokio::test]
async fn replay_of_everything_changes_nothing() {
    let mut rig = Rig::with_streams().await;
    rig.start_ledger();
    let build = running(&rig, "web").await;
    let mut at = BEGIN;
    for _ in 0..20 {
        at = rig.log(build, at, 5).await.unwrap();
    }
    for step in 1..=3 {
        step_finished(&rig, build, 1, step).await;
    }
    wait_stored(&rig, build, 100).await;
    wait_until("events are applied", SOON, || async { rig.row(build).await.event_stream_seq >= 3 })
        .await;
    let before = rig.row(build).await;
    let records = rig.stored(build).await;

    // Consumers that are made anew deliver everything again.
    for spec in rig.names.ledger_consumers() {
        let stream = rig.js.get_stream(&spec.stream).await.unwrap();
        stream.delete_consumer(&spec.durable).await.unwrap();
    }
    rig.ensure().await;
    let last = running(&rig, "last").await;
    rig.log(last, BEGIN, 1).await.unwrap();
    let seq = step_finished(&rig, last, 1, 1).await;
    wait_stored(&rig, last, 1).await;
    wait_until("events are replayed", SOON, || async {
        rig.row(last).await.event_stream_seq.cast_unsigned() >= seq
    })
    .await;
    assert_eq!(rig.row(build).await, before);
    assert_eq!(rig.stored(build).await, records);
    assert_eq!(records.iter().map(Record::seq).collect::<Vec<_>>(), (1..=100).collect::<Vec<_>>());
    rig.stop().await;
}

#[tokio::test]
async fn several_ledgers_store_each_record_once() {
    let mut rig = Rig::with_streams().await;
    for _ in 0..3 {
        rig.start_ledger();
    }
    let build = running(&rig, "web").await;
    let mut at = BEGIN;
    for _ in 0..200 {
        at = rig.log(build, at, 3).await.unwrap();
    }
    wait_stored(&rig, build, 600).await;
    let seqs: Vec<u64> = rig.stored(build).await.iter().map(Record::seq).collect();
    assert_eq!(seqs, (1..=600).collect::<Vec<_>>());
    rig.stop().await;
}

#[tokio::test]
async fn message_that_a_dead_ledger_took_is_stored_with_the_one_after_it() {
    let mut rig = Rig::with_streams().await;
    let build = running(&rig, "web").await;
    let at = rig.log(build, BEGIN, 3).await.unwrap();
    let [spec, _] = rig.names.ledger_consumers();
    let consumer: PullConsumer =
        rig.js.get_consumer_from_stream(&spec.durable, &spec.stream).await.unwrap();
    let mut taken = consumer.batch().max_messages(1).messages().await.unwrap();
    let taken = taken.next().await.unwrap().unwrap();
    rig.log(build, at, 2).await.unwrap();
    rig.start_ledger();
    // Long before the server gives the first message to anybody again.
    wait_stored(&rig, build, 5).await;
    assert!(spec.ack_wait > SOON, "the message may have come again by itself");
    let seqs: Vec<u64> = rig.stored(build).await.iter().map(Record::seq).collect();
    assert_eq!(seqs, [1, 2, 3, 4, 5]);
    taken.ack().await.unwrap();
    rig.stop().await;
}

#[tokio::test]
async fn message_that_a_dead_ledger_took_is_stored_with_those_around_it() {
    let mut rig = Rig::with_streams().await;
    let build = running(&rig, "web").await;
    let mut at = BEGIN;
    for _ in 0..3 {
        at = rig.log(build, at, 2).await.unwrap();
    }
    let [spec, _] = rig.names.ledger_consumers();
    let consumer: PullConsumer =
        rig.js.get_consumer_from_stream(&spec.durable, &spec.stream).await.unwrap();
    let messages = consumer.batch().max_messages(3).messages().await.unwrap();
    let taken: Vec<_> = messages.try_collect().await.unwrap();
    // The first and the third go to a ledger that lives.
    for returned in [&taken[0], &taken[2]] {
        returned.ack_with(AckKind::Nak(None)).await.unwrap();
    }
    rig.start_ledger();
    wait_stored(&rig, build, 6).await;
    assert!(spec.ack_wait > SOON, "the message may have come again by itself");
    rig.stop().await;
}

#[tokio::test]
async fn message_that_cannot_be_read_holds_up_nothing() {
    let mut rig = Rig::with_streams().await;
    let build = running(&rig, "web").await;
    for subject in [rig.names.logs(&build), rig.names.events(&build)] {
        rig.js.publish(subject, "nonsense".into()).await.unwrap().await.unwrap();
    }
    rig.js
        .publish(format!("{}.logs.nobody", rig.prefix), "{}".into())
        .await
        .unwrap()
        .await
        .unwrap();
    let other = running(&rig, "api").await;
    rig.log(other, BEGIN, 2).await.unwrap();
    step_finished(&rig, other, 1, 1).await;
    rig.start_ledger();
    wait_stored(&rig, other, 2).await;
    wait_until("events are applied", SOON, || async { rig.row(other).await.logs[0]["step"] == 1 })
        .await;
    for spec in rig.names.ledger_consumers() {
        wait_until("nothing is pending", SOON, || async {
            let stream = rig.js.get_stream(&spec.stream).await.unwrap();
            let info = stream.consumer_info(&spec.durable).await.unwrap();
            info.num_pending == 0 && info.num_ack_pending == 0
        })
        .await;
    }
    rig.stop().await;
}

#[tokio::test]
async fn event_of_an_attempt_before_changes_nothing() {
    let mut rig = Rig::with_streams().await;
    let build = running(&rig, "web").await;
    step_finished(&rig, build, 0, 1).await;
    step_finished(&rig, build, 1, 2).await;
    rig.start_ledger();
    wait_until("events are applied", SOON, || async { rig.row(build).await.event_stream_seq == 2 })
        .await;
    let logs = rig.row(build).await.logs;
    assert_eq!((logs.as_array().unwrap().len(), &logs[0]["step"]), (1, &serde_json::json!(2)));
    rig.stop().await;
}
