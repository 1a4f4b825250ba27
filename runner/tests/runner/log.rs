//! The writer of a build's log.

use std::time::Duration;

use async_nats::jetstream::message::PublishMessage;
use futures::StreamExt as _;
use ovenbird_agent_client::OutputStream;
use ovenbird_contract::{
    build::Status,
    desk::LogPosition,
    id::BuildId,
    log::{Batch, Record, Resume},
};
use ovenbird_runner::{
    metrics::Metrics,
    publish::{Log, Marks, OutputLine, Progress, WriteError, Writer, WriterConfig},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::nats::{Server, assert_gapless};

const BEGIN: LogPosition = LogPosition { next_seq: 1, stream_seq: 0 };

fn writer(
    server: &Server,
    build_id: BuildId,
    attempt: u32,
    position: LogPosition,
) -> (Writer, Log) {
    let config = WriterConfig {
        names: server.names.clone(),
        build_id,
        attempt,
        position,
        standing: None,
        metrics: Metrics::default(),
    };
    Writer::start(server.of_runner(), config, CancellationToken::new())
}

fn line(n: u64, text: &str) -> OutputLine {
    let marks = Marks { stdout: n, stderr: n, ..Marks::default() };
    OutputLine { stream: OutputStream::Stdout, bytes: text.as_bytes().to_vec(), cont: false, marks }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_lines_arrive_in_order_without_a_hole_and_in_batches() {
    let server = Server::start().await;
    let build = BuildId::new();
    let (writer, log) = writer(&server, build, 1, BEGIN);
    let progress = Progress::new("exec", 0);
    let begun = Instant::now();
    for n in 1..=20_000 {
        log.output(3, &line(n * 10, &format!("line {n} of twenty thousand")), Some(&progress))
            .await
            .unwrap();
    }
    drop(log);
    let end = writer.close().await.unwrap();
    let elapsed = begun.elapsed();
    assert_eq!(end.next_seq, 20_001);
    assert_eq!(*progress.durable().borrow(), 200_000);

    let messages = server.log(&build).await;
    assert_eq!(messages.last().unwrap().0, end.stream_seq);
    let size = |batch: &Batch| {
        let text = |record: &Record| match record {
            Record::Line(line) => line.text.len(),
            Record::End(_) => 0,
        };
        batch.records.iter().map(text).sum::<usize>()
    };
    assert!(messages.iter().all(|(_, batch)| size(batch) <= 16 * 1024));
    assert!(messages.len() < 4_000, "{} messages", messages.len());
    let batches = messages.len();
    let records: Vec<Record> = messages.into_iter().flat_map(|(_, batch)| batch.records).collect();
    assert_gapless(&records);
    assert_eq!(records.len(), 20_000);
    for (record, n) in records.iter().zip(1..) {
        let Record::Line(line) = record else { panic!("not a line") };
        assert_eq!(line.text, format!("line {n} of twenty thousand"));
    }
    println!("20000 lines in {batches} batches, {elapsed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn line_leaves_at_once_while_the_log_is_quiet() {
    let server = Server::start().await;
    let build = BuildId::new();
    let (writer, log) = writer(&server, build, 1, BEGIN);
    let mut live = server.client.subscribe(server.names.logs(&build)).await.unwrap();
    server.client.flush().await.unwrap();
    let mut latencies = Vec::new();
    for n in 1..=50 {
        let sent = Instant::now();
        log.output(1, &line(n, "tick"), None).await.unwrap();
        // The next line is not sent before this one has arrived: nothing waits for company.
        let message = tokio::time::timeout(Duration::from_secs(5), live.next()).await.unwrap();
        latencies.push(sent.elapsed());
        let batch: Batch = serde_json::from_slice(&message.unwrap().payload).unwrap();
        assert_eq!(batch.records.len(), 1);
    }
    latencies.sort();
    println!("quiet line: p50 {:?}, p98 {:?}", latencies[25], latencies[48]);
    // Waiting for company would cost every one of them some time.
    assert!(latencies[0] < Duration::from_millis(25), "{:?}", latencies[0]);
    writer.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lower_attempt_stops_when_a_higher_one_writes() {
    let server = Server::start().await;
    let build = BuildId::new();
    let (old, old_log) = writer(&server, build, 1, BEGIN);
    old_log.system(0, "attempt 1").await.unwrap();
    let last = wait_for_messages(&server, &build, 1).await;

    let position = LogPosition { next_seq: 2, stream_seq: last };
    let (new, new_log) = writer(&server, build, 2, position);
    new_log.system(0, "attempt 2").await.unwrap();
    wait_for_messages(&server, &build, 2).await;

    old_log.system(0, "too late").await.unwrap();
    assert!(matches!(old.close().await, Err(WriteError::FenceLost)));
    assert!(old_log.system(0, "closed").await.is_err());
    new_log.system(0, "goes on").await.unwrap();
    assert_eq!(new.close().await.unwrap().next_seq, 4);
    assert_eq!(server.texts(&build).await, ["attempt 1", "attempt 2", "goes on"]);
    assert_gapless(&server.records(&build).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn higher_attempt_numbers_after_a_last_line_of_the_lower_one() {
    let server = Server::start().await;
    let build = BuildId::new();
    let (old, old_log) = writer(&server, build, 1, BEGIN);
    // The claim is answered here: both believe that the next record is the first.
    let (new, new_log) = writer(&server, build, 2, BEGIN);
    old_log.system(0, "written after the claim").await.unwrap();
    wait_for_messages(&server, &build, 1).await;
    new_log.system(0, "attempt 2").await.unwrap();
    assert_eq!(new.close().await.unwrap().next_seq, 3);
    old_log.system(0, "too late").await.unwrap();
    assert!(matches!(old.close().await, Err(WriteError::FenceLost)));
    assert_eq!(server.texts(&build).await, ["written after the claim", "attempt 2"]);
    assert_gapless(&server.records(&build).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_after_the_terminal_record() {
    let server = Server::start().await;
    let build = BuildId::new();
    let (writer, log) = writer(&server, build, 1, BEGIN);
    let end = Batch::of(vec![Record::end(1, Status::Failed)]);
    publish(&server, &build, "end", &end).await;
    log.system(0, "too late").await.unwrap();
    assert!(matches!(writer.close().await, Err(WriteError::FenceLost)));
    assert_eq!(server.texts(&build).await, ["end"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn message_whose_ack_was_lost_is_written_once() {
    let server = Server::start().await;
    let build = BuildId::new();
    let (first, log) = writer(&server, build, 1, BEGIN);
    log.system(0, "once").await.unwrap();
    let written = first.close().await.unwrap();
    // As if the ack had not come: the same message from the same position.
    let (second, log) = writer(&server, build, 1, BEGIN);
    log.system(0, "once").await.unwrap();
    assert_eq!(second.close().await.unwrap(), written);
    assert_eq!(server.texts(&build).await, ["once"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_carry_where_another_runner_goes_on_and_one_command_each() {
    let server = Server::start().await;
    let build = BuildId::new();
    let (writer, log) = writer(&server, build, 1, BEGIN);
    let (run, start) = (Progress::new("run", 0), Progress::new("start", 0));
    for n in 1..=40 {
        log.output(2, &line(n * 10, "run"), Some(&run)).await.unwrap();
        log.system(2, "between").await.unwrap();
        log.output(1, &line(n * 7, "start"), Some(&start)).await.unwrap();
    }
    writer.close().await.unwrap();
    assert_eq!((*run.durable().borrow(), *start.durable().borrow()), (400, 280));
    let mut seen = (0, 0);
    for (_, batch) in server.log(&build).await {
        let texts = |what: &str| {
            let is = |record: &&Record| matches!(record, Record::Line(line) if line.text == what);
            batch.records.iter().filter(is).count() as u64
        };
        let (ran, started) = (texts("run"), texts("start"));
        assert!(ran == 0 || started == 0);
        seen = (seen.0 + ran, seen.1 + started);
        let expected = match (ran, started) {
            (0, 0) => None,
            (_, 0) => Some(("run", seen.0 * 10, 2)),
            _ => Some(("start", seen.1 * 7, 1)),
        };
        let expected = expected.map(|(exec_id, at, step)| Resume {
            exec_id: exec_id.into(),
            stdout: at,
            stderr: at,
            step,
            ..Resume::default()
        });
        assert_eq!(batch.resume, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_survive_a_kill_of_nats_and_callers_are_held_back() {
    let mut server = Server::start().await;
    let build = BuildId::new();
    let (writer, log) = writer(&server, build, 1, BEGIN);
    log.system(0, "before").await.unwrap();
    wait_for_messages(&server, &build, 1).await;
    server.nats.kill9();
    let text = "x".repeat(8 * 1024);
    let flood = tokio::spawn(async move {
        for n in 0..400 {
            log.output(1, &line(n, &text), None).await.unwrap();
        }
    });
    // 1 MiB fits into the buffer; the rest waits with its writer.
    tokio::time::timeout(Duration::from_millis(500), async {
        while !flood.is_finished() {
            tokio::task::yield_now().await
        }
    })
    .await
    .expect_err("three MiB were taken without NATS");
    server.nats.restart().await.unwrap();
    flood.await.unwrap();
    assert_eq!(writer.close().await.unwrap().next_seq, 402);
    let records = server.records(&build).await;
    assert_eq!(records.len(), 401);
    assert_gapless(&records);
}

#[tokio::test(flavor = "multi_thread")]
async fn writer_stops_when_nats_has_lost_what_was_written_rather_than_leave_a_hole() {
    let server = Server::start().await;
    let build = BuildId::new();
    let (writer, log) = writer(&server, build, 1, BEGIN);
    log.system(0, "lost").await.unwrap();
    wait_for_messages(&server, &build, 1).await;
    let stream = server.jetstream.get_stream(server.names.logs_stream().name).await.unwrap();
    stream.purge().await.unwrap();
    log.system(0, "would be the second record of a log without a first").await.unwrap();
    assert!(matches!(writer.close().await, Err(WriteError::StreamLost)));
    assert_eq!(server.records(&build).await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn writer_gives_up_when_the_lease_is_over() {
    let mut server = Server::start().await;
    let lost = CancellationToken::new();
    let config = WriterConfig {
        names: server.names.clone(),
        build_id: BuildId::new(),
        attempt: 1,
        position: BEGIN,
        standing: None,
        metrics: Metrics::default(),
    };
    let (writer, log) = Writer::start(server.of_runner(), config, lost.clone());
    server.nats.kill9();
    log.system(0, "never written").await.unwrap();
    lost.cancel();
    assert!(matches!(writer.close().await, Err(WriteError::GaveUp)));
}

async fn publish(server: &Server, build: &BuildId, id: &str, batch: &Batch) {
    let payload = serde_json::to_vec(batch).unwrap();
    let message = PublishMessage::build().payload(payload.into()).message_id(id);
    let ack = server.jetstream.send_publish(server.names.logs(build), message).await.unwrap();
    ack.await.unwrap();
}

/// The stream sequence of the `count`-th message.
async fn wait_for_messages(server: &Server, build: &BuildId, count: usize) -> u64 {
    ovenbird_testkit::wait_for("a log message", Duration::from_secs(10), || async {
        server.log(build).await.get(count - 1).map(|(seq, _)| *seq)
    })
    .await
    .unwrap()
}
