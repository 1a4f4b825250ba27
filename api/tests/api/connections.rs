//! Connections that want too much, or nothing.

use std::{io::ErrorKind, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::Instant,
};

use crate::world::{SOON, World};

const ASK: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n";

async fn connect(world: &World) -> TcpStream {
    TcpStream::connect(world.url.trim_start_matches("http://")).await.unwrap()
}

/// Reads one answer without a body of its own length.
async fn answered(stream: &mut TcpStream) {
    let mut answer = Vec::new();
    let read = async {
        while !String::from_utf8_lossy(&answer).contains("\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
        }
    };
    tokio::time::timeout(SOON, read).await.expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 200 OK"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn client_that_speaks_http2_is_told_to_speak_another_version() {
    let world = World::start().await;
    let mut stream = connect(&world).await;
    // The preface of a client, and empty settings.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await;
    read.expect("the connection ends").unwrap();
    // GOAWAY, whose error is HTTP_1_1_REQUIRED.
    assert_eq!((answer.get(12), answer.last()), (Some(&7), Some(&13)), "{answer:?}");
}

#[tokio::test]
async fn connection_without_a_whole_head_in_time_is_closed_though_bytes_come() {
    let world = World::with(|config| config.http.head_timeout = Duration::from_millis(300)).await;
    let mut slow = connect(&world).await;
    slow.write_all(b"\r\n\r\nGET /healthz HTTP/1.1\r\nx-long: ").await.unwrap();
    let (mut read, mut write) = slow.split();
    let trickle = async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            tick.tick().await;
            if write.write_all(b"x").await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let mut left = Vec::new();
    let ended = async {
        tokio::select! {
            ended = read.read_to_end(&mut left) => ended,
            () = trickle => unreachable!("it never ends"),
        }
    };
    // By a reset, perhaps: there is always something that was not read.
    let _ = tokio::time::timeout(SOON, ended).await.expect("the connection ends");
    assert!(left.is_empty(), "nothing is answered: {}", String::from_utf8_lossy(&left));

    // Whoever has asked once may take its time for the next question.
    let (mut kept, started) = (connect(&world).await, Instant::now());
    while started.elapsed() < Duration::from_secs(1) {
        kept.write_all(ASK).await.unwrap();
        answered(&mut kept).await;
    }
}

#[tokio::test]
async fn connection_beyond_the_bound_waits_until_another_one_is_closed() {
    let world = World::with(|config| config.http.connections_max = 1).await;
    let mut first = connect(&world).await;
    first.write_all(ASK).await.unwrap();
    answered(&mut first).await;
    let mut second = connect(&world).await;
    second.write_all(ASK).await.unwrap();
    for _ in 0..20 {
        first.write_all(ASK).await.unwrap();
        answered(&mut first).await;
    }
    let early = second.try_read(&mut [0; 1]);
    assert_eq!(early.expect_err("nothing yet").kind(), ErrorKind::WouldBlock);
    drop(first);
    answered(&mut second).await;
}
