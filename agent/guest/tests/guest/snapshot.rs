//! Forks of one saved machine.

use std::time::{Duration, Instant};

use ovenbird_guest_protocol::v1::attach_exec_response::Event;

use crate::{
    call::{assert_clock, attach, exec, next, print},
    qmp,
    vm::Vm,
};

#[tokio::test]
async fn forks_answer_go_on_with_their_commands_and_differ_in_what_is_random() {
    let saved = Vm::boot().await;
    let count = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done";
    saved.client.clone().start_exec(exec("count", "/bin/sh", &["-c", count])).await.unwrap();
    let mut stream = attach(&saved.client, "count", 0).await.unwrap();
    let Event::Output(first) = next(&mut stream).await else { panic!("the command has ended") };
    // In mid-stream: the link is not told.
    qmp::save(saved.folder.path());
    tokio::time::sleep(Duration::from_secs(2)).await;

    let mut random = Vec::new();
    for _ in 0..2 {
        let started = Instant::now();
        let fork = Vm::fork(saved.folder.path(), saved.token).await;
        assert_clock(&fork.client, 1000).await;
        eprintln!("a fork answered after {:?}", started.elapsed());
        random.push(print(&fork.client, "od -An -tx1 -N16 /dev/urandom").await);
        let mut stream = attach(&fork.client, "count", 0).await.unwrap();
        let mut text = Vec::new();
        while text.len() < first.data.len() + 200 {
            let Event::Output(output) = next(&mut stream).await else { panic!("it has ended") };
            text.extend(output.data);
        }
        let whole = &text[..=text.iter().rposition(|byte| *byte == b'\n').unwrap()];
        let numbers =
            std::str::from_utf8(whole).unwrap().lines().map(|line| line.parse::<usize>().unwrap());
        assert!(numbers.eq(1..=whole.iter().filter(|byte| **byte == b'\n').count()));
    }
    assert_ne!(random[0], random[1]);
}
