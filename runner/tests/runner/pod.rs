//! What a runner tells Kubernetes of itself.

use std::time::Duration;

use ovenbird_runner::{Config, config, pod::DELETION_COST};
use ovenbird_testkit::{
    pods::{NAMESPACE, Pods},
    wait_until,
};

use crate::{
    agent::Agent,
    attempt::Running,
    desk::{Desk, plan, push_job},
    nats::Server,
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
    let running = start(&pods, "RUN hang", 2).await;
    // Whatever a container before this one left in the pod.
    until_cost(&pods, "0").await;
    let build = push_job(&running.server).await;
    until_cost(&pods, "1").await;
    // Kubernetes replaces the token while the pod lives.
    pods.replace_token("the second token").unwrap();
    push_job(&running.server).await;
    until_cost(&pods, "2").await;
    // The desk's script is for all builds, but the other one only hears of it at its next renewal.
    running.cancel(&build).await;
    until_cost(&pods, "0").await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn builds_run_and_the_cost_is_told_later_though_the_api_server_refuses() {
    let pods = Pods::start().await.unwrap();
    pods.create(NAME);
    pods.refuse(true);
    let running = start(&pods, "RUN hang", 1).await;
    let build = push_job(&running.server).await;
    wait_until("a step to begin", SOON, || async {
        !running.server.events(&build).await.is_empty()
    })
    .await;
    assert_eq!(pods.annotation(NAME, DELETION_COST), None);
    pods.refuse(false);
    until_cost(&pods, "1").await;
    running.stop().await;
}

async fn start(pods: &Pods, recipe: &str, slots: usize) -> Running {
    let before = async |_: &Server, _: &Desk, config: &mut Config| {
        config.pod = Some(section(pods));
    };
    Running::start_after(&Agent::default(), plan(recipe, None), slots, before).await
}
