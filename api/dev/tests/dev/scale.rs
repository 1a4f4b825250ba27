//! Runners that follow the load: KEDA's number where KEDA reads it, and a bounded run of `cargo dev scale`.

use std::time::Duration;

use ovenbird_dev::{
    cache::{Artifacts, Cache},
    platform::Platform,
    progress::Ui,
    scale::{self, Plan, autoscaler::Rule, monitor::Monitor},
};
use ovenbird_testkit::wait_for;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn runners_follow_the_number_that_nats_tells_and_no_build_is_restarted() {
    let ui = Ui::new();
    let artifacts = Artifacts::locate(&Cache::open().unwrap()).unwrap();
    let plan = Plan {
        builds: 12,
        rises: Duration::from_secs(3),
        falls: Duration::from_secs(8),
        work: Duration::from_secs(4),
        slots: 2,
        hand_over: Duration::from_secs(12),
        rule: Rule {
            max: 3,
            polling: Duration::from_secs(1),
            window: Duration::from_secs(3),
            ..Rule::of_deploy().unwrap()
        },
    };
    let mut platform = Box::pin(scale::start(&ui, &artifacts, &plan)).await.unwrap();
    let (api, monitor) =
        (platform.api().unwrap(), Monitor::new(platform.nats_monitor_url()).unwrap());
    let lag = async || {
        let lag = monitor.lag(&plan.rule.triggers).await.unwrap();
        (lag.pending, lag.ack_pending)
    };

    // Nobody takes them yet: they wait, of both lanes.
    let mut builds = Vec::new();
    for (name, lane) in [("a", "default"), ("b", "high"), ("c", "default")] {
        let request = json!({ "name": name, "recipe": ["RUN bench-lines 100 5"], "lane": lane });
        let build = api.build_create(&request).await.unwrap();
        builds.push(build["id"].as_str().unwrap().to_owned());
    }
    let until = async |wanted| {
        wait_for("the lag", SOON, async || (lag().await == wanted).then_some(())).await.unwrap();
    };
    until((3, 0)).await;
    assert_eq!(api.queue().await.unwrap()["slots_wanted"], 3);
    // With one runner of two slots two of them run, and the sum stays.
    platform.runner_start(100, &[]).unwrap();
    until((1, 2)).await;
    assert_eq!(api.queue().await.unwrap()["slots_wanted"], 3);
    for id in &builds[..2] {
        wait_for("the step's first line", SOON, async || {
            let log = api.logs(id, 1, 1000).await.ok()?;
            let is_line = |record: &Value| record["stream"] == "stdout";
            log["records"].as_array()?.iter().any(is_line).then_some(())
        })
        .await
        .unwrap();
    }
    // It is sent away with both, and the next one goes on with them.
    let stopped = async |platform: &mut Platform, name| {
        let mut runner = platform.member_take(name).unwrap();
        runner.process().stop(Duration::from_secs(25)).await.unwrap();
    };
    stopped(&mut platform, "runner-100").await;
    platform.runner_start(101, &[]).unwrap();
    let mut attempts = Vec::new();
    for id in &builds {
        let ended = wait_for("the build's end", 6 * SOON, async || {
            let build = api.build_get(id).await.ok()?;
            (!build["completed_at"].is_null()).then_some(build)
        });
        let ended = ended.await.unwrap();
        assert_eq!(ended["status"], "succeeded", "{ended:#}");
        attempts.push(ended["attempt"].as_u64().unwrap());
        let log = api.logs(id, 1, 1000).await.unwrap().to_string();
        assert!(!log.contains("begins from the first step"), "{log}");
    }
    // The high lane goes first, then the older one of the other.
    assert_eq!(attempts, [2, 2, 1]);
    until((0, 0)).await;
    stopped(&mut platform, "runner-101").await;

    let outcome = Box::pin(scale::drive(&ui, &mut platform, &plan)).await.unwrap();
    assert_eq!(outcome.wrong, Vec::<String>::new(), "{outcome:?}");
    assert_eq!((outcome.runners(), outcome.succeeded()), ([1, 3, 1], 12), "{outcome:?}");
    platform.stop(&ui).await.unwrap();
}
