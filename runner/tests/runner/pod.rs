//! What a runner tells Kubernetes of itself.

use std::time::Duration;

use ovenbird_runner::{config, pod::DELETION_COST};
use ovenbird_testkit::{
    pods::{NAMESPACE, Pods},
    wait_until,
};

use crate::{
    agent::Agent,
    attempt::Running,
    desk::{plan, push_job},
};

const NAME: &str = "ovenbird-runner-5d9c7-x2x8v";
const SOON: Duration = Duration::from_secs(15);

fn section(pods: &Pods) -> config::Pod {
    config::Pod {
        name: NAME.into(),
        namespace: NAMESPACE.into(),
        api: pods.url().into(),
        token: pods.token(),
        ca: pods.ca(),
        every: Duration::from_millis(50),
    }
}

async fn until_cost(pods: &Pods, cost: &str) {
    wait_until(&format!("a cost of {cost}"), SOON, || async {
        pods.annotation(NAME, DELETION_COST).as_deref() == Some(cost)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_costs_as_much_as_its_runner_has_builds() {
    let pods = Pods::start().await.unwrap();
    pods.create(NAME);
    let agent = Agent::default();
    let plan = plan("RUN print 1", None);
    let running =
        Running::start_with(&agent, plan, 2, |config| config.pod = Some(section(&pods))).await;
    running.desk.hold_claims();
    push_job(&running.server).await;
    until_cost(&pods, "1").await;
    // Kubernetes replaces the token while the pod lives.
    pods.replace_token("the second token").unwrap();
    push_job(&running.server).await;
    until_cost(&pods, "2").await;
    running.desk.refuse_claims();
    until_cost(&pods, "0").await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn builds_run_and_the_runner_ends_in_time_though_the_api_server_refuses() {
    let pods = Pods::start().await.unwrap();
    pods.create(NAME);
    pods.refuse(true);
    let agent = Agent::default();
    let plan = plan("RUN print 1", None);
    let running =
        Running::start_with(&agent, plan, 1, |config| config.pod = Some(section(&pods))).await;
    push_job(&running.server).await;
    running.desk.finished().await;
    assert_eq!(pods.annotation(NAME, DELETION_COST), None);
    running.desk.hold_claims();
    push_job(&running.server).await;
    wait_until("a claim", SOON, || async { running.desk.heard().claims >= 2 }).await;
    pods.refuse(false);
    until_cost(&pods, "1").await;
    running.desk.refuse_claims();
    running.stop().await;
}
