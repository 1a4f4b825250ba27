//! A build goes on where it is when its runner dies or is sent away, and begins again when its host is gone.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures::StreamExt;
use nix::sys::signal::Signal;
use ovenbird_dev::{
    host::Host,
    platform::{Options, member::Kind},
};
use ovenbird_testkit::{Stalls, wait_for};
use serde_json::{Value, json};

use crate::platform::Stage;

/// A build, this machine's load considered.
const LONG: Duration = Duration::from_secs(240);

/// Says a line a second and leaves a mark for each time that it was run.
fn counting(lines: u32) -> String {
    format!(
        "RUN echo run >> /root/runs; i=0; \
         while [ $i -lt {lines} ]; do i=$((i+1)); echo \"line $i\"; sleep 1; done"
    )
}

/// A build whose log is read as it grows.
pub(crate) struct Watched {
    pub(crate) id: String,
    pub(crate) records: Vec<Value>,
}

impl Watched {
    pub(crate) async fn submit(stage: &Stage, request: &Value) -> Self {
        let build = stage.api.build_create(request).await.unwrap();
        Self { id: build["id"].as_str().unwrap().to_owned(), records: Vec::new() }
    }

    /// Reads on until a record's text contains `text`; answers when that record was written.
    pub(crate) async fn until(&mut self, stage: &Stage, text: &str) -> DateTime<Utc> {
        let found =
            |record: &Value| record["text"].as_str().is_some_and(|logged| logged.contains(text));
        self.read_until(stage, text, found).await;
        self.records.last().unwrap()["ts"].as_str().unwrap().parse().unwrap()
    }

    /// Reads to the end; answers the build.
    pub(crate) async fn end(&mut self, stage: &Stage) -> Value {
        self.read_until(stage, "the end", |record| record.get("end").is_some()).await;
        stage.api.build_get(&self.id).await.unwrap()
    }

    async fn read_until(&mut self, stage: &Stage, what: &str, found: impl Fn(&Value) -> bool) {
        let after = self.records.len() as u64;
        let reading = async {
            let mut stream = std::pin::pin!(stage.api.logs_stream(&self.id, after).await.unwrap());
            while let Some(record) = stream.next().await {
                self.records.push(record.unwrap());
                if found(self.records.last().unwrap()) {
                    return;
                }
            }
            panic!("the log ended without {what}: {:#?}", self.records);
        };
        if tokio::time::timeout(LONG, reading).await.is_err() {
            panic!("no {what} in time");
        }
    }

    pub(crate) fn texts(&self, stream: &str) -> Vec<&str> {
        let of = |record: &&Value| record["stream"] == stream;
        self.records.iter().filter(of).map(|record| record["text"].as_str().unwrap()).collect()
    }

    /// Every record has its number, every line of `counting` is there once, in order.
    fn assert_whole(&self, lines: u32) {
        let seqs: Vec<u64> =
            self.records.iter().map(|record| record["seq"].as_u64().unwrap()).collect();
        assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
        let logged: Vec<&str> =
            self.texts("stdout").into_iter().filter(|text| text.starts_with("line ")).collect();
        let expected: Vec<String> = (1..=lines).map(|line| format!("line {line}")).collect();
        assert_eq!(logged, expected);
    }
}

/// The runner that has the build, by its log.
pub(crate) async fn runner_of(stage: &Stage, build: &str) -> String {
    let logs = stage.platform.logs();
    wait_for("a runner that has the build", LONG, || async {
        let attempt = stage.api.build_get(build).await.ok()?["attempt"].clone();
        let attempt = format!("attempt={attempt} ");
        let told = ["build claimed", build, &attempt];
        ["runner-1", "runner-2"].into_iter().find(|name| {
            let log = std::fs::read_to_string(logs.join(format!("{name}.log"))).unwrap();
            log.lines().any(|line| told.iter().all(|it| line.contains(it)))
        })
    })
    .await
    .unwrap()
    .to_owned()
}

/// For how long a log stands still whose runner is killed in the middle of a step.
async fn gap_of_a_killed_runner(options: Options, lines: u32) -> Duration {
    let mut stage = Stage::set_with(options).await;
    let request = json!({
        "name": "goes-on", "memory_mb": 256,
        "recipe": ["ENV WHO=first", "WORKDIR /srv", counting(lines),
                   "RUN echo \"in $PWD as $WHO: $(wc -l < /root/runs) run\""],
    });
    let mut build = Watched::submit(&stage, &request).await;
    build.until(&stage, "line 3").await;
    let runner = runner_of(&stage, &build.id).await;
    let had = stage.api.build_get(&build.id).await.unwrap();
    let (killed, stalls) = (Utc::now(), Stalls::watch());
    stage.platform.member(&runner).unwrap().process().kill();
    // With a lease of two seconds a machine that stands still for one and a half costs an attempt, too.
    while build.records.last().unwrap()["attempt"].as_u64() <= had["attempt"].as_u64() {
        build.until(&stage, " goes on in step 3").await;
    }
    // The next line of the command, which was running all the while.
    let before = build.texts("stdout").len() + 1;
    let again = build.until(&stage, &format!("line {before}")).await;
    let gap = stalls.without((again - killed).to_std().unwrap());
    println!("killed in the middle of a step; the log goes on after {gap:?}");
    let ended = build.end(&stage).await;
    assert_eq!(ended["status"], "succeeded", "{ended:#}");
    assert_eq!(ended["sandbox_id"], had["sandbox_id"]);
    assert!(ended["attempt"].as_u64() > had["attempt"].as_u64(), "{ended:#}");
    build.assert_whole(lines);
    assert!(build.texts("stdout").contains(&"in /srv as first: 1 run"), "{:#?}", build.records);
    let step = ended["logs"].as_array().unwrap().iter().find(|log| log["step"] == 3).unwrap();
    assert!(step["stdout"].as_str().unwrap().starts_with("line 1\n"), "{step:#}");
    stage.strike().await;
    gap
}

/// A machine that others keep busy may take longer, but not twice; that nothing is lost or run twice holds each time.
async fn killed_runner(lease: Option<Duration>, lines: u32, gap_max: Duration) {
    let mut gaps = Vec::new();
    while gaps.len() < 2 {
        let gap = gap_of_a_killed_runner(Options { lease, ..Options::default() }, lines).await;
        if gap < gap_max {
            return;
        }
        gaps.push(gap);
    }
    panic!("the log stood still for {gaps:?}, longer than {gap_max:?} each time");
}

#[tokio::test]
async fn step_of_a_killed_runner_goes_on_within_three_seconds_with_a_short_lease() {
    killed_runner(Some(Duration::from_secs(2)), 12, Duration::from_secs(3)).await;
}

#[tokio::test]
async fn step_of_a_killed_runner_goes_on_within_its_lease_by_default() {
    killed_runner(None, 32, Duration::from_secs(35)).await;
}

#[tokio::test]
async fn runner_that_was_cut_off_and_comes_back_changes_nothing() {
    let options = Options { lease: Some(Duration::from_secs(8)), ..Options::default() };
    let mut stage = Stage::set_with(options).await;
    let request = json!({
        "name": "goes-on", "memory_mb": 256,
        "recipe": [counting(30), "RUN echo \"$(wc -l < /root/runs) run\""],
    });
    let mut build = Watched::submit(&stage, &request).await;
    build.until(&stage, "line 3").await;
    let runner = runner_of(&stage, &build.id).await;
    stage.platform.member(&runner).unwrap().process().signal(Signal::SIGSTOP);
    build.until(&stage, "Attempt 2 goes on in step 1").await;
    build.until(&stage, "line 6").await;
    stage.platform.member(&runner).unwrap().process().signal(Signal::SIGCONT);
    let ended = build.end(&stage).await;
    assert_eq!((&ended["status"], &ended["attempt"]), (&json!("succeeded"), &json!(2)));
    build.assert_whole(30);
    assert!(build.texts("stdout").contains(&"1 run"));
    let last = build.records.iter().rposition(|record| record["attempt"] == 1).unwrap();
    let opened = build.records.iter().position(|record| record["attempt"] == 2).unwrap();
    assert!(last < opened, "attempt 1 wrote after attempt 2 had begun");
    stage.strike().await;
}

#[tokio::test]
async fn step_of_a_runner_that_is_sent_away_goes_on_at_once_and_shows_no_error() {
    let mut stage = Stage::set().await;
    let request = json!({
        "name": "goes-on", "memory_mb": 256,
        "recipe": [counting(12), "RUN echo \"$(wc -l < /root/runs) run\""],
    });
    let mut build = Watched::submit(&stage, &request).await;
    build.until(&stage, "line 3").await;
    let runner = runner_of(&stage, &build.id).await;
    let process = stage.platform.member(&runner).unwrap().process();
    let (begun, stalls) = (Instant::now(), Stalls::watch());
    process.signal(Signal::SIGTERM);
    let status = process.wait(Kind::Runner.patience()).await;
    let took = stalls.without(begun.elapsed());
    assert!(status.is_some_and(|status| status.success()), "it ended with {status:?}");
    assert!(took < Duration::from_secs(5), "it ended after {took:?}");
    build.until(&stage, "Attempt 2 goes on in step 1").await;
    let running = stage.api.build_get(&build.id).await.unwrap();
    assert_eq!((&running["status"], running["reason"].as_object()), (&json!("running"), None));
    let ended = build.end(&stage).await;
    assert_eq!(ended["status"], "succeeded", "{ended:#}");
    build.assert_whole(12);
    assert!(build.texts("stdout").contains(&"1 run"));
    let said = build.texts("system").join("\n").to_lowercase();
    assert!(!said.contains("fail") && !said.contains("error"), "{said}");
    stage.strike().await;
}

#[tokio::test]
async fn started_process_and_healthcheck_survive_their_runner() {
    let options = Options { lease: Some(Duration::from_secs(8)), ..Options::default() };
    let mut stage = Stage::set_with(options).await;
    let serve = "START echo run >> /root/runs; i=0; \
                 while true; do i=$((i+1)); echo \"line $i\"; sleep 0.5; done";
    let request = json!({
        "name": "serves", "memory_mb": 256, "recipe": [serve],
        "healthcheck": "--interval=500ms --timeout=5s --retries=500 test -e /run/ready",
    });
    let mut build = Watched::submit(&stage, &request).await;
    build.until(&stage, "healthcheck attempt 2").await;
    let runner = runner_of(&stage, &build.id).await;
    stage.platform.member(&runner).unwrap().process().kill();
    build.until(&stage, "Attempt 2 goes on with the healthcheck").await;
    let running = stage.api.build_get(&build.id).await.unwrap();
    let sandbox = running["sandbox_id"].as_str().unwrap();
    let runs = stage.host.exec(sandbox, "cat /root/runs; touch /run/ready").await.unwrap();
    assert_eq!(String::from_utf8_lossy(&runs.stdout), "run\n", "it was started once");
    let ended = build.end(&stage).await;
    assert_eq!(ended["status"], "succeeded", "{ended:#}");
    let lines = build.texts("stdout").iter().filter(|text| text.starts_with("line ")).count();
    build.assert_whole(u32::try_from(lines).unwrap());
    stage.strike().await;
}

#[tokio::test]
async fn build_of_a_lost_host_begins_again_on_another_one_and_says_so() {
    let options =
        Options { agents: 2, host_away: Some(Duration::from_secs(3)), ..Options::default() };
    let mut stage = Stage::set_with(options).await;
    let agents = stage.platform.record().agents;
    // The platform is ready when one agent is.
    let second =
        wait_for("the second agent", LONG, || async { Host::connect(&agents[1]).await.ok() });
    let hosts = [stage.host.clone(), second.await.unwrap()];
    // It ends when the test lets it. What it says does not stand in the recipe.
    let request = json!({
        "name": "moves", "memory_mb": 256,
        "recipe": ["RUN echo be\"\"gun; while [ ! -e /run/go ]; do sleep 0.2; done; echo done"],
    });
    let mut build = Watched::submit(&stage, &request).await;
    build.until(&stage, "begun").await;
    let on = usize::from(hosts[0].sandboxes().await.unwrap().is_empty());
    let agent = format!("agent-{}", on + 1);
    stage.platform.member(&agent).unwrap().process().kill();
    build.until(&stage, "Attempt 2 begins from the first step").await;
    let reason = wait_for("the reason says so", LONG, || async {
        let running = stage.api.build_get(&build.id).await.unwrap();
        let reason = running["reason"].clone();
        let message = reason["message"].as_str().unwrap_or_default();
        message.contains("Attempt 2 begins from the first step").then_some(reason)
    });
    assert_eq!(reason.await.unwrap()["code"], "host_lost");
    build.until(&stage, "begun").await;
    let elsewhere = &hosts[1 - on];
    let sandboxes = elsewhere.sandboxes().await.unwrap();
    assert_eq!(sandboxes.len(), 1, "it runs on the other host");
    elsewhere.exec(&sandboxes[0].sandbox_id, "touch /run/go").await.unwrap();
    let ended = build.end(&stage).await;
    assert_eq!(ended["status"], "succeeded", "{ended:#}");
    assert_eq!(build.texts("stdout"), ["begun", "begun", "done"]);

    // What the dead agent left is for it to clear away.
    let back = async {
        loop {
            stage.platform.look_after().await;
            match Host::connect(&agents[on]).await {
                Ok(host) => return host,
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    };
    let host = tokio::time::timeout(LONG, back).await.expect("the agent is back");
    for left in host.sandboxes().await.unwrap() {
        // The sweep does it, too.
        let _ = host.destroy(&left.sandbox_id).await;
    }
    stage.strike().await;
}
