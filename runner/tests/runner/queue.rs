//! How many jobs a runner takes, and what becomes of them.

use std::time::Duration;

use ovenbird_contract::id::BuildId;
use ovenbird_testkit::wait_until;

use crate::{
    agent::Agent,
    attempt::Running,
    desk::{plan, push_attempt, push_job},
};

#[tokio::test(flavor = "multi_thread")]
async fn runner_takes_one_job_for_each_free_slot_and_no_more() {
    let running = Running::start(&Agent::default(), plan("RUN print 1", None), 2).await;
    running.desk.hold_claims();
    for _ in 0..5 {
        push_job(&running.server).await;
    }
    wait_until("two claims", Duration::from_secs(10), || async {
        running.desk.heard().claims >= 2
    })
    .await;
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
    wait_until("an empty queue", Duration::from_secs(10), || async {
        running.server.jobs().await == (0, 0)
    })
    .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_runner_ends_within_five_seconds() {
    let running = Running::start(&Agent::default(), plan("RUN print 1", None), 2).await;
    let begun = tokio::time::Instant::now();
    running.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
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
    wait_until("each was asked for", Duration::from_secs(30), || async {
        running.desk.heard().claims >= 10
    })
    .await;
    let build = push_job(&running.server).await;
    assert_eq!(running.desk.finished().await.build_id, build);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runner_with_a_build_ends_within_five_seconds_while_nats_is_away() {
    let agent = Agent::default();
    let mut running = Running::start_with(&agent, plan("RUN hang", None), |_| {}).await;
    push_job(&running.server).await;
    agent.until_started(1).await;
    running.server.nats.kill9();
    let begun = tokio::time::Instant::now();
    running.stop().await;
    assert!(begun.elapsed() < Duration::from_millis(5_400), "{:?}", begun.elapsed());
}
