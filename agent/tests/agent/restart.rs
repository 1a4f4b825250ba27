//! An agent that ends or is killed, and the one that follows it: what goes on, and what is left.

use std::process::Command;

use ovenbird_hostagent::v1::{self as host, attach_exec_response as attached};
use ovenbird_testkit::wait_for;
use tonic::Code;

use crate::support::*;

/// Lines of the counter below: enough to be at work over a restart, and to end after it.
const LINES: u64 = 600;

fn keep() -> Options {
    Options { keep: true, ..Options::default() }
}

/// Prints numbers, slowly, and at the end its process's number.
fn counter() -> String {
    format!("echo $$ > /run/pid; for i in $(seq {LINES}); do echo $i; sleep 0.02; done; echo $$")
}

/// What was read of a detached command.
#[derive(Default)]
struct Read {
    text: Vec<u8>,
    has_ended: bool,
}

impl Read {
    /// Reads on from where it is until the command ends, the connection does, or `until` says so.
    async fn go_on(&mut self, mut client: Client, id: &str, until: impl Fn(&[u8]) -> bool) {
        let request = host::AttachExecRequest {
            sandbox_id: id.into(),
            exec_id: "counter".into(),
            from_offset: self.text.len() as u64,
            ..Default::default()
        };
        let mut events = client.attach_exec(request).await.unwrap().into_inner();
        while !until(&self.text) {
            let event = tokio::time::timeout(PATIENCE, events.message()).await.unwrap();
            let Ok(Some(event)) = event else { return };
            match event.event.unwrap() {
                attached::Event::Output(output) => {
                    assert_eq!(output.offset, self.text.len() as u64);
                    self.text.extend(output.data);
                }
                attached::Event::End(end) => {
                    assert_eq!((end.exit_code, end.end_offset), (0, self.text.len() as u64));
                    self.has_ended = true;
                    return;
                }
            }
        }
    }

    /// Every line once, in order, and the process at the end.
    fn process(&self) -> String {
        assert!(self.has_ended);
        let text = String::from_utf8(self.text.clone()).unwrap();
        let mut lines = text.lines();
        for number in 1..=LINES {
            assert_eq!(lines.next(), Some(&*number.to_string()));
        }
        let process = lines.next().unwrap().to_owned();
        assert_eq!(lines.next(), None);
        process
    }
}

/// What of a sandbox a restart must not change.
async fn identity(host: &Host, id: &str) -> (String, String, i64, String) {
    let info = host.listed(id).await.unwrap();
    let boot = host.shell(id, "cat /proc/sys/kernel/random/boot_id").await;
    (info.status, info.host_ip, info.created_at_unix, boot)
}

#[tokio::test]
async fn killed_agents_sandboxes_go_on_with_their_addresses_and_every_line_of_their_commands() {
    let mut host = Host::start_with(keep()).await;
    host.create("minimal", "origin").await;
    host.snapshot("origin", "snap").await.unwrap();
    let policy = host::CreateSandboxRequest { timeout_sec: 3600, ..sandbox("minimal", "a") };
    let (made, _) = tokio::join!(
        async { host.client.clone().create_sandbox(policy).await.unwrap().into_inner() },
        host.create("snap", "fork"),
    );
    let before = (identity(&host, "a").await, identity(&host, "fork").await, host.machines());
    assert_eq!(before.0.1, made.host_ip);
    host.start_exec("a", "counter", &counter()).await;
    let mut read = Read::default();
    read.go_on(host.client.clone(), "a", |text| text.len() > 50).await;
    let process = host.shell("a", "cat /run/pid").await;
    // A reader that is there when it happens knows where to go on.
    let (client, told) = (host.client.clone(), std::sync::Arc::new(tokio::sync::Notify::new()));
    let (length, tell) = (read.text.len(), told.clone());
    let reader = tokio::spawn(async move {
        let more = move |text: &[u8]| {
            if text.len() > length {
                tell.notify_one();
            }
            false
        };
        read.go_on(client, "a", more).await;
        read
    });
    told.notified().await;
    host.kill_agent();
    let mut read = reader.await.unwrap();
    assert!(!read.has_ended);
    std::fs::create_dir(host.data().join("images/.draft-half")).unwrap();
    std::fs::create_dir(host.data().join("sandboxes/without-a-journal")).unwrap();
    host.start_agent().await;

    let after = (identity(&host, "a").await, identity(&host, "fork").await, host.machines());
    assert_eq!(after, before);
    assert!(!host.data().join("images/.draft-half").exists());
    assert!(!host.data().join("sandboxes/without-a-journal").exists());
    assert_eq!(host.listed("a").await.unwrap().timeout_sec, 3600);
    read.go_on(host.client.clone(), "a", |_| false).await;
    assert_eq!(read.process(), process);
    // They are whole: room is taken, ids are taken, and everything can be done with them.
    let facts = host.client.clone().get_host(host::GetHostRequest {}).await.unwrap().into_inner();
    assert_eq!((facts.sandboxes, facts.allocated_vcpus, facts.allocated_memory_mb), (2, 2, 512));
    let taken = host.client.clone().create_sandbox(sandbox("minimal", "a")).await.unwrap_err();
    assert_eq!(taken.code(), Code::AlreadyExists);
    let third = host.create("snap", "third").await;
    assert!(![&before.0.1, &before.1.1].contains(&&third.host_ip), "{third:?}");
    host.pause("fork").await.unwrap();
    host.resume("fork", 0).await.unwrap();
    assert_eq!(identity(&host, "fork").await, before.1);
    host.snapshot("a", "later").await.unwrap();
    host.create("later", "again").await;
    assert_eq!(host.shell("again", "cat /run/pid").await, process);
    host.terminate().await;
}

#[tokio::test]
async fn agent_that_is_asked_to_end_leaves_machines_and_sleepers_to_the_next() {
    let mut host = Host::start_with(keep()).await;
    tokio::join!(host.create("minimal", "a"), host.create("minimal", "sleeper"));
    let before = (identity(&host, "a").await, identity(&host, "sleeper").await);
    host.shell("sleeper", "echo mark > /run/mark").await;
    host.pause("sleeper").await.unwrap();
    let machines = host.machines();
    assert_eq!(machines.len(), 1);
    host.start_exec("a", "counter", &counter()).await;
    let mut read = Read::default();
    read.go_on(host.client.clone(), "a", |text| text.len() > 50).await;

    // An open stream and an open call do not hold the end up, and a creation is finished.
    let creating = {
        let mut client = host.client.clone();
        tokio::spawn(async move { client.create_sandbox(sandbox("minimal", "late")).await })
    };
    host.wait_for_status("late", "creating").await;
    let call = {
        let mut client = host.client.clone();
        let request = host::ExecRequest {
            sandbox_id: "a".into(),
            cmd: "sleep".into(),
            args: vec!["4242".into()],
            timeout_sec: 5000,
            ..Default::default()
        };
        tokio::spawn(async move { client.exec(request).await })
    };
    wait_for("the command", PATIENCE, || async {
        (host.processes("a", "sleep [4]242").await == 1).then_some(())
    })
    .await
    .unwrap();
    host.stop_agent().await;
    let log = host.log_text();
    assert!(log.contains("the sandboxes are left to the next agent"), "{log}");
    creating.await.unwrap().unwrap();
    assert_eq!(call.await.unwrap().unwrap_err().code(), Code::Unavailable);
    assert_eq!(host.prepared(), Vec::<String>::new());

    host.start_agent().await;
    assert_eq!(identity(&host, "a").await, before.0);
    assert!(machines.iter().all(|machine| host.machines().contains(machine)));
    assert_eq!(host.processes("a", "sleep [4]242").await, 0);
    read.go_on(host.client.clone(), "a", |_| false).await;
    read.process();
    assert_eq!(host.shell("late", "echo whole").await, "whole");
    assert_eq!(host.status("sleeper").await.as_deref(), Some("paused"));
    assert_eq!(host.exec("sleeper", "true").await.unwrap_err().code(), Code::FailedPrecondition);

    host.kill_agent();
    host.start_agent().await;
    let resumed = host.resume("sleeper", 0).await.unwrap();
    assert_eq!(resumed.host_ip, before.1.1);
    assert_eq!(identity(&host, "sleeper").await, before.1);
    assert_eq!(host.shell("sleeper", "cat /run/mark").await, "mark");
    // Nor does it matter that it was paused before.
    host.kill_agent();
    host.start_agent().await;
    assert_eq!(host.shell("sleeper", "cat /run/mark").await, "mark");
    host.terminate().await;
}

#[tokio::test]
async fn machine_that_ended_while_no_agent_ran_has_stopped_and_its_disk_can_be_put_back() {
    let mut host = Host::start_with(keep()).await;
    tokio::join!(host.create("minimal", "dead"), host.create("minimal", "off"));
    host.shell("dead", "echo kept > /root/mark").await;
    let keep = host::CheckpointRequest {
        sandbox_id: "dead".into(),
        name: "base".into(),
        ..Default::default()
    };
    host.client.clone().checkpoint(keep).await.unwrap();
    let host_ip = host.listed("dead").await.unwrap().host_ip;
    let dir = host.data().canonicalize().unwrap().join("sandboxes/dead");
    let machines = host.machines();
    let machine = machines.iter().find(|pid| {
        std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|working| working == dir)
    });
    let machine = nix::unistd::Pid::from_raw(machine.unwrap().parse().unwrap());
    host.kill_agent();
    nix::sys::signal::kill(machine, nix::sys::signal::Signal::SIGKILL).unwrap();
    // The other's guest turns itself off later, while nobody listens.
    host.start_agent().await;
    host.start_exec("off", "off", "sleep 1; echo o > /proc/sysrq-trigger").await;
    host.kill_agent();
    let socket = host.data().join("sandboxes/off/qmp.sock");
    wait_for("the guest to be off", PATIENCE, || async {
        qmp_status(&socket).await.filter(|status| status.contains("shutdown"))
    })
    .await
    .unwrap();
    host.start_agent().await;

    for (id, why) in
        [("dead", "its QEMU ended while no agent ran"), ("off", "it turned itself off")]
    {
        assert_eq!(host.status(id).await.as_deref(), Some("stopped"));
        let refused = host.exec(id, "true").await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(refused.message().contains(why), "{refused}");
    }
    assert_eq!(host.machines(), Vec::<String>::new());
    let restore = host::RestoreCheckpointRequest {
        sandbox_id: "dead".into(),
        name: "base".into(),
        ..Default::default()
    };
    let restored = host.client.clone().restore_checkpoint(restore).await.unwrap().into_inner();
    assert_eq!(restored.host_ip, host_ip);
    assert_eq!(host.shell("dead", "cat /root/mark").await, "kept");
    host.kill_agent();
    host.start_agent().await;
    assert_eq!(host.shell("dead", "cat /root/mark").await, "kept");
    assert_eq!(host.status("off").await.as_deref(), Some("stopped"));
    host.terminate().await;
}

/// What QEMU says about its guest to somebody who is no agent.
async fn qmp_status(socket: &std::path::Path) -> Option<String> {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let directory = std::fs::File::open(socket.parent()?).ok()?;
    let short = format!("/proc/self/fd/{}/qmp.sock", std::os::fd::AsRawFd::as_raw_fd(&directory));
    let mut stream = BufReader::new(tokio::net::UnixStream::connect(short).await.ok()?);
    let commands = "{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"query-status\"}\n";
    stream.write_all(commands.as_bytes()).await.ok()?;
    let mut last = String::new();
    for _ in 0..3 {
        last.clear();
        stream.read_line(&mut last).await.ok()?;
    }
    Some(last)
}

#[tokio::test]
async fn guest_that_does_not_answer_the_next_agent_has_stopped() {
    let mut host = Host::start_with(keep()).await;
    host.create("minimal", "a").await;
    host.kill_agent();
    let path = host.folder.join("agent.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    let hasty = config.replace("ready_timeout = '120s'", "ready_timeout = '5s'");
    assert_ne!(hasty, config);
    std::fs::write(&path, hasty).unwrap();
    // The journal's token is not the guest's.
    let path = host.data().join("sandboxes/a/journal.json");
    let mut journal: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    journal["token"] = "00".repeat(16).into();
    std::fs::write(&path, journal.to_string()).unwrap();
    host.start_agent().await;
    assert_eq!(host.status("a").await.as_deref(), Some("stopped"));
    let refused = host.exec("a", "true").await.unwrap_err();
    assert!(refused.message().contains("did not answer the next agent"), "{refused}");
    host.terminate().await;
}

#[tokio::test]
async fn fences_and_sandboxes_paused_for_being_idle_are_told_after_a_restart() {
    let mut host = Host::start_with(keep()).await;
    let fence = |attempt| Some(host::Fence { build_id: "bld_1".into(), attempt });
    let request =
        host::CreateSandboxRequest { fence: fence(2), timeout_sec: 1, ..sandbox("minimal", "a") };
    host.client.clone().create_sandbox(request).await.unwrap();
    // Seen in the journal, for listing it would tell.
    let path = host.data().join("sandboxes/a/journal.json");
    wait_for("the idle sandbox to be paused", PATIENCE, || async {
        std::fs::read_to_string(&path).unwrap().contains("\"untold\": true").then_some(())
    })
    .await
    .unwrap();
    host.kill_agent();
    host.start_agent().await;
    let list = || async {
        let list = host.client.clone().list_sandboxes(host::ListSandboxesRequest::default()).await;
        list.unwrap().into_inner()
    };
    let listed = list().await;
    assert_eq!(listed.auto_paused_sandbox_ids, ["a"]);
    assert_eq!(listed.sandboxes[0].build_id, "bld_1");
    host.kill_agent();
    host.start_agent().await;
    let list = host.client.clone().list_sandboxes(host::ListSandboxesRequest::default()).await;
    assert_eq!(list.unwrap().into_inner().auto_paused_sandbox_ids, Vec::<String>::new());

    let destroy =
        |attempt| host::DestroySandboxRequest { sandbox_id: "a".into(), fence: fence(attempt) };
    let stale = host.client.clone().destroy_sandbox(destroy(1)).await.unwrap_err();
    assert_eq!(stale.code(), Code::FailedPrecondition, "{stale}");
    host.client.clone().destroy_sandbox(destroy(2)).await.unwrap();
    assert_eq!(host.left(), Vec::<String>::new());
    host.terminate().await;
}

#[tokio::test]
async fn agent_that_is_told_to_destroy_leaves_nothing_of_its_own_and_of_what_it_took_over() {
    let mut host = Host::start().await;
    host.create("minimal", "a").await;
    host.kill_agent();
    assert_eq!(host.machines().len(), 1, "machines outlive a killed agent");
    host.start_agent().await;
    host.create("minimal", "b").await;
    assert_eq!(host.machines().len(), 2);
    host.stop().await;
}

#[tokio::test]
async fn machine_of_another_qemu_goes_on_and_is_neither_paused_nor_saved() {
    let mut host = Host::start_with(Options { keep: true, ..Options::default() }).await;
    host.create("minimal", "a").await;
    host.kill_agent();
    let path = host.data().join("sandboxes/a/journal.json");
    let mut journal: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    journal["platform"]["hypervisor"] = "qemu 8.2.0".into();
    std::fs::write(&path, journal.to_string()).unwrap();
    host.start_agent().await;
    let refused =
        [host.pause("a").await.unwrap_err(), host.snapshot("a", "snap").await.unwrap_err()];
    for refused in refused {
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        assert!(refused.message().contains("qemu 8.2.0"), "{refused}");
        assert_eq!(host.shell("a", "echo well").await, "well");
    }
    host.terminate().await;
}

#[tokio::test]
async fn disks_keep_their_driver_and_another_one_is_refused() {
    let settings = "storage = 'copy'".to_owned();
    let mut host = Host::start_with(Options { keep: true, settings, ..Options::default() }).await;
    host.create("minimal", "a").await;
    let path = host.folder.join("agent.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    let set = |name: &str| std::fs::write(&path, config.replace("'copy'", name)).unwrap();
    host.kill_agent();
    set("'reflink'");
    let refused = Command::new(env!("CARGO_BIN_EXE_ovenbird-agent"))
        .arg("--config")
        .arg(&path)
        .output()
        .unwrap();
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&[refused.stdout, refused.stderr].concat()).into_owned();
    assert!(said.contains("there are sandboxes with disks of"), "{said}");
    set("'auto'");
    host.start_agent().await;
    let told = host.client.clone().get_host(host::GetHostRequest {}).await.unwrap().into_inner();
    assert_eq!(told.storage_driver, "copy");
    assert_eq!(host.shell("a", "echo well").await, "well");
    host.terminate().await;
}
