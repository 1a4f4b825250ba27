//! How many jobs a runner takes, and what becomes of them.

use std::time::Duration;

use ovenbird_contract::{
    id::BuildId,
    nats::{DEFAULT_LANE, HIGH_LANE},
};
use ovenbird_runner::Config;
use ovenbird_testkit::{Stalls, wait_until};
use tokio::time::Instant;

use crate::{
    agent::Agent,
    attempt::Running,
    desk::{Desk, plan, push_attempt, push_job, push_to},
    nats::{SOON, Server},
};

#[tokio::test(flavor = "multi_thread")]
async fn runner_takes_one_job_for_each_free_slot_and_no_more() {
    let running = Running::start(&Agent::default(), plan("RUN print 1", None), 2).await;
    running.desk.hold_claims();
    for _ in 0..5 {
        push_job(&running.server).await;
    }
    wait_until("two claims", SOON, || async { running.desk.heard().claims >= 2 }).await;
    assert_eq!(running.server.jobs().await, (2, 3));
    running.desk.refuse_claims();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn job_that_nobody_may_claim_any_more_is_taken_off_the_queue() {
    let running = Running::start(&Agent::default(), plan("RUN print 1", None), 1).await;
    running.desk.refuse_claims();
    for _ in 0..3 {
        push_job(&running.server).await;
    }
    wait_until("an empty queue", SOON, || async { running.server.jobs().await == (0, 0) }).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_runner_ends_within_five_seconds() {
    let running = Running::start(&Agent::default(), plan("RUN print 1", None), 2).await;
    let (begun, stalls) = (Instant::now(), Stalls::watch());
    running.stop().await;
    let took = stalls.without(begun.elapsed());
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn job_that_has_a_host_is_not_kept_back_by_any_number_that_have_none() {
    let running = Running::start(&Agent::default(), plan("RUN print 1", None), 1).await;
    for _ in 0..8 {
        let build = BuildId::new();
        running.desk.no_room_for(build);
        push_attempt(&running.server, build, 1).await;
    }
    // They come again as soon as new ones come for the first time.
    wait_until("each was asked for", SOON, || async { running.desk.heard().claims >= 10 }).await;
    let build = push_job(&running.server).await;
    assert_eq!(running.desk.finished().await.build_id, build);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runner_with_a_build_ends_within_its_time_while_nats_is_away() {
    let agent = Agent::default();
    // Shorter than any wait for NATS.
    let briefly = async |_: &Server, _: &Desk, config: &mut Config| {
        config.exit_within = Duration::from_millis(1500);
    };
    let mut running = Running::start_with(&agent, plan("RUN hang", None), briefly).await;
    push_job(&running.server).await;
    agent.until_started(1).await;
    running.server.nats.kill9();
    // Fails when it does not end within its time.
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn high_lane_goes_first_each_lane_in_its_order_and_no_lane_starves() {
    let (mut default, mut high) = (Vec::new(), Vec::new());
    let before = async |server: &Server, desk: &Desk, _: &mut Config| {
        desk.refuse_claims();
        for _ in 0..8 {
            default.push(push_to(server, DEFAULT_LANE, BuildId::new(), 1).await);
            high.push(push_to(server, HIGH_LANE, BuildId::new(), 1).await);
        }
    };
    let plan = plan("RUN print 1", None);
    let running = Running::start_after(&Agent::default(), plan, 1, before).await;
    wait_until("every job to be asked for", SOON, || async {
        running.desk.heard().claimed.len() == 16
    })
    .await;
    let [d, h] = [&default, &high];
    // Once the high lane is empty nobody is passed over.
    let expected = [&h[..3], &d[..1], &h[3..6], &d[1..2], &h[6..], &d[2..]];
    assert_eq!(running.desk.heard().claimed, expected.concat());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_two_lanes_that_come_at_the_same_moment_are_both_taken_at_once() {
    let running = Running::start(&Agent::default(), plan("RUN print 1", None), 1).await;
    running.desk.refuse_claims();
    for round in 1..=8 {
        let push = |lane| push_to(&running.server, lane, BuildId::new(), 1);
        tokio::join!(push(DEFAULT_LANE), push(HIGH_LANE));
        // Far less than the ack wait of a job that was brought by a pull that nobody looks at.
        wait_until("both builds to be asked for", Duration::from_secs(5), || async {
            running.desk.heard().claimed.len() == round * 2
        })
        .await;
    }
    running.stop().await;
}
