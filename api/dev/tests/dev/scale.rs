//! Runners that follow the load: KEDA's number where KEDA reads it, and a bounded run of `cargo dev scale`.

use std::time::Duration;

use ovenbird_dev::{
    cache::{Artifacts, Cache},
    progress::Ui,
    scale::{self, Plan, autoscaler::Rule, monitor::Monitor},
};
use ovenbird_testkit::wait_for;
use serde_json::json;

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
    for (name, lane) in [("a", "default"), ("b", "high"), ("c", "default")] {
        let request = json!({ "name": name, "recipe": ["RUN bench-lines 20 5"], "lane": lane });
        api.build_create(&request).await.unwrap();
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
    until((0, 0)).await;
    let mut first = platform.member_take("runner-100").unwrap();
    first.process().stop(Duration::from_secs(25)).await.unwrap();

    let outcome = Box::pin(scale::drive(&ui, &mut platform, &plan)).await.unwrap();
    assert_eq!(outcome.wrong, Vec::<String>::new(), "{outcome:?}");
    assert_eq!((outcome.runners(), outcome.succeeded()), ([1, 3, 1], 12), "{outcome:?}");
    platform.stop(&ui).await.unwrap();
}
