//! The connection is lost in every way that a host can lose it.

use std::{
    io::Write,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use ovenbird_agent::guest_link::Arrival;
use ovenbird_guest_protocol::{
    Hello,
    v1::{
        AckExecRequest, WriteFileMeta, WriteFileRequest, attach_exec_response::Event,
        write_file_request::Content,
    },
};
use tokio_stream::StreamExt;
use tonic::Code;

use crate::{
    call::{WITHIN, assert_clock, attach, exec, info, new_id, next, print},
    vm::Vm,
};

/// An upload without end.
fn endless(path: &str) -> impl tokio_stream::Stream<Item = WriteFileRequest> + use<> {
    let meta = WriteFileMeta { path: path.into(), ..WriteFileMeta::default() };
    let chunk = WriteFileRequest { content: Some(Content::Chunk(vec![7; 200_000].into())) };
    tokio_stream::once(WriteFileRequest { content: Some(Content::Meta(meta)) })
        .chain(tokio_stream::iter(std::iter::repeat(chunk)))
}

#[tokio::test]
async fn host_that_goes_away_in_mid_stream_is_served_again_and_loses_no_output() {
    let vm = Vm::boot().await;
    let id = new_id();
    let count = "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); echo $i; done";
    vm.client.clone().start_exec(exec(&id, "/bin/sh", &["-c", count])).await.unwrap();
    let mut client = vm.client.clone();
    let (mut text, mut times) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        let upload = {
            let mut client = client.clone();
            tokio::spawn(async move { client.write_file(endless("/root/upload")).await })
        };
        let mut stream = attach(&client, &id, text.len() as u64).await.unwrap();
        for _ in 0..3 {
            if let Event::Output(output) = next(&mut stream).await {
                assert_eq!(output.offset, text.len() as u64);
                text.extend(output.data);
            }
        }
        // The sockets close in the middle of frames, in both directions.
        vm.link.disconnect();
        upload.await.unwrap().unwrap_err();
        let lost = Instant::now();
        client = vm.reconnect(Arrival::Running).await;
        info(&client).await;
        times.push(lost.elapsed());
        let ack = AckExecRequest { exec_id: id.clone(), offset: text.len() as u64 };
        client.ack_exec(ack).await.unwrap();
    }
    times.sort();
    eprintln!(
        "back after {:?} median, {:?} at most",
        times[times.len() / 2],
        times[times.len() - 1]
    );
    let mut stream = attach(&client, &id, text.len() as u64).await.unwrap();
    loop {
        match next(&mut stream).await {
            Event::Output(output) => {
                assert_eq!(output.offset, text.len() as u64);
                text.extend(output.data);
                let ack = AckExecRequest { exec_id: id.clone(), offset: text.len() as u64 };
                client.ack_exec(ack).await.unwrap();
            }
            Event::End(end) => break assert_eq!(end.exit_code, 0),
        }
    }
    let text = String::from_utf8(text).unwrap();
    for (at, line) in text.lines().enumerate() {
        assert_eq!(line, (at + 1).to_string());
    }
    assert_eq!(text.lines().count(), 30_000);
    assert_eq!(print(&client, "ls -A /root | grep -e upload -e tmp; :").await, "");
}

#[tokio::test]
async fn noise_and_half_a_hello_do_not_hide_the_next() {
    let vm = Vm::boot().await;
    let hello = Hello {
        protocol: 1,
        arrival: Arrival::Running,
        nonce: [1; 16],
        unix_nanos: 0,
        entropy: [2; 32],
    }
    .encode(&vm.token);
    let cut = &hello[..40];
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], cut, &[cut, &[0; 100_000]].concat(), &[]] {
        vm.link.disconnect();
        let mut stranger = UnixStream::connect(vm.path("guest.sock")).unwrap();
        stranger.write_all(bytes).unwrap();
        drop(stranger);
        let started = Instant::now();
        info(&vm.reconnect(Arrival::Running).await).await;
        assert!(started.elapsed() < WITHIN, "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn client_of_a_closed_link_is_refused_and_one_of_a_lost_connection_dials_again() {
    let vm = Vm::boot().await;
    let before = info(&vm.client).await;
    let second = vm.reconnect(Arrival::Running).await;
    let after = info(&second).await;
    assert_eq!(before.boot_id, after.boot_id);
    assert_eq!(after.hellos, before.hellos + 1);
    let refused =
        vm.client.clone().info(ovenbird_guest_protocol::v1::InfoRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
}

#[tokio::test]
async fn clock_is_right_again_after_a_pause() {
    let vm = Vm::boot().await;
    vm.link.disconnect();
    crate::qmp::pause_for(vm.folder.path(), Duration::from_secs(3));
    let client = vm.reconnect(Arrival::Resumed).await;
    assert_clock(&client, 1000).await;
}
