//! The programs of the README that follow a log over NATS, as they stand there: with a key of scope `read`, from the
//! middle of a running build on, one of them over a WebSocket.

use std::{path::Path, process::Stdio};

use ovenbird_contract::{id::BuildId, nats::Names};
use ovenbird_dev::{platform::record::Record, setup::tools::Tools, tree};
use ovenbird_testkit::wait_until;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{ChildStdout, Command},
};

use super::LONGEST;
use crate::platform::Stage;

/// A line each quarter of a second: far more slowly than a program reads what is stored, so that it must hear most of
/// them live, and waits for ever if it does not.
const RECIPE: &str = "RUN i=1; while true; do echo line $i; i=$((i+1)); sleep 0.25; done";
/// What is stored before the programs come, at least.
const BEFORE: u64 = 12;
/// What each of them must have told before the build is ended, beyond what was stored when it was started.
const LIVE: u64 = 12;

/// A program that runs.
struct Program {
    name: &'static str,
    child: tokio::process::Child,
    lines: Lines<BufReader<ChildStdout>>,
    told: Vec<String>,
}

pub(super) async fn programs_join_a_running_build_and_miss_nothing(
    stage: &mut Stage,
    tools: &Tools,
    scratch: &Path,
) -> String {
    let record = stage.platform.record();
    let key = read_key(&record.api, &record.admin_key).await;
    let build = json!({"name": "readme", "memory_mb": 256, "recipe": [RECIPE]});
    let build = stage.api.build_create(&build).await.unwrap();
    let id = build["id"].as_str().unwrap();
    let stored = at_least(stage, id, BEFORE).await;

    let readme = std::fs::read_to_string(tree::root().join("README.md")).unwrap();
    let folder = scratch.join("readme");
    std::fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink(tools.node_modules(), folder.join("node_modules")).unwrap();
    let (python, javascript) = (folder.join("watch.py"), folder.join("watch.mjs"));
    std::fs::write(&python, block(&readme, "python", "nats.connect(")).unwrap();
    std::fs::write(&javascript, block(&readme, "js", "wsconnect(")).unwrap();
    let mut python_program = tools.python();
    python_program.arg("-u").arg(&python);
    let programs = [
        ("watch.py", python_program, &record.nats),
        ("watch.mjs", tools.script(&javascript), &record.nats_websocket),
    ];
    let mut running: Vec<Program> = programs
        .into_iter()
        .map(|(name, command, nats)| Program::start(name, command, &[&record.api, &key, nats, id]))
        .collect();
    for program in &mut running {
        program.tells(stored + LIVE).await;
    }
    stage.api.build_cancel(id, "seen enough").await.unwrap();
    for program in running {
        let (name, told) = (program.name, program.rest().await);
        let log = stage.api.logs(id, 1, 10_000).await.unwrap();
        let records = log["records"].as_array().unwrap();
        let end = records.last().unwrap();
        assert_eq!(end["end"]["status"], "cancelled", "{end}");
        let last = end["seq"].as_u64().unwrap();
        let (ends, lines) = told.split_last().unwrap();
        assert!(ends.contains("cancelled"), "{name}: {ends}");
        let seqs: Vec<u64> = lines.iter().map(|line| seq(line)).collect();
        assert_eq!(seqs, (1..last).collect::<Vec<_>>(), "{name}: a gap or a duplicate");
        println!("{name}: joined behind {stored} records, and told all of {last}");
    }
    id.to_owned()
}

/// Takes some records out of the middle of a log that is over, from both places where they are.
pub(super) async fn some_is_lost(record: &Record, id: &str) {
    let build: BuildId = id.parse().unwrap();
    let row = format!("'{}'", build.uuid());
    let stored = format!(
        "SELECT count(*) FROM build_log_chunks c JOIN template_builds b ON b.id = c.build_id
         WHERE b.id = {row} AND b.log_end_written AND c.last_seq = b.log_seq"
    );
    wait_until("the whole log to be stored", LONGEST, || async {
        sql(&record.database, &stored).await == "1"
    })
    .await;
    let names = Names::default();
    let stream = async_nats::jetstream::new(record.nats_client().await.unwrap());
    let stream = stream.get_stream(names.logs_stream().name).await.unwrap();
    stream.purge().filter(names.logs(&build)).await.unwrap();
    let middle = format!(
        "WITH gone AS (DELETE FROM build_log_chunks WHERE build_id = {row}
           AND first_seq = (SELECT first_seq FROM build_log_chunks WHERE build_id = {row}
                            ORDER BY first_seq OFFSET 1 LIMIT 1)
           AND last_seq < (SELECT max(last_seq) FROM build_log_chunks WHERE build_id = {row})
           RETURNING 1)
         SELECT count(*) FROM gone"
    );
    assert_eq!(sql(&record.database, &middle).await, "1", "the log is in three pieces at least");
}

async fn sql(database: &str, statement: &str) -> String {
    let url = reqwest::Url::parse(database).unwrap();
    let mut psql = Command::new("psql");
    psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement])
        .env("PGHOST", url.host_str().unwrap())
        .env("PGPORT", url.port().unwrap().to_string())
        .env("PGUSER", url.username())
        .env("PGPASSWORD", url.password().unwrap_or_default())
        .env("PGDATABASE", url.path().trim_start_matches('/'));
    let output = psql.stdin(Stdio::null()).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Program {
    fn start(name: &'static str, mut command: Command, arguments: &[&str]) -> Self {
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { name, child, lines, told: Vec::new() }
    }

    async fn next(&mut self) -> Option<()> {
        let line = tokio::time::timeout(LONGEST, self.lines.next_line()).await.expect(self.name);
        self.told.push(line.unwrap()?);
        Some(())
    }

    /// Waits until it has told the record of this number.
    async fn tells(&mut self, number: u64) {
        while self.told.last().is_none_or(|line| seq(line) < number) {
            self.next().await.expect(self.name);
        }
    }

    /// Everything that it told, once it has ended.
    async fn rest(mut self) -> Vec<String> {
        while self.next().await.is_some() {}
        let ended = tokio::time::timeout(LONGEST, self.child.wait()).await.expect(self.name);
        assert!(ended.unwrap().success(), "{}", self.name);
        self.told
    }
}

/// The number that a line begins with.
fn seq(line: &str) -> u64 {
    line.split(' ').next().and_then(|number| number.parse().ok()).expect(line)
}

/// The block of this language that contains `mark`.
fn block<'r>(readme: &'r str, language: &str, mark: &str) -> &'r str {
    let fence = format!("```{language}\n");
    let blocks = readme.split(&fence).skip(1);
    let mut blocks = blocks.filter_map(|rest| rest.split_once("```").map(|(block, _)| block));
    blocks.find(|block| block.contains(mark)).expect(mark)
}

/// Waits until so many records are stored; how many there are then.
async fn at_least(stage: &Stage, id: &str, count: u64) -> u64 {
    let waiting = async {
        let mut records = std::pin::pin!(stage.api.logs_stream(id, 0).await.unwrap());
        loop {
            let record: Value =
                futures::StreamExt::next(&mut records).await.expect("it goes on").unwrap();
            let seq = record["seq"].as_u64().unwrap();
            if seq >= count {
                return seq;
            }
        }
    };
    tokio::time::timeout(LONGEST, waiting).await.expect("the build begins")
}

async fn read_key(api: &str, admin: &str) -> String {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.post(format!("{api}/v1/admin/keys")).bearer_auth(admin);
    let made = request.json(&json!({"name": "reader", "scope": "read"})).send().await.unwrap();
    let made: Value = made.json().await.unwrap();
    made["key"].as_str().unwrap().to_owned()
}
