//! The agent is killed at thirty moments of what it does, and another one started: every sandbox answers or is gone,
//! every template is whole or absent, one of both is there when one was to become the other, and at the end the host is what it was before the first agent.
//!
//! The moments are spread over the time that each act took when nothing disturbed it, closer at its beginning, and one of
//! each act is when its journal says that it has begun. All the time another sandbox counts, and loses nothing.

use std::{
    collections::BTreeSet,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use ovenbird_hostagent::v1 as host;
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    pause::{COUNTER, counted_past},
    support::*,
};

/// Another seed is another thirty moments.
const SEED: u64 = 7;
const MOMENTS: u32 = 5;
const MEMORY_MB: i32 = 128;

/// What the agent is in the middle of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Boot,
    Fork,
    Exec,
    Snapshot,
    Flatten,
    Destroy,
}

impl Act {
    const ALL: [Self; 6] =
        [Self::Boot, Self::Fork, Self::Exec, Self::Snapshot, Self::Flatten, Self::Destroy];

    /// The stage that its journal comes to, if it does.
    fn stage(self) -> Option<&'static str> {
        match self {
            Self::Boot | Self::Fork => Some("creating"),
            Self::Exec => None,
            Self::Snapshot | Self::Flatten => Some("saving"),
            Self::Destroy => Some("destroying"),
        }
    }

    fn needs_a_sandbox(self) -> bool {
        !matches!(self, Self::Boot | Self::Fork)
    }

    /// The template that it makes, if it does.
    fn template(self, id: &str) -> Option<String> {
        matches!(self, Self::Snapshot | Self::Flatten).then(|| format!("tpl-{id}"))
    }

    async fn carry_out(self, mut client: Client, id: String) -> Result<(), tonic::Status> {
        let name = self.template(&id).unwrap_or_default();
        match self {
            Self::Boot => client.create_sandbox(small("minimal", &id)).await.map(drop),
            Self::Fork => client.create_sandbox(small("base", &id)).await.map(drop),
            Self::Exec => {
                let request = host::ExecRequest {
                    sandbox_id: id,
                    cmd: "/bin/sh".into(),
                    args: vec!["-c".into(), "sleep 0.3; echo done".into()],
                    ..Default::default()
                };
                client.exec(request).await.map(drop)
            }
            Self::Snapshot => {
                let request = host::CreateSnapshotRequest { sandbox_id: id, name, fence: None };
                client.create_snapshot(request).await.map(drop)
            }
            Self::Flatten => {
                let request = host::FlattenRootfsRequest { sandbox_id: id, name, fence: None };
                client.flatten_rootfs(request).await.map(drop)
            }
            Self::Destroy => {
                let request = host::DestroySandboxRequest { sandbox_id: id, fence: None };
                client.destroy_sandbox(request).await.map(drop)
            }
        }
    }
}

fn small(template: &str, id: &str) -> host::CreateSandboxRequest {
    host::CreateSandboxRequest { memory_mb: MEMORY_MB, ..sandbox(template, id) }
}

async fn fork(host: &Host, id: &str) {
    host.client.clone().create_sandbox(small("base", id)).await.unwrap();
}

/// When the agent is killed.
#[derive(Debug, Clone, Copy)]
enum Moment {
    After(Duration),
    Noted(&'static str),
}

impl Moment {
    /// Returns when it has come, or the act is over.
    async fn wait(self, host: &Host, id: &str, is_over: impl Fn() -> bool) {
        let started = Instant::now();
        let journal = host.data().join("sandboxes").join(id).join("journal.json");
        let has_come = || match self {
            Self::After(delay) => started.elapsed() >= delay,
            Self::Noted(stage) => {
                let noted = format!("\"name\": \"{stage}\"");
                std::fs::read_to_string(&journal).is_ok_and(|text| text.contains(&noted))
            }
        };
        while !has_come() && !is_over() {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }
}

/// Every trace that this agent's work could leave, by a name of its own.
fn traces(host: &Host) -> BTreeSet<String> {
    let data = host.data().canonicalize().unwrap();
    let mut traces: BTreeSet<String> = host.left().into_iter().collect();
    traces.extend(host.prepared());
    let output = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().unwrap();
        assert!(output.status.success(), "{program} {arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let ours = |line: &&str| line.contains(&host.instance) || line.contains(data.to_str().unwrap());
    for (what, text) in [
        ("rules", output("nft", &["list", "tables"])),
        ("mount", std::fs::read_to_string("/proc/self/mounts").unwrap()),
    ] {
        traces.extend(text.lines().filter(ours).map(|line| format!("{what} {line}")));
    }
    for entry in std::fs::read_dir("/sys/block").unwrap().flatten() {
        for name in ["loop/backing_file", "dm/name"] {
            let text = std::fs::read_to_string(entry.path().join(name)).unwrap_or_default();
            traces.extend(text.lines().filter(ours).map(|line| format!("block {line}")));
        }
    }
    // The files of the agent itself, and all templates. What a file is called decides, not what is in it.
    for path in files(&data) {
        traces.insert(format!("file {}", path.strip_prefix(&data).unwrap().display()));
    }
    let groups = files(Path::new("/sys/fs/cgroup"));
    traces.extend(groups.iter().filter_map(|path| path.to_str()).filter(ours).map(str::to_owned));
    traces
}

fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        found.push(entry.path());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(files(&entry.path()));
        }
    }
    found
}

/// What every restart has to leave: as many of everything as there are sandboxes, and each of them answers. One whose
/// guest had been turned off for its disk has stopped.
async fn check(host: &Host) -> BTreeSet<String> {
    let list =
        host.client.clone().list_sandboxes(host::ListSandboxesRequest::default()).await.unwrap();
    let (mut ids, mut machines) = (BTreeSet::new(), 0);
    for sandbox in list.into_inner().sandboxes {
        let id = sandbox.sandbox_id;
        if sandbox.status == "stopped" && id.starts_with("Flatten") {
            ids.insert(id);
            continue;
        }
        machines += 1;
        assert_eq!(sandbox.status, "running", "{id}\n{}", host.log_text());
        assert_eq!(host.shell(&id, "echo alive").await, "alive", "{id}");
        ids.insert(id);
    }
    let names = |dir: &Path, prefix: String| -> BTreeSet<String> {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with(&prefix)).collect()
    };
    let namespaces = names(Path::new("/run/netns"), format!("ovb-{}-", host.instance));
    let links = names(Path::new("/sys/class/net"), format!("v-{}-", host.instance));
    assert_eq!(names(&host.data().join("sandboxes"), String::new()), ids);
    assert_eq!(
        (host.machines().len(), namespaces.len(), links.len()),
        (machines, ids.len(), ids.len())
    );
    for kind in ["images", "snapshots"] {
        assert_eq!(names(&host.data().join(kind), ".".into()), BTreeSet::new());
    }
    ids
}

async fn templates(host: &Host) -> BTreeSet<String> {
    let facts = host.client.clone().get_host(host::GetHostRequest {}).await.unwrap().into_inner();
    facts.templates.into_iter().map(|template| template.name).collect()
}

async fn delete(host: &Host, name: &str) {
    let request = host::DeleteSnapshotRequest { name: name.into(), fence: None };
    host.client.clone().delete_snapshot(request).await.unwrap();
}

/// How long each act takes when nothing disturbs it. Leaves the template `base`.
async fn lengths(host: &Host) -> Vec<(Act, Duration)> {
    let timed = async |act: Act, id: &str| {
        let started = Instant::now();
        act.carry_out(host.client.clone(), id.to_owned()).await.unwrap();
        (act, started.elapsed())
    };
    let boot = timed(Act::Boot, "origin").await;
    host.snapshot("origin", "base").await.unwrap();
    let fork = timed(Act::Fork, "one").await;
    let exec = timed(Act::Exec, "one").await;
    let snapshot = timed(Act::Snapshot, "one").await;
    timed(Act::Fork, "two").await;
    let flatten = timed(Act::Flatten, "two").await;
    timed(Act::Fork, "three").await;
    let destroy = timed(Act::Destroy, "three").await;
    for name in ["tpl-one", "tpl-two"] {
        delete(host, name).await;
    }
    vec![boot, fork, exec, snapshot, flatten, destroy]
}

/// One moment: the act begins, the agent is killed, and another one finds what is there.
async fn crash(host: &mut Host, act: Act, id: &str, moment: Moment) -> String {
    if act.needs_a_sandbox() {
        fork(host, id).await;
    }
    let acting = tokio::spawn(act.carry_out(host.client.clone(), id.to_owned()));
    moment.wait(host, id, || acting.is_finished()).await;
    host.kill_agent();
    let answered = acting.await.unwrap().is_ok();
    host.start_agent().await;

    let found = host.status(id).await;
    if found.as_deref() == Some("paused") {
        assert_eq!(act, Act::Snapshot, "{}", host.log_text());
        host.resume(id, 0).await.unwrap();
    }
    let ids = check(host).await;
    assert!(ids.contains("bystander"));
    let is_there = ids.contains(id);
    let template = act.template(id);
    let is_published = match &template {
        Some(name) => templates(host).await.contains(name),
        None => false,
    };
    match act {
        Act::Boot | Act::Fork => assert!(is_there || !answered, "it was said to be there"),
        Act::Exec => assert!(is_there),
        Act::Destroy => assert!(!is_there || !answered, "it was said to be gone"),
        Act::Snapshot | Act::Flatten => {
            assert!(is_published || !answered, "its template was said to be there");
            assert!(!(is_published && is_there), "its files are the template's");
            assert!(is_published || is_there, "{}", host.log_text());
        }
    }
    if let Some(name) = template.filter(|_| is_published) {
        let made = small(&name, "of-template");
        host.client.clone().create_sandbox(made).await.unwrap();
        assert_eq!(host.shell("of-template", "echo whole").await, "whole");
        host.destroy("of-template").await;
        delete(host, &name).await;
    }
    if is_there {
        host.destroy(id).await;
    }
    let word = |is: bool, word| if is { word } else { "" };
    format!(
        "{}{}{}",
        word(answered, "answered, "),
        found.as_deref().unwrap_or("gone"),
        word(is_published, ", its template is whole")
    )
}

/// A random share of an act that is in the given part of it. The parts at the beginning are shorter, for there is more
/// to be undone, or to go on.
fn share(part: u32, random: &mut StdRng) -> f64 {
    let even = (f64::from(part) + random.random::<f64>()) / f64::from(MOMENTS);
    even * even
}

#[tokio::test]
async fn agent_killed_while_it_pauses_and_resumes_loses_no_process() {
    let mut host = Host::start_with(Options { keep: true, ..Options::default() }).await;
    host.client.clone().create_sandbox(small("minimal", "origin")).await.unwrap();
    host.snapshot("origin", "base").await.unwrap();
    let own = async { host.client.clone().create_sandbox(small("minimal", "own")).await.unwrap() };
    tokio::join!(own, fork(&host, "fork"));
    let mut random = StdRng::seed_from_u64(SEED);
    for id in ["own", "fork"] {
        // How long it takes; a fork's memory is its own from then on, so it is another one that is disturbed.
        let started = Instant::now();
        host.pause(id).await.unwrap();
        let pausing = started.elapsed();
        let started = Instant::now();
        host.resume(id, 0).await.unwrap();
        let resuming = started.elapsed();
        if id == "fork" {
            host.destroy(id).await;
            fork(&host, id).await;
        }
        host.start_exec(id, "counter", COUNTER).await;
        let past = counted_past(&host, id, 5).await;
        let boot = "cat /proc/sys/kernel/random/boot_id; cat /root/pid";
        let before = host.shell(id, boot).await;
        for (act, length) in [("pause", pausing), ("resume", resuming)] {
            for part in 0..MOMENTS {
                if act == "pause" {
                    host.resume(id, 0).await.unwrap();
                } else {
                    host.pause(id).await.unwrap();
                }
                // A new agent's first is slower than the one that was measured.
                let delay = length.mul_f64(1.3 * share(part, &mut random));
                let mut client = host.client.clone();
                let acting = tokio::spawn(async move {
                    let sandbox_id = id.to_owned();
                    if act == "pause" {
                        let request = host::PauseSandboxRequest { sandbox_id };
                        client.pause_sandbox(request).await.map(drop)
                    } else {
                        let request = host::ResumeSandboxRequest { sandbox_id, timeout_sec: 0 };
                        client.resume_sandbox(request).await.map(drop)
                    }
                });
                Moment::After(delay).wait(&host, id, || acting.is_finished()).await;
                host.kill_agent();
                let answered = acting.await.unwrap().is_ok();
                host.start_agent().await;
                let status = host.status(id).await.unwrap();
                println!("{act} {id} of {length:.3?}, {delay:.3?}: {answered}, {status}");
                assert!(["running", "paused"].contains(&&*status), "{}", host.log_text());
                if answered {
                    assert_eq!(status == "paused", act == "pause", "it was said to be so");
                }
            }
        }
        host.resume(id, 0).await.unwrap();
        assert_eq!(host.shell(id, boot).await, before);
        counted_past(&host, id, past + 5).await;
    }
    host.terminate().await;
}

#[tokio::test]
async fn agent_killed_at_thirty_moments_loses_and_leaves_nothing() {
    let mut host = Host::start_with(Options { keep: true, ..Options::default() }).await;
    host.stop_agent().await;
    // The kernel and the fences stay; of everything else the host has nothing yet.
    let before = traces(&host);
    host.start_agent().await;
    let lengths = lengths(&host).await;
    fork(&host, "bystander").await;
    host.start_exec("bystander", "counter", COUNTER).await;
    let boot = host.shell("bystander", "cat /proc/sys/kernel/random/boot_id; cat /root/pid").await;

    let mut random = StdRng::seed_from_u64(SEED);
    let mut number = 0;
    for act in Act::ALL {
        let length = lengths.iter().find(|(other, _)| *other == act).unwrap().1;
        for part in 0..MOMENTS {
            number += 1;
            let share = share(part, &mut random);
            let moment = match act.stage() {
                Some(stage) if part == MOMENTS / 2 => Moment::Noted(stage),
                _ => Moment::After(length.mul_f64(share)),
            };
            let id = format!("{act:?}-{part}");
            let started = Instant::now();
            let outcome = crash(&mut host, act, &id, moment).await;
            println!(
                "{number:2} {act:?} of {length:.3?}, {moment:.3?}: {outcome} ({:.1?})",
                started.elapsed()
            );
        }
    }
    assert_eq!(number, 30);

    let same = host.shell("bystander", "cat /proc/sys/kernel/random/boot_id; cat /root/pid").await;
    assert_eq!(same, boot);
    counted_past(&host, "bystander", 100).await;
    host.destroy("bystander").await;
    assert_eq!(check(&host).await, BTreeSet::new());
    assert_eq!(templates(&host).await, BTreeSet::from(["base".into(), "minimal".into()]));
    delete(&host, "base").await;
    host.client.clone().terminate(host::TerminateRequest {}).await.unwrap();
    host.wait_for_end().await;
    assert_eq!(traces(&host), before, "{}", host.log_text());
}
