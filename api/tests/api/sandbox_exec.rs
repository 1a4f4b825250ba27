//! Commands that are followed: every line once, a bounded queue, and a clear end.

use std::time::Duration;

use ovenbird_api::app::sandboxes::{Item, Ran, Run};
use ovenbird_testkit::wait_until;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpSocket,
};

use crate::{
    sandboxes::{create, path},
    world::{Event, Events, SOON, World},
};

async fn follow(world: &World, sandbox: &Value, script: &str) -> Events {
    let body = json!({"script": script, "timeout_sec": 60});
    Events::of(world.post(&path(sandbox, "/exec/stream"), &body).await)
}

async fn rest(mut events: Events) -> Vec<Event> {
    let mut all = Vec::new();
    while let Some(event) = events.next().await {
        all.push(event);
    }
    all
}

fn kinds(events: &[Event]) -> Vec<&str> {
    let mut kinds: Vec<_> = events.iter().map(|event| event.kind.as_deref().unwrap()).collect();
    kinds.dedup();
    kinds
}

fn lines(events: &[Event]) -> Vec<u64> {
    let text: String = events.iter().filter_map(|event| event.data["text"].as_str()).collect();
    let number = |line: &str| line.split(' ').next().unwrap().parse().unwrap();
    text.lines().map(number).collect()
}

#[tokio::test]
async fn followed_command_tells_its_start_every_line_and_its_end() {
    let (world, _host) = World::with_agent(|config| {
        config.logs.heartbeat = Duration::from_millis(50);
        config.sandboxes.exec_output_bytes = 1000;
        config.sandboxes.streams_max = 2;
    })
    .await;
    let made = create(&world, json!({"template": "minimal"})).await;
    let all = rest(follow(&world, &made, "bench-lines 500 5000").await).await;
    assert_eq!(kinds(&all), ["start", "stdout", "end"]);
    assert_eq!(lines(&all), (0..500).collect::<Vec<_>>());
    assert_eq!(all.last().unwrap().data, json!({"exit_code": 0, "timed_out": false}));
    // Waited for, its beginning is told.
    let body = json!({"script": "bench-lines 500 5000"});
    let done: Value = world.post(&path(&made, "/exec"), &body).await.json().await.unwrap();
    assert_eq!((&done["exit_code"], done["stdout"].as_str().unwrap().len()), (&json!(0), 1000));
    assert!(done["truncated"]["stdout_bytes"].as_u64().unwrap() > 5000, "{done}");
    assert_eq!(done["truncated"]["stderr_bytes"], 0);

    // One line in ten seconds.
    let mut silent = follow(&world, &made, "bench-lines 5 1").await;
    assert_eq!(silent.next().await.unwrap().kind.as_deref(), Some("start"));
    silent.next().await.unwrap();
    silent.heartbeat().await;
    let other = follow(&world, &made, "bench-lines 60 1").await;
    let body = json!({"script": "true"});
    let refused = world.post(&path(&made, "/exec/stream"), &body).await;
    assert_eq!(refused.status(), 429);
    drop(other);
    wait_until("the other one's place to be free", SOON, || async {
        world.post(&path(&made, "/exec/stream"), &body).await.status() == 200
    })
    .await;
    // A pause ends what is followed.
    let (pause, nothing) = (path(&made, "/pause"), json!({}));
    let (paused, last) = tokio::join!(world.post(&pause, &nothing), rest(silent));
    assert_eq!(paused.status(), 200);
    let last = last.last().unwrap();
    assert_eq!(last.kind.as_deref(), Some("error"));
    let code = last.data["error"]["code"].as_str().unwrap();
    assert!(["sandbox_paused", "sandbox_busy"].contains(&code), "{last:?}");
}

#[tokio::test]
async fn stopping_server_ends_a_followed_command_and_says_so() {
    let (mut world, _host) = World::with_agent(|_| {}).await;
    let made = create(&world, json!({"template": "minimal"})).await;
    let mut events = follow(&world, &made, "bench-lines 60 1").await;
    assert_eq!(events.next().await.unwrap().kind.as_deref(), Some("start"));
    let (all, ()) = tokio::join!(rest(events), world.stop());
    let last = all.last().unwrap();
    assert_eq!(
        (last.kind.as_deref(), &last.data["error"]["code"]),
        (Some("error"), &json!("unavailable"))
    );
}

#[tokio::test]
async fn client_that_stops_reading_a_command_is_cut_off_and_others_do_not_notice() {
    let (world, _host) = World::with_agent(|config| {
        config.sandboxes.queue_events = 4;
        config.sandboxes.streams_max = 2;
        config.logs.slow_client_timeout = Duration::from_millis(500);
    })
    .await;
    let made = create(&world, json!({"template": "minimal"})).await;
    // More than the buffers between hold.
    let body = json!({"script": "bench-lines 2000000 1000000", "timeout_sec": 60}).to_string();
    let request = format!(
        "POST {} HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx-api-key: {}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        path(&made, "/exec/stream"),
        world.admin,
        body.len()
    );
    let address = world.url.trim_start_matches("http://").parse().unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let mut slow = socket.connect(address).await.unwrap();
    slow.write_all(request.as_bytes()).await.unwrap();
    let mut start = [0; 15];
    slow.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200 OK");

    let quick = rest(follow(&world, &made, "bench-lines 2000 2000").await).await;
    assert_eq!(lines(&quick), (0..2000).collect::<Vec<_>>());
    assert_eq!(kinds(&quick).last(), Some(&"end"));
    // The server lets go of it although it is not read: its place is free, and its connection ends.
    let other = follow(&world, &made, "bench-lines 60 1").await;
    let (third, nothing) = (path(&made, "/exec/stream"), json!({"script": "true"}));
    wait_until("the slow one's place to be free", SOON, || async {
        world.post(&third, &nothing).await.status() == 200
    })
    .await;
    drop(other);
    let mut left = Vec::new();
    let read = tokio::time::timeout(SOON, slow.read_to_end(&mut left)).await;
    read.expect("the connection was closed").ok();
    assert!(!String::from_utf8_lossy(&left).contains("event: end"), "{} bytes", left.len());
}

#[tokio::test]
async fn last_item_of_a_client_that_is_cut_off_says_so() {
    let (world, _host) = World::with_agent(|config| {
        config.sandboxes.queue_events = 4;
        config.sandboxes.streams_max = 1;
        config.logs.slow_client_timeout = Duration::from_millis(200);
    })
    .await;
    let made = create(&world, json!({"template": "minimal"})).await;
    let app = world.app().await;
    let caller = app.key_authenticate(&world.admin).await.unwrap().unwrap();
    let ran = |script: &str| Ran {
        run: Run::Script(script.into()),
        env: Default::default(),
        workdir: None,
        user: None,
        timeout_sec: 60,
    };
    let id = made["id"].as_str().unwrap().parse().unwrap();
    let endless = ran("bench-lines 2000000 1000000");
    let mut output = app.sandbox_exec_stream(&caller, id, endless).await.unwrap();
    assert!(matches!(output.next().await, Some(Item::Started(_))));
    wait_until("its place to be free", SOON, || async {
        app.sandbox_exec_stream(&caller, id, ran("true")).await.is_ok()
    })
    .await;
    let mut waited = 0;
    let last = loop {
        match output.next().await {
            Some(Item::Stdout(_)) => waited += 1,
            other => break other,
        }
    };
    assert!(matches!(last, Some(Item::CutOff)), "{last:?}");
    assert_eq!(waited, 4, "as many as the queue holds");
    assert!(output.next().await.is_none());
    assert_eq!(world.request(Method::DELETE, &path(&made, "")).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn command_that_is_waited_for_ends_when_its_client_hangs_up() {
    let (world, _host) = World::with_agent(|_| {}).await;
    let made = create(&world, json!({"template": "minimal"})).await;
    // Of its own it would go on for longer than anybody waits here.
    let body = json!({"script": "bench-lines 600 1", "timeout_sec": 100});
    let request = world.request(Method::POST, &path(&made, "/exec")).json(&body);
    let client = tokio::spawn(request.send());
    let ended = async |status: &str| {
        let rows =
            "SELECT COALESCE(status::text, 'open') FROM audit_log WHERE action = 'sandbox_exec'";
        world.postgres.sql("ovenbird", rows).await.unwrap() == status
    };
    wait_until("the command to begin", SOON, || ended("open")).await;
    client.abort();
    wait_until("the command to end", SOON, || ended("503")).await;
    let body = json!({"script": "true"});
    assert_eq!(world.post(&path(&made, "/exec"), &body).await.status(), 200);
}
