//! The SDKs against one real platform, each by a test program of its own, packaged as people get them; and on the same
//! platform the programs of the README.
//!
//! The programs stand with the SDKs (`openapi/sdk/*/tests`); the Rust one runs in this process.

mod cut;
mod readme;
mod rust;

use std::{path::Path, process::Stdio, time::Duration};

use ovenbird_dev::{cache::Cache, openapi, setup::tools::Tools, tree};
use tokio::process::Command;

use self::cut::CutLine;
use crate::platform::Stage;

/// The longest that one program may take.
const LONGEST: Duration = Duration::from_secs(300);
/// Connections through the line that breaks carry this many bytes of answers; the log is several times as long.
const CARRIED: u64 = 64 * 1024;

/// Where everything is.
pub(crate) struct Places {
    url: String,
    cut_url: String,
    nats: String,
    key: String,
    /// A build that is over, and whose log has lost some records.
    lost: String,
}

#[tokio::test]
async fn each_sdk_submits_follows_live_and_gets_the_template() {
    let mut stage = Stage::set().await;
    let record = stage.platform.record();
    let cut = CutLine::start(&record.api, CARRIED).await;
    let scratch = tempfile::tempdir_in(tree::scratch()).unwrap();
    let tools = Tools::locate(&Cache::open().unwrap()).unwrap();

    let lost =
        readme::programs_join_a_running_build_and_miss_nothing(&mut stage, &tools, scratch.path())
            .await;
    readme::some_is_lost(&record, &lost).await;
    let places = Places {
        url: record.api,
        cut_url: cut.url(),
        nats: record.nats,
        key: record.admin_key,
        lost,
    };

    python(&tools, scratch.path(), &places).await;
    assert_broken("Python", &cut);
    typescript(&tools, scratch.path(), &places).await;
    assert_broken("TypeScript", &cut);
    tokio::time::timeout(LONGEST, rust::end_to_end(&places)).await.unwrap();
    assert_broken("Rust", &cut);
    stage.strike().await;
}

/// Else the program would not have shown that it goes on after a broken connection.
fn assert_broken(language: &str, cut: &CutLine) {
    let broken = cut.take_broken();
    assert!(broken >= 3, "{language}: the line broke only {broken} times");
    println!("{language}: followed through {broken} broken connections");
}

/// Installs the wheel into a folder of its own, and runs the program with nothing else of the SDK in sight.
async fn python(tools: &Tools, scratch: &Path, places: &Places) {
    let sdk = openapi::folder().join("sdk/python");
    let (wheels, site) = (scratch.join("wheels"), scratch.join("site"));
    let mut build = tools.python();
    build.args(["-m", "hatchling", "build", "--target", "wheel", "--directory"]).arg(&wheels);
    run("the wheel", build.current_dir(&sdk)).await;
    let wheel = std::fs::read_dir(&wheels).unwrap().next().unwrap().unwrap().path();
    let mut install = tools.python();
    install.args(["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]);
    run("pip", install.arg(&site).arg(wheel)).await;
    let mut program = tools.python();
    program.arg(sdk.join("tests/end_to_end.py")).env("PYTHONPATH", &site);
    run("the Python program", places.tell(&mut program).current_dir(scratch)).await;
}

/// Compiles the package, then the program against what was compiled.
async fn typescript(tools: &Tools, scratch: &Path, places: &Places) {
    let folder = scratch.join("typescript");
    let mut copy = Command::new("cp");
    run("cp", copy.arg("-r").arg(openapi::folder().join("sdk/typescript")).arg(&folder)).await;
    std::os::unix::fs::symlink(tools.node_modules(), folder.join("node_modules")).unwrap();
    for project in [".", "tests"] {
        let mut compile = tools.node("typescript/bin/tsc");
        run("tsc", compile.args(["--project", project]).current_dir(&folder)).await;
    }
    let mut program = tools.script(&folder.join("dist-tests/end_to_end.js"));
    run("the TypeScript program", places.tell(&mut program).current_dir(&folder)).await;
}

impl Places {
    fn tell<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command
            .env("OVENBIRD_URL", &self.url)
            .env("OVENBIRD_CUT_URL", &self.cut_url)
            .env("OVENBIRD_NATS", &self.nats)
            .env("OVENBIRD_KEY", &self.key)
            .env("OVENBIRD_LOST", &self.lost)
    }
}

async fn run(what: &str, command: &mut Command) {
    let running = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(LONGEST, running).await.expect(what).expect(what);
    let (said, cried) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what} ended with {}:\n{said}{cried}", output.status);
    print!("{said}");
}
