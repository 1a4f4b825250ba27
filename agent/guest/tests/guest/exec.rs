//! Commands: what they see, how they end, and that not one byte of theirs is lost.

use std::time::{Duration, Instant};

use ovenbird_guest_protocol::{
    EXEC_BUFFER,
    v1::{
        AckExecRequest, ExecContext, SignalExecRequest, UnfollowExecsRequest,
        attach_exec_response::Event,
    },
};
use tonic::Code;

use crate::{
    call::{
        WITHIN, attach, attach_request, eventually, exec, info, new_id, next, print, run, script,
    },
    vm::Vm,
};

#[tokio::test]
async fn command_says_what_it_printed_where_and_how_it_ended() {
    let vm = Vm::boot().await;
    let outcome = run(&vm.client, script("echo out; echo err >&2; exit 3")).await;
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "err\n"));
    let end = outcome.end;
    assert_eq!(
        (end.exit_code, end.timed_out, end.error.as_str(), end.end_offset),
        (3, false, "", 8)
    );

    let killed = run(&vm.client, script("kill -SEGV $$")).await;
    assert_eq!(killed.end.exit_code, 128 + 11);
    let begun = Instant::now();
    let quick = run(&vm.client, exec(&new_id(), "true", &[])).await;
    assert_eq!(quick.end.exit_code, 0);
    assert!(u128::from(quick.end.elapsed_ms) <= begun.elapsed().as_millis(), "{:?}", quick.end);
    let silent = run(&vm.client, script("cat; echo end of input")).await;
    assert_eq!(silent.stdout, "end of input\n");
}

#[tokio::test]
async fn command_runs_as_whom_where_and_with_what_it_was_told() {
    let vm = Vm::boot().await;
    print(&vm.client, "useradd -m -G games,cdrom app && id -G app").await;
    let show = "id -un; id -G; pwd; echo $HOME $USER $LANG; echo \"$GREETING\"; ulimit -u >/dev/null; \
                cat /proc/self/oom_score_adj; touch /root/x 2>/dev/null || echo refused";
    let mut request = script(show);
    request.context = Some(ExecContext {
        env: [("GREETING".into(), "hello  two\nlines".into())].into(),
        workdir: "/var/tmp".into(),
        user: "app".into(),
    });
    let outcome = run(&vm.client, request).await;
    let expected =
        "app\n1000 5 24\n/var/tmp\n/home/app app C.UTF-8\nhello  two\nlines\n0\nrefused\n";
    let groups_sorted = outcome.stdout.replace("1000 24 5", "1000 5 24");
    let groups_sorted =
        groups_sorted.replace("1000 24 60", "1000 5 24").replace("1000 60 24", "1000 5 24");
    assert_eq!(groups_sorted, expected);

    let plain = print(&vm.client, "id -un; pwd; echo $HOME; cat /proc/1/oom_score_adj").await;
    assert_eq!(plain, "root\n/\n/root\n-1000\n");

    // A PATH of the command's own is the one it is searched in.
    print(
        &vm.client,
        "mkdir /opt/own; printf '#!/bin/sh\\necho mine\\n' > /opt/own/tool; chmod +x /opt/own/tool",
    )
    .await;
    let mut request = exec(&new_id(), "tool", &[]);
    request.context.as_mut().unwrap().env.insert("PATH".into(), "/opt/own:/bin".into());
    assert_eq!(run(&vm.client, request).await.stdout, "mine\n");
}

#[tokio::test]
async fn command_that_cannot_start_ends_as_a_shell_would_and_says_why() {
    let vm = Vm::boot().await;
    let missing = run(&vm.client, exec(&new_id(), "no-such-program", &[])).await.end;
    assert_eq!(missing.exit_code, 127);
    assert!(missing.error.contains("no-such-program"), "{missing:?}");
    let not_executable = run(&vm.client, exec(&new_id(), "/etc/passwd", &[])).await.end;
    assert_eq!(not_executable.exit_code, 126);
    assert!(not_executable.error.contains("ermission denied"), "{not_executable:?}");

    for (workdir, user, said) in [
        ("/none", "", "workdir /none"),
        ("/etc/passwd", "", "not a folder"),
        ("", "nobody-here", "no user"),
    ] {
        let mut request = script("echo started");
        let context = request.context.as_mut().unwrap();
        (context.workdir, context.user) = (workdir.into(), user.into());
        let outcome = run(&vm.client, request).await;
        assert_eq!((outcome.end.exit_code, outcome.stdout.as_str()), (126, ""));
        assert!(outcome.end.error.contains(said), "{:?}", outcome.end);
    }
    for (id, cmd) in
        [("", "true"), ("a b", "true"), (&"x".repeat(129), "true"), ("a", ""), ("a", "a\0b")]
    {
        let refused = vm.client.clone().start_exec(exec(id, cmd, &[])).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{id:?} {cmd:?}");
    }
    let unknown = attach(&vm.client, "never-started", 0).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

#[tokio::test]
async fn repeated_start_answers_for_the_first_and_starts_nothing() {
    let vm = Vm::boot().await;
    let request = exec("once", "/bin/sh", &["-c", "echo x >> /root/once; sleep 0.2; echo done"]);
    let first = vm.client.clone().start_exec(request.clone()).await.unwrap().into_inner();
    let again = vm.client.clone().start_exec(request.clone()).await.unwrap().into_inner();
    assert_eq!((first.pid, first.already_started), (again.pid, false));
    assert!(again.already_started);
    assert_eq!(run(&vm.client, request.clone()).await.stdout, "done\n");
    let ended = vm.client.clone().start_exec(request).await.unwrap().into_inner();
    assert!(ended.already_started);
    assert_eq!(print(&vm.client, "cat /root/once").await, "x\n");
}

#[tokio::test]
async fn command_over_its_time_is_killed_with_children_that_left_its_session() {
    let vm = Vm::boot().await;
    let mut request =
        script("setsid sleep 1000 & setsid setsid sleep 1000 & echo begun; sleep 1000");
    request.timeout_ms = 5000;
    let outcome = run(&vm.client, request).await;
    assert_eq!((outcome.end.exit_code, outcome.end.timed_out), (137, true));
    assert_eq!(outcome.stdout, "begun\n");
    assert!((5000..60_000).contains(&outcome.end.elapsed_ms), "{:?}", outcome.end);
    assert_eq!(
        print(&vm.client, "cat /proc/[0-9]*/comm 2>/dev/null | grep -c sleep; :").await,
        "0\n"
    );
}

#[tokio::test]
async fn background_child_neither_delays_the_end_nor_dies_of_it() {
    let vm = Vm::boot().await;
    let noisy = "(while :; do echo noise; sleep 0.05; done) & echo $! > /root/pid; echo done";
    let request = exec("with-child", "/bin/sh", &["-c", noisy]);
    let started = Instant::now();
    let outcome = run(&vm.client, request).await;
    assert!(outcome.stdout.contains("done\n"), "{outcome:?}");
    assert!(started.elapsed() < WITHIN, "{:?}", started.elapsed());
    // It goes on writing into a pipe that is still read.
    let alive = "sleep 0.5; kill -0 $(cat /root/pid) && echo alive";
    assert_eq!(print(&vm.client, alive).await, "alive\n");
    let kill = SignalExecRequest { exec_id: "with-child".into(), signal: 9 };
    vm.client.clone().signal_exec(kill).await.unwrap();
    eventually("the child is gone", || async {
        let gone = print(&vm.client, "kill -0 $(cat /root/pid) 2>/dev/null || echo gone").await;
        (gone == "gone\n").then_some(())
    })
    .await;
    assert_eq!(
        print(&vm.client, "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null; :").await,
        ""
    );
}

#[tokio::test]
async fn signal_reaches_the_group_and_is_refused_after_the_end() {
    let vm = Vm::boot().await;
    let request = exec(
        "signalled",
        "/bin/sh",
        &["-c", "trap 'echo got; exit 5' USR1; echo up; while :; do sleep 0.1; done"],
    );
    vm.client.clone().start_exec(request).await.unwrap();
    let mut stream = attach(&vm.client, "signalled", 0).await.unwrap();
    assert!(matches!(next(&mut stream).await, Event::Output(output) if output.data == "up\n"));
    let signal = |signal| SignalExecRequest { exec_id: "signalled".into(), signal };
    vm.client.clone().signal_exec(signal(10)).await.unwrap();
    loop {
        match next(&mut stream).await {
            Event::Output(_) => {}
            Event::End(end) => break assert_eq!(end.exit_code, 5),
        }
    }
    let late = vm.client.clone().signal_exec(signal(15)).await.unwrap_err();
    assert_eq!(late.code(), Code::FailedPrecondition);
    let nonsense = vm.client.clone().signal_exec(signal(99)).await.unwrap_err();
    assert_eq!(nonsense.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn twenty_thousand_lines_reach_a_slow_follower_whole_while_the_command_is_held_back() {
    let vm = Vm::boot().await;
    let lines = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo \"line $i of a long story that is told slowly\"; done";
    let id = new_id();
    vm.client.clone().start_exec(exec(&id, "/bin/sh", &["-c", lines])).await.unwrap();
    let mut stream = attach(&vm.client, &id, 0).await.unwrap();
    let (mut text, mut acked, mut held_back) = (Vec::new(), 0, false);
    let end = loop {
        if !held_back && text.len() >= EXEC_BUFFER {
            // Nothing more comes before an ack: the buffer is full and the command waits.
            let more = tokio::time::timeout(Duration::from_secs(2), stream.message()).await;
            assert!(more.is_err(), "held back by a full buffer: {more:?}");
            assert_eq!(text.len(), EXEC_BUFFER);
            held_back = true;
        }
        if held_back && text.len() > acked {
            acked = text.len();
            let ack = AckExecRequest { exec_id: id.clone(), offset: acked as u64 };
            vm.client.clone().ack_exec(ack).await.unwrap();
        }
        match next(&mut stream).await {
            Event::Output(output) => {
                assert_eq!(output.offset, text.len() as u64);
                text.extend(output.data);
            }
            Event::End(end) => break end,
        }
    };
    assert!(held_back, "the output is larger than the buffer");
    assert_eq!((end.exit_code, end.end_offset), (0, text.len() as u64));
    let text = String::from_utf8(text).unwrap();
    let expected = (1..=20_000).map(|i| format!("line {i} of a long story that is told slowly"));
    assert!(text.lines().eq(expected), "every line, in order");
}

#[tokio::test]
async fn follower_goes_on_at_its_offset_and_two_read_the_same() {
    let vm = Vm::boot().await;
    let id = new_id();
    let request = exec(&id, "/bin/sh", &["-c", "seq 1 5000; echo err >&2; seq 5001 10000"]);
    vm.client.clone().start_exec(request).await.unwrap();
    let read = |from: u64| {
        let (client, id) = (vm.client.clone(), id.clone());
        async move {
            let mut stream = attach(&client, &id, from).await.unwrap();
            let mut bytes = Vec::new();
            loop {
                match next(&mut stream).await {
                    Event::Output(output) => {
                        assert_eq!(output.offset, from + bytes.len() as u64);
                        bytes.extend(output.data);
                    }
                    Event::End(end) => {
                        assert_eq!(end.end_offset, from + bytes.len() as u64);
                        return bytes;
                    }
                }
            }
        }
    };
    let (one, two) = tokio::join!(read(0), read(0));
    assert_eq!(one, two);
    assert_eq!(read(12_345).await, &one[12_345..]);
    assert_eq!(read(one.len() as u64).await, b"");

    let ack = |offset: usize| AckExecRequest { exec_id: id.clone(), offset: offset as u64 };
    vm.client.clone().ack_exec(ack(20_000)).await.unwrap();
    vm.client.clone().ack_exec(ack(10)).await.unwrap();
    assert_eq!(read(20_000).await, &one[20_000..]);
    for offset in [19_999, one.len() as u64 + 1] {
        let refused = attach(&vm.client, &id, offset).await.unwrap_err();
        assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    }
    let beyond = vm.client.clone().ack_exec(ack(one.len() + 1)).await.unwrap_err();
    assert_eq!(beyond.code(), Code::OutOfRange);
}

#[tokio::test]
async fn followers_that_read_nothing_block_nobody_else() {
    let vm = Vm::boot().await;
    let mut unread = Vec::new();
    for _ in 0..8 {
        let id = new_id();
        vm.client.clone().start_exec(exec(&id, "/bin/sh", &["-c", "yes"])).await.unwrap();
        let stream = vm.client.clone().attach_exec(attach_request(&id, 0, true)).await.unwrap();
        unread.push((id, stream));
    }
    for _ in 0..20 {
        assert_eq!(info(&vm.client).await.execs_running, 8);
    }
    for (id, _) in &unread {
        let kill = SignalExecRequest { exec_id: id.clone(), signal: 9 };
        vm.client.clone().signal_exec(kill).await.unwrap();
    }
}

#[tokio::test]
async fn command_that_nobody_will_follow_any_more_is_not_held_back() {
    let vm = Vm::boot().await;
    let bytes = 4 * EXEC_BUFFER;
    let request = script(&format!("head -c {bytes} /dev/zero; echo end > /tmp/end"));
    let id = request.exec_id.clone();
    vm.client.clone().start_exec(request).await.unwrap();
    // An ack beyond the output is refused; the first one that is not says that the buffer was full.
    eventually("the buffer is full", || async {
        let full = AckExecRequest { exec_id: id.clone(), offset: EXEC_BUFFER as u64 };
        vm.client.clone().ack_exec(full).await.ok()
    })
    .await;
    vm.client.clone().unfollow_execs(UnfollowExecsRequest {}).await.unwrap();
    eventually("the command has ended", || async {
        let outcome = run(&vm.client, script("cat /tmp/end")).await;
        (outcome.stdout == "end\n").then_some(())
    })
    .await;
    let lost = attach(&vm.client, &id, EXEC_BUFFER as u64).await.unwrap_err();
    assert_eq!(lost.code(), Code::OutOfRange, "{lost:?}");
}

#[tokio::test]
async fn ended_commands_are_forgotten_oldest_first_and_running_ones_are_bounded() {
    let vm = Vm::boot().await;
    let first = new_id();
    run(&vm.client, exec(&first, "true", &[])).await;
    for _ in 0..64 {
        run(&vm.client, exec(&new_id(), "true", &[])).await;
    }
    assert_eq!(attach(&vm.client, &first, 0).await.unwrap_err().code(), Code::NotFound);
    for _ in 0..64 {
        vm.client.clone().start_exec(exec(&new_id(), "sleep", &["1000"])).await.unwrap();
    }
    let refused = vm.client.clone().start_exec(exec(&new_id(), "true", &[])).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
}
