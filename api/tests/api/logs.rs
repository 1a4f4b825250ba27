//! The log of a build: pages, the live stream, and their join.

use std::time::Duration;

use ovenbird_api::app::keys::Scope;
use ovenbird_contract::build::Status;
use ovenbird_testkit::wait_until;
use reqwest::Method;
use sea_orm::ConnectionTrait as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::world::{Events, SOON, World, logs_stream};

/// Every record of the log, by pages of `limit`.
async fn pages(world: &World, logs: &str, limit: u32) -> Vec<Value> {
    let mut records = Vec::new();
    let mut next = 1;
    loop {
        let page = world.get_json(&format!("{logs}?from_seq={next}&limit={limit}")).await;
        let items = page["records"].as_array().unwrap();
        if items.is_empty() {
            return records;
        }
        records.extend(items.iter().cloned());
        next = page["next_seq"].as_u64().unwrap();
    }
}

fn seqs(records: &[Value]) -> Vec<u64> {
    records.iter().map(|record| record["seq"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn log_is_one_sequence_over_chunks_stream_and_live_wherever_a_client_joins() {
    let world = World::with_host().await;
    let build = world.submit_id("a").await;
    let mut writer = world.writer(build);
    // 1..=1000 are stored, the stream holds all; the ledger lags behind by a third.
    let mut written = Vec::new();
    for _ in 0..30 {
        written.push(writer.lines(50).await);
    }
    world.store.build_log_store(&written[..10]).await.unwrap();
    world.store.build_log_store(&written[10..20]).await.unwrap();

    let joins = [1, 777, 1000, 1001, 1499, 1500, 1501, 1700];
    let mut followers = Vec::new();
    for from in joins {
        followers.push((from, world.follow(&build, from).await));
    }
    let last = writer.next + 600;
    let live = tokio::spawn(async move {
        while writer.next < last {
            writer.lines(1 + writer.next % 7).await;
        }
        writer.end(Status::Succeeded).await;
        writer
    });
    // Some come while it is being written.
    for from in [1, 1200] {
        followers.push((from, world.follow(&build, from).await));
    }
    let readers = followers.into_iter().map(|(from, events)| async move {
        (from, tokio::time::timeout(SOON, events.rest()).await.expect("the stream ends"))
    });
    let all = futures::future::join_all(readers).await;
    let end = live.await.unwrap().next - 1;
    for (from, records) in &all {
        let expected: Vec<u64> = (*from..=end).collect();
        assert!(seqs(records) == expected, "joined at {from}: not gapless");
        assert_eq!(records.last().unwrap()["end"], json!({"status": "succeeded", "last_seq": end}));
    }
    let logs = format!("/v1/admin/builds/{build}/logs");
    assert!(pages(&world, &logs, 1000).await == all[0].1, "pages and stream differ");
    assert!(pages(&world, &logs, 333).await == all[0].1);

    // What is only in Postgres is the same log.
    world.jetstream.delete_stream(world.names.logs_stream().name).await.unwrap();
    world.store.build_log_store(&written[20..]).await.unwrap();
    assert_eq!(seqs(&pages(&world, &logs, 10_000).await), (1..=1500).collect::<Vec<_>>());
}

#[tokio::test]
async fn chunk_that_is_not_stored_yet_is_read_from_the_stream() {
    let world = World::with_host().await;
    let build = world.submit_id("a").await;
    let mut writer = world.writer(build);
    let mut written = Vec::new();
    for _ in 0..6 {
        written.push(writer.lines(10).await);
    }
    // Another ledger holds the middle one.
    world.store.build_log_store(&written[0..2]).await.unwrap();
    world.store.build_log_store(&written[4..5]).await.unwrap();
    let logs = format!("/v1/admin/builds/{build}/logs");
    for from in [1, 15, 25, 41, 55] {
        let page = world.get_json(&format!("{logs}?from_seq={from}")).await;
        let expected: Vec<u64> = (from..=60).collect();
        assert_eq!(seqs(page["records"].as_array().unwrap()), expected, "from {from}");
        assert_eq!(page["next_seq"], 61);
    }
    // Lost with the stream: what is left is told, in order.
    world.jetstream.delete_stream(world.names.logs_stream().name).await.unwrap();
    let left: Vec<u64> = (1..=20).chain(41..=50).collect();
    assert_eq!(seqs(&pages(&world, &logs, 7).await), left);
    // A new stream counts from 1 again; what it holds is found.
    logs_stream(&world.jetstream, &world.names).await;
    let mut writer = world.writer(build);
    writer.next = 61;
    writer.lines(5).await;
    let left: Vec<u64> = left.into_iter().chain(61..=65).collect();
    assert_eq!(seqs(&pages(&world, &logs, 100).await), left);
}

#[tokio::test]
async fn pages_can_be_limited_and_filtered() {
    let world = World::with_host().await;
    let build = world.submit_id("a").await;
    let logs = format!("/v1/admin/builds/{build}/logs");
    assert_eq!(world.get_json(&logs).await, json!({"records": [], "next_seq": 1}));
    let mut writer = world.writer(build);
    writer.lines(100).await;
    writer.end(Status::Failed).await;

    let page = world.get_json(&format!("{logs}?from_seq=10&limit=5")).await;
    assert_eq!(seqs(page["records"].as_array().unwrap()), [10, 11, 12, 13, 14]);
    assert_eq!(page["next_seq"], 15);
    let errors = world.get_json(&format!("{logs}?stream=stderr&step=2&limit=4")).await;
    assert_eq!(seqs(errors["records"].as_array().unwrap()), [3, 9, 15, 21]);
    assert_eq!(errors["next_seq"], 22);
    let nothing = world.get_json(&format!("{logs}?step=9")).await;
    assert_eq!(seqs(nothing["records"].as_array().unwrap()), [101], "the end always passes");
    let after = world.get_json(&format!("{logs}?from_seq=500")).await;
    assert_eq!(after, json!({"records": [], "next_seq": 500}));
}

#[tokio::test]
async fn line_is_seen_while_its_step_runs_and_a_client_goes_on_after_its_last_event() {
    let world = World::with_host().await;
    let build = world.submit_id("a").await;
    let mut writer = world.writer(build);
    let mut events = world.follow(&build, 1).await;
    for n in 1..=20 {
        writer.lines(1).await;
        assert_eq!(events.seq().await, n, "each line comes before the next is written");
    }
    drop(events);
    writer.lines(5).await;
    let path = format!("/v1/admin/builds/{build}/logs/stream");
    let again = |last: u64| {
        world.request(Method::GET, &path).header("Last-Event-ID", last.to_string()).send()
    };
    let events = Events::of(again(20).await.unwrap());
    let ended = writer.end(Status::Succeeded).await;
    assert_eq!(seqs(&events.rest().await), [21, 22, 23, 24, 25, 26]);

    // After the end there is nothing to follow, whoever knows of it: first the stream, then the row.
    assert_eq!(Events::of(again(26).await.unwrap()).rest().await, Vec::<Value>::new());
    world.store.build_log_store(&[ended]).await.unwrap();
    assert_eq!(again(26).await.unwrap().status(), 204);
}

#[tokio::test]
async fn silent_log_sends_heartbeats_until_it_goes_on() {
    let heartbeat = Duration::from_millis(50);
    let world = World::with(|config| config.logs.heartbeat = heartbeat).await;
    world.host(4, 4096).await;
    let build = world.submit_id("a").await;
    let mut writer = world.writer(build);
    writer.lines(1).await;
    let mut events = world.follow(&build, 1).await;
    assert_eq!(events.seq().await, 1);
    for _ in 0..3 {
        events.heartbeat().await;
    }
    writer.lines(1).await;
    assert_eq!(events.seq().await, 2);
}

#[tokio::test]
async fn follower_goes_on_without_a_gap_after_nats_was_away() {
    let mut world = World::with_host().await;
    let build = world.submit_id("a").await;
    let mut writer = world.writer(build);
    let stored = writer.lines(60).await;
    world.store.build_log_store(&[stored]).await.unwrap();
    writer.lines(40).await;
    let mut events = world.follow(&build, 1).await;
    for n in 1..=100 {
        assert_eq!(events.seq().await, n);
    }
    world.nats.kill9();
    let logs = format!("/v1/admin/builds/{build}/logs");
    let page = world.get_json(&logs).await;
    assert_eq!(seqs(page["records"].as_array().unwrap()), (1..=60).collect::<Vec<_>>());
    assert_eq!(page["next_seq"], 61);
    let away = world.get(&format!("{logs}?from_seq=61")).await;
    assert_eq!(away.status(), 503);
    // Comes while it is away, too.
    let late = world.follow(&build, 50).await;
    world.nats.restart().await.unwrap();
    wait_until("the writer's connection to be back", SOON, || async {
        world.jetstream.query_account().await.is_ok()
    })
    .await;
    for _ in 0..50 {
        writer.lines(2).await;
    }
    writer.end(Status::Cancelled).await;
    let (events, late) = tokio::join!(events.rest(), late.rest());
    assert_eq!(seqs(&events), (101..=201).collect::<Vec<_>>());
    assert_eq!(seqs(&late), (50..=201).collect::<Vec<_>>());
}

#[tokio::test]
async fn follower_ends_with_a_log_whose_last_records_were_lost_after_it_got_them() {
    let world = World::with_host().await;
    let build = world.submit_id("a").await;
    let mut writer = world.writer(build);
    let stored = writer.lines(3).await;
    world.store.build_log_store(&[stored]).await.unwrap();
    writer.lines(4).await;
    let mut events = world.follow(&build, 1).await;
    for n in 1..=7 {
        assert_eq!(events.seq().await, n);
    }
    world.jetstream.delete_stream(world.names.logs_stream().name).await.unwrap();
    logs_stream(&world.jetstream, &world.names).await;
    let mut writer = world.writer(build);
    writer.next = 4;
    let end = writer.end(Status::Failed).await;
    world.store.build_log_store(&[end]).await.unwrap();
    let failed = r#"UPDATE template_builds SET status = 'failed', completed_at = now(),
                    reason = '{"code": "lost", "message": "no"}'"#;
    world.store.connection().execute_unprepared(failed).await.unwrap();
    let rest = tokio::time::timeout(SOON, events.rest()).await.expect("the stream ends");
    let over = json!({"seq": 8, "end": {"status": "failed", "last_seq": 8}});
    assert_eq!(rest, std::slice::from_ref(&over));
    let logs = format!("/v1/admin/builds/{build}/logs");
    let beyond = world.get_json(&format!("{logs}?from_seq=8")).await;
    assert_eq!(beyond, json!({"records": [over], "next_seq": 9}));
    assert_eq!(seqs(&pages(&world, &logs, 100).await), [1, 2, 3, 4]);
}

#[tokio::test]
async fn follower_ends_with_a_log_whose_end_is_noted_and_nowhere_to_be_read() {
    let world = World::with_host().await;
    let build = world.submit_id("a").await;
    let stored = world.writer(build).lines(3).await;
    world.store.build_log_store(&[stored]).await.unwrap();
    let mut events = world.follow(&build, 1).await;
    for n in 1..=3 {
        assert_eq!(events.seq().await, n);
    }
    let ended = r#"UPDATE template_builds SET status = 'failed', completed_at = now(),
                   reason = '{"code": "lost", "message": "no"}', log_end_written = true, log_seq = 9"#;
    world.store.connection().execute_unprepared(ended).await.unwrap();
    world.jetstream.delete_stream(world.names.logs_stream().name).await.unwrap();
    logs_stream(&world.jetstream, &world.names).await;
    let rest = tokio::time::timeout(SOON, events.rest()).await.expect("the stream ends");
    assert_eq!(rest, [json!({"seq": 4, "end": {"status": "failed", "last_seq": 4}})]);
}

#[tokio::test]
async fn client_that_stops_reading_is_cut_off_and_others_do_not_notice() {
    let world = World::with(|config| {
        // The quick client must keep up on a busy machine, too.
        config.logs.queue_records = 64;
        config.logs.slow_client_timeout = Duration::from_millis(500);
    })
    .await;
    world.host(4, 4096).await;
    let build = world.submit_id("a").await;
    let mut slow =
        tokio::net::TcpStream::connect(world.url.trim_start_matches("http://")).await.unwrap();
    let request = format!(
        "GET /v1/admin/builds/{build}/logs/stream HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\
         x-api-key: {}\r\n\r\n",
        world.admin
    );
    slow.write_all(request.as_bytes()).await.unwrap();
    let mut start = [0; 15];
    slow.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200 OK");

    let quick = world.follow(&build, 1).await;
    let mut writer = world.writer(build);
    let total = 1500;
    let write = async {
        for _ in 0..total {
            writer.texts(vec!["x".repeat(16 * 1024)]).await;
        }
        writer.end(Status::Succeeded).await;
    };
    let ((), records) = tokio::join!(write, quick.rest());
    assert_eq!(seqs(&records), (1..=total + 1).collect::<Vec<_>>());

    // The server let go of it although it was not read; what is left in the buffers has no end.
    let mut left = Vec::new();
    let read = tokio::time::timeout(SOON, slow.read_to_end(&mut left)).await;
    read.expect("the connection was closed").ok();
    assert!(left.len() < 20 * 1024 * 1024, "{} bytes were kept for it", left.len());
    assert!(!String::from_utf8_lossy(&left).contains("\"end\""));
}

#[tokio::test]
async fn only_so_many_are_followed_at_once_and_a_stopping_server_says_so() {
    let mut world = World::with(|config| {
        config.logs.streams_max = 2;
        // A client that left is noticed when something is sent to it.
        config.logs.heartbeat = Duration::from_millis(50);
    })
    .await;
    world.host(4, 4096).await;
    let build = world.submit_id("a").await;
    let path = format!("/v1/admin/builds/{build}/logs/stream");
    let mut first = world.follow(&build, 1).await;
    let second = world.follow(&build, 1).await;
    let refused = world.get(&path).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.json::<Value>().await.unwrap()["error"]["code"], "too_many_streams");
    drop(second);
    wait_until("the second one's place to be free", SOON, || async {
        world.get(&path).await.status() == 200
    })
    .await;

    let (last, ()) = tokio::join!(first.next(), world.stop());
    let last = last.unwrap();
    assert_eq!(last.kind.as_deref(), Some("error"));
    assert_eq!(last.data["error"]["code"], "unavailable");
    assert_eq!(first.next().await, None);
}

#[tokio::test]
async fn key_follows_so_many_and_no_other_key_waits_for_it() {
    let world = World::with(|config| {
        (config.logs.streams_max, config.logs.streams_of_one_key_max) = (3, 2);
    })
    .await;
    world.host(4, 4096).await;
    let build = world.submit_id("a").await;
    let other = world.key(Scope::Read, None).await;
    let ask = async |key: &str, path: &str| {
        let request = world.client.get(format!("{}{path}", world.url)).bearer_auth(key);
        request.send().await.unwrap()
    };
    let logs = format!("/v1/admin/builds/{build}/logs/stream");
    let events = "/v1/admin/events/stream";
    let held = [ask(&world.admin, &logs).await, ask(&world.admin, events).await];
    assert!(held.iter().all(|response| response.status() == 200));
    for path in [&logs, events] {
        let refused = ask(&world.admin, path).await;
        assert_eq!(refused.status(), 429, "{path}");
        assert_eq!(refused.json::<Value>().await.unwrap()["error"]["code"], "too_many_streams");
    }
    let theirs = ask(&other, &logs).await;
    assert_eq!(theirs.status(), 200);
    assert_eq!(ask(&other, events).await.status(), 429, "all places are taken");
}
