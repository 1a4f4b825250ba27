//! What bad input gets: the right code, a word that says what to do, and nothing changed. Over all calls of the
//! descriptor, so that a new call has to find its place here.

use ovenbird_hostagent::v1 as host;
use prost_reflect::Value;
use tonic::{Code, Status};

use crate::{calls::Call, support::*};

/// Calls of a sandbox that do something else than to refuse when it is paused.
const FINE_WHEN_PAUSED: [&str; 5] =
    ["PauseSandbox", "ResumeSandbox", "DestroySandbox", "GetSandboxMetrics", "FlushSandboxMetrics"];
/// And when its guest has turned itself off.
const FINE_WHEN_STOPPED: [&str; 4] =
    ["DestroySandbox", "RestoreCheckpoint", "GetSandboxMetrics", "FlushSandboxMetrics"];

/// Neither the id of a sandbox nor the name of a template or checkpoint.
fn bad_names() -> Vec<String> {
    let bad = [
        "",
        ".",
        "..",
        "../a",
        "../../images/minimal",
        "/etc",
        "/",
        "a/b",
        "a/../b",
        "a\\b/..",
        "a\0",
        "\0",
        ".a",
        "-a",
        "a b",
        "a\n",
        "ä",
        "%2e%2e",
    ];
    let long = ["x".repeat(129), "x".repeat(100_000)];
    bad.into_iter().map(str::to_owned).chain(long).collect()
}

/// Those about a sandbox that has to be there.
fn of_a_sandbox() -> Vec<Call> {
    let of_one = |call: &Call| call.has("sandbox_id") && call.name() != "CreateSandbox";
    Call::all().into_iter().filter(of_one).collect()
}

/// Everything that a refused call must leave as it is.
#[derive(Debug, PartialEq)]
struct Seen {
    sandboxes: Vec<host::SandboxInfo>,
    templates: Vec<host::HostTemplate>,
    allocated: (i32, i32),
    of_sandboxes: Vec<String>,
    files: Vec<String>,
}

impl Seen {
    async fn of(host: &Host) -> Self {
        let mut client = host.client.clone();
        let list = client.list_sandboxes(host::ListSandboxesRequest::default()).await.unwrap();
        let mut sandboxes = list.into_inner().sandboxes;
        for sandbox in &mut sandboxes {
            // A call that reaches the sandbox is a use of it, also when it is refused.
            sandbox.last_active_at_unix = 0;
        }
        let mut facts = client.get_host(host::GetHostRequest {}).await.unwrap().into_inner();
        for template in &mut facts.templates {
            // A file system that writes it down late may take a block more for it.
            template.size_bytes = 0;
        }
        let mut of_sandboxes = host.left();
        of_sandboxes.sort();
        Self {
            sandboxes,
            templates: facts.templates,
            allocated: (facts.allocated_vcpus, facts.allocated_memory_mb),
            of_sandboxes,
            files: files(host),
        }
    }
}

/// What lies in the agent's directory, and above it where a name with dots would put something.
fn files(host: &Host) -> Vec<String> {
    let output = std::process::Command::new("find").arg(host.folder.join("")).output().unwrap();
    let mut files: Vec<_> =
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    files.sort();
    files
}

/// Makes a call that has to be refused.
async fn refused(host: &Host, call: &Call, code: Code, word: &str) -> Status {
    let result = call.made(host.channel()).await;
    let status = result.err().unwrap_or_else(|| panic!("{} is not refused", call.name()));
    assert_eq!(status.code(), code, "{}: {status}", call.name());
    assert!(status.message().contains(word), "{}: not {word:?} but {status}", call.name());
    status
}

#[tokio::test]
async fn bad_ids_names_and_numbers_are_refused_by_every_call_and_change_nothing() {
    let host = Host::start().await;
    host.create("minimal", "a").await;
    host.start_exec("a", "held", "exec sleep 1000").await;
    let before = Seen::of(&host).await;
    let mut tried = 0;
    for call in Call::all() {
        for bad in bad_names() {
            for field in ["sandbox_id", "template", "name"] {
                let is_made_up = bad.is_empty() && field == "sandbox_id";
                if !call.has(field) || call.name() == "CreateSandbox" && is_made_up {
                    continue;
                }
                let call = call.with_text(field, &bad);
                refused(&host, &call, Code::InvalidArgument, "1 to 128").await;
                tried += 1;
            }
        }
        for (field, value) in call.signed() {
            for number in [-1, i32::MIN] {
                let call = call.with(&field, value(number));
                refused(&host, &call, Code::InvalidArgument, &field).await;
                tried += 1;
            }
        }
    }
    assert!(tried > 300, "{tried}");
    let create = Call::named("CreateSandbox").with_text("sandbox_id", "new");
    for field in ["vcpus", "memory_mb", "disk_mb"] {
        let call = create.with(field, Value::I32(i32::MAX));
        let status = refused(&host, &call, Code::InvalidArgument, field).await;
        assert!(status.message().contains("it must be from"), "{status}");
    }
    let call = create.with("bandwidth_kbit", Value::I64(i64::MAX));
    refused(&host, &call, Code::InvalidArgument, "from 64 to 10000000").await;
    for bad in ["", &"x".repeat(129)] {
        for call in Call::all().into_iter().filter(|call| call.has("build_id")) {
            let call = call.with_text("build_id", bad).with("attempt", Value::U32(1));
            refused(&host, &call, Code::InvalidArgument, "fence.build_id").await;
        }
    }
    assert_eq!(Seen::of(&host).await, before);
    assert_eq!(host.shell("a", "echo fine").await, "fine");
    host.stop().await;
}

#[tokio::test]
async fn unknown_and_taken_are_refused_by_every_call_and_change_nothing() {
    let host = Host::start().await;
    host.create("minimal", "a").await;
    // Templates that are none, and one that cannot be read.
    for dir in ["images/empty", "snapshots/half", "snapshots/broken"] {
        std::fs::create_dir(host.data().join(dir)).unwrap();
    }
    std::fs::write(host.data().join("snapshots/broken/manifest.json"), "{\"version\":").unwrap();
    let before = Seen::of(&host).await;
    for call in of_a_sandbox() {
        let call = call.with_text("sandbox_id", "nobody");
        refused(&host, &call, Code::NotFound, "no sandbox nobody").await;
    }
    let create = Call::named("CreateSandbox").with_text("sandbox_id", "new");
    for (template, code, word) in [
        ("unknown", Code::NotFound, "no template unknown"),
        ("empty", Code::NotFound, "no template empty"),
        ("half", Code::NotFound, "no template half"),
        ("broken", Code::FailedPrecondition, "build it again"),
    ] {
        refused(&host, &create.with_text("template", template), code, word).await;
    }
    refused(&host, &Call::named("CreateSandbox"), Code::AlreadyExists, "a exists already").await;
    refused(&host, &Call::named("DeleteSnapshot"), Code::NotFound, "no template fresh").await;
    refused(&host, &Call::named("RestoreCheckpoint"), Code::NotFound, "no checkpoint").await;
    for call in ["CreateSnapshot", "FlattenRootfs"] {
        for taken in ["minimal", "empty", "half", "broken"] {
            let call = Call::named(call).with_text("name", taken);
            refused(&host, &call, Code::AlreadyExists, "choose another name").await;
        }
    }
    assert_eq!(Seen::of(&host).await, before);
    assert_eq!(host.shell("a", "echo fine").await, "fine");
    // What cannot be used can be deleted.
    for name in ["empty", "half", "broken"] {
        let delete = Call::named("DeleteSnapshot").with_text("name", name);
        delete.made(host.channel()).await.unwrap();
        refused(&host, &delete, Code::NotFound, name).await;
    }
    host.stop().await;
}

#[tokio::test]
async fn paused_and_stopped_sandboxes_refuse_every_call_that_needs_their_guest() {
    let host = Host::start().await;
    host.create("minimal", "a").await;
    Call::named("Checkpoint").made(host.channel()).await.unwrap();
    host.pause("a").await.unwrap();
    let before = Seen::of(&host).await;
    for call in of_a_sandbox() {
        if !FINE_WHEN_PAUSED.contains(&call.name()) {
            refused(&host, &call, Code::FailedPrecondition, "a is paused").await;
            refused(&host, &call, Code::FailedPrecondition, "resume it first").await;
        }
    }
    assert_eq!(Seen::of(&host).await, before);
    for name in ["PauseSandbox", "ResumeSandbox", "ResumeSandbox"] {
        Call::named(name).made(host.channel()).await.unwrap();
    }
    let _ = host.exec("a", "echo o > /proc/sysrq-trigger").await;
    host.wait_for_status("a", "stopped").await;
    let before = Seen::of(&host).await;
    for call in of_a_sandbox() {
        if !FINE_WHEN_STOPPED.contains(&call.name()) {
            refused(&host, &call, Code::FailedPrecondition, "turned itself off").await;
        }
    }
    assert_eq!(Seen::of(&host).await, before);
    Call::named("RestoreCheckpoint").made(host.channel()).await.unwrap();
    assert_eq!(host.shell("a", "echo fine").await, "fine");
    Call::named("DestroySandbox").made(host.channel()).await.unwrap();
    assert_eq!(host.left(), Vec::<String>::new());
    host.stop().await;
}

#[tokio::test]
async fn name_that_is_being_written_is_one_sandboxs_and_a_sandbox_becomes_one_template() {
    let host = Host::start().await;
    tokio::join!(host.create("minimal", "a"), host.create("minimal", "b"));
    // One name, two sandboxes: the one that loses goes on.
    let (one, two) = tokio::join!(host.snapshot("a", "same"), host.flatten("b", "same"));
    let (loser, status) = match (one, two) {
        (Ok(_), Err(status)) => ("b", status),
        (Err(status), Ok(_)) => ("a", status),
        both => panic!("{both:?}"),
    };
    assert_eq!(status.code(), Code::AlreadyExists, "{status}");
    assert!(status.message().contains("choose another name"), "{status}");
    assert_eq!(templates(&host).await, ["minimal", "same"]);
    assert_eq!(host.shell(loser, "echo fine").await, "fine");

    // One sandbox, two names, and whoever wants to use or delete what is not there yet.
    let early = Call::named("CreateSandbox").with_text("template", "first");
    let early = early.with_text("sandbox_id", "early");
    let delete = Call::named("DeleteSnapshot").with_text("name", "second");
    let (one, two, early, delete) = tokio::join!(
        host.snapshot(loser, "first"),
        host.snapshot(loser, "second"),
        early.made(host.channel()),
        delete.made(host.channel()),
    );
    let (kept, status) = match (one, two) {
        (Ok(_), Err(status)) => ("first", status),
        (Err(status), Ok(_)) => ("second", status),
        both => panic!("{both:?}"),
    };
    // On a busy machine the second one may come when the sandbox is gone.
    assert!(matches!(status.code(), Code::FailedPrecondition | Code::NotFound), "{status}");
    let mut expected = vec!["minimal", "same"];
    match delete {
        Ok(()) => assert_eq!(kept, "second"),
        Err(status) => {
            assert_eq!(status.code(), Code::NotFound, "{status}");
            expected.insert(0, kept);
            expected.sort_unstable();
        }
    }
    assert_eq!(templates(&host).await, expected);
    match early {
        Ok(()) => host.destroy("early").await,
        Err(status) => assert_eq!(status.code(), Code::NotFound, "{status}"),
    }
    assert_eq!(host.left(), Vec::<String>::new());
    host.stop().await;
}

async fn templates(host: &Host) -> Vec<String> {
    let facts = host.client.clone().get_host(host::GetHostRequest {}).await.unwrap().into_inner();
    facts.templates.into_iter().map(|template| template.name).collect()
}

#[tokio::test]
async fn sandbox_that_is_destroyed_while_it_becomes_a_template_is_gone_with_a_whole_template() {
    let host = Host::start().await;
    host.create("minimal", "a").await;
    let (saved, ()) = tokio::join!(host.snapshot("a", "snap"), async {
        host.runs_no_more("a").await;
        let destroyed = Call::named("DestroySandbox").made(host.channel()).await;
        // It may have gone between the two calls.
        if let Err(status) = destroyed {
            assert_eq!(status.code(), Code::NotFound, "{status}");
        }
    });
    saved.unwrap();
    assert_eq!(host.left(), Vec::<String>::new());
    host.create("snap", "b").await;
    assert_eq!(host.shell("b", "echo fine").await, "fine");
    host.stop().await;
}
