//! The running API against its own specification: schemathesis makes requests from it, in order and out of
//! order, alone and in sequences, and looks at every answer.

use std::{num::NonZeroU32, path::Path, process::Stdio, time::Duration};

use ovenbird_testkit::{Folder, schemathesis};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::{templates::template, world::World};

/// How much is tried.
struct Effort {
    /// Test cases that are the least. The short run makes 750 on two cores that are shared.
    cases_min: u64,
    /// What schemathesis spends on making requests, in seconds: it goes on making other ones until then. The second is
    /// for a machine that made too few.
    budgets_sec: [u64; 2],
}

impl Effort {
    fn of_this_run() -> Self {
        if std::env::var_os("OVENBIRD_TEST_ALL").is_some() {
            Self { cases_min: 2_000, budgets_sec: [200, 400] }
        } else {
            Self { cases_min: 300, budgets_sec: [60, 180] }
        }
    }
}

/// What schemathesis may take beside its budget, for its start and its report.
const ASIDE: Duration = Duration::from_secs(140);

/// The key comes in the environment. The first check that is left out takes every text that fits the schema for
/// a recipe that is right. A validation accepts what is wrong, and says so. A log of a build that nobody runs is followed
/// for ever, so no sequence does that; changes are watched for ever by anybody, and looked at in [`crate::events`].
const SETTINGS: &str = r#"
seed = 20260131
workers = 1
request-timeout = 20
continue-on-failure = true
headers = { Authorization = "Bearer ${OVENBIRD_TEST_KEY}" }

[generation]
database = "none"
max-examples = 8
no-shrink = true

[phases.stateful.generation]
max-examples = 5

[checks]
positive_data_acceptance.enabled = false

# The host of the test has room for four sandboxes; the fifth is told so by 503.
[[operations]]
include-path-regex = "^/v1/sandboxes"
checks.not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "503"]

# A sequence that knows the ids of keys would revoke the one that it comes with.
[[operations]]
include-operation-id = "key_revoke"
phases.stateful.enabled = false

[[operations]]
include-operation-id = "build_validate"
checks.negative_data_rejection.enabled = false

[[operations]]
include-operation-id = "build_logs_stream"
phases.stateful.enabled = false

[[operations]]
include-operation-id = "build_events"
enabled = false
"#;

#[tokio::test]
async fn no_request_gets_an_answer_outside_of_the_specification() {
    let plenty = |limit: &mut NonZeroU32| *limit = NonZeroU32::new(1_000_000).unwrap();
    let (world, _host) = World::with_agent(|config| {
        plenty(&mut config.rate.key_burst);
        plenty(&mut config.rate.key_per_second);
        plenty(&mut config.rate.address_burst);
        plenty(&mut config.rate.address_per_second);
    })
    .await;
    furnish(&world).await;
    let folder = Folder::new("contract").unwrap();
    let (settings, report) = (folder.join("schemathesis.toml"), folder.join("report.json"));
    std::fs::write(&settings, SETTINGS).unwrap();
    let effort = Effort::of_this_run();
    let mut said = String::new();
    for budget_sec in effort.budgets_sec {
        let (ended, shown) = run(&world, budget_sec, &settings, &report).await;
        let report = std::fs::read(&report).expect(&shown);
        let report: Value = serde_json::from_slice(&report).unwrap();
        assert!(ended && report["failures"] == json!([]), "{shown}");
        let operations = &report["operations"];
        let number = |count: &str| operations[count].as_u64().unwrap();
        assert_eq!(number("total") - number("selected"), 1, "{shown}");
        let cases = report["test_cases"]["generated"].as_u64().unwrap_or_default();
        println!("{shown}");
        if cases >= effort.cases_min && number("tested") == number("selected") {
            return;
        }
        said = format!("too little was asked, with {cases} cases\n{shown}");
    }
    panic!("{said}");
}

/// Runs schemathesis; whether it found nothing, and what it said.
async fn run(world: &World, budget_sec: u64, settings: &Path, report: &Path) -> (bool, String) {
    let mut command = Command::new(schemathesis::python().unwrap());
    command
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(settings)
        .arg("run")
        .arg(format!("{}/openapi.json", world.url))
        .args(["--max-time", &budget_sec.to_string()])
        .args(["--no-color", "--report", "json", "--report-json-path"])
        .arg(report)
        .env("OVENBIRD_TEST_KEY", &world.admin)
        .current_dir(report.parent().unwrap())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let within = Duration::from_secs(budget_sec) + ASIDE;
    let output = tokio::time::timeout(within, command.output()).await;
    let output = output.expect("schemathesis ends in time").unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// Something of every kind, so that there is more to find than what does not exist.
async fn furnish(world: &World) {
    for name in ["web", "web", "api"] {
        template(world, name).await;
    }
    world.submit("waits").await;
    let cancelled = world.submit_id("cancelled").await;
    world.post(&format!("/v1/admin/builds/{cancelled}/cancel"), &json!({})).await;
}
