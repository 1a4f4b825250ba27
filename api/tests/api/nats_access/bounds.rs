//! Too many, too slow, and nobody there to ask.

use std::time::Instant;

use futures::StreamExt as _;
use ovenbird_api::app::keys::Scope;
use ovenbird_contract::nats_access::Role;
use ovenbird_testkit::wait_for;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::party::{Party, is_refused};
use crate::world::{SOON, World};

#[tokio::test]
async fn key_has_a_bounded_number_of_connections_and_gets_one_back_when_another_ends() {
    let world = World::guarded(|config| config.nats_access.connections_max = 2).await;
    let (key, other) = (world.key(Scope::Read, None).await, world.key(Scope::Read, None).await);
    let first = Party::customer(&world, &key).await.unwrap();
    let _second = Party::customer(&world, &key).await.unwrap();
    is_refused(&world, &key).await;
    assert!(Party::customer(&world, &other).await.is_ok());
    first.client.drain().await.unwrap();
    wait_for("a place", SOON, || async { Party::customer(&world, &key).await.ok() }).await.unwrap();
}

#[tokio::test]
async fn wrong_keys_on_nats_are_counted_for_their_address_like_those_on_http() {
    let world = World::guarded(|config| {
        config.rate.address_burst = 1_000.try_into().unwrap();
        config.rate.address_per_second = 1.try_into().unwrap();
    })
    .await;
    let begun = Instant::now();
    for number in 0..5 {
        is_refused(&world, &format!("ovb_{number}{}", "x".repeat(42))).await;
    }
    let stranger = world.client.get(format!("{}/v1/admin/builds", world.url)).send().await.unwrap();
    let left = stranger.headers()["ratelimit-remaining"].to_str().unwrap().parse::<u64>().unwrap();
    assert!(left <= 1_000 - 6 + begun.elapsed().as_secs() + 1, "{left}");
}

#[tokio::test]
async fn without_a_callout_nobody_new_comes_in_and_everybody_else_goes_on() {
    let mut world = World::guarded(|_| {}).await;
    let build = world.submit_id("watched").await;
    let key = world.key(Scope::Read, None).await;
    let mut customer = Party::customer(&world, &key).await.unwrap();
    let mut live = customer.client.subscribe(world.names.logs(&build)).await.unwrap();
    customer.caught_up().await;
    world.stop().await;
    let begun = Instant::now();
    assert!(Party::customer(&world, &key).await.is_err());
    println!("refused after {:?}", begun.elapsed());
    Party::role(&world, Role::Runner).await;
    world.writer(build).lines(1).await;
    assert!(tokio::time::timeout(SOON, live.next()).await.unwrap().is_some());
}

/// More than the server keeps for one client and the kernel for its connection.
const MESSAGES: usize = 100;
const MESSAGE_BYTES: usize = 1_000_000;

#[tokio::test]
async fn reader_that_stops_reading_is_cut_and_the_others_do_not_notice() {
    let world = World::guarded(|_| {}).await;
    let build = world.submit_id("watched").await;
    let key = world.key(Scope::Read, None).await;
    let subject = world.names.events(&build);
    let address = world.nats.url().replace("nats://", "");
    let mut slow = TcpStream::connect(address).await.unwrap();
    let hello = format!(
        "CONNECT {{\"verbose\":false,\"auth_token\":\"{key}\"}}\r\nSUB {subject} 1\r\nPING\r\n"
    );
    slow.write_all(hello.as_bytes()).await.unwrap();
    let mut said = String::new();
    while !said.contains("PONG") {
        let mut buffer = [0; 1024];
        let count = slow.read(&mut buffer).await.unwrap();
        assert!(count > 0, "{said}");
        said.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }

    let mut quick = Party::customer(&world, &key).await.unwrap();
    let mut live = quick.client.subscribe(subject.clone()).await.unwrap();
    quick.caught_up().await;
    let tools = Party::role(&world, Role::Tools).await;
    let payload = bytes::Bytes::from(vec![b'x'; MESSAGE_BYTES]);
    let writing = tokio::spawn(async move {
        for _ in 0..MESSAGES {
            tools.client.publish(subject.clone(), payload.clone()).await.unwrap();
        }
        tools.client.flush().await.unwrap();
        tools
    });
    for _ in 0..MESSAGES {
        assert!(tokio::time::timeout(SOON, live.next()).await.unwrap().is_some());
    }
    writing.await.unwrap();
    let mut got = 0;
    let mut buffer = vec![0; 1 << 20];
    let ended = async {
        while let Ok(count @ 1..) = slow.read(&mut buffer).await {
            got += count;
        }
    };
    tokio::time::timeout(SOON, ended).await.expect("its connection is closed");
    assert!(got < MESSAGES * MESSAGE_BYTES, "{got}");
    println!("the slow reader got {got} bytes of {}", MESSAGES * MESSAGE_BYTES);
}
