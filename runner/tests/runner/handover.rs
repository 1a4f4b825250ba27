//! A build goes on in another runner, wherever the first one was interrupted.
//!
//! The first one ends, or its lease does; the desk's next claim is made of the log's last message, as the real one
//! makes it. What a command wrote and how often it was started is the host's to say.

use std::time::Duration;

use ovenbird_contract::{
    build::ReasonCode,
    desk::{Outcome, TemplateKind},
    event::What,
    id::BuildId,
    log::Record,
    step::{Phase, StepLog},
};
use ovenbird_runner::Config;
use ovenbird_testkit::{wait_for, wait_until};
use tokio::time::Instant;

use crate::{
    agent::Agent,
    attempt::Running,
    desk::{Desk, failure, plan, push_attempt, push_job},
    nats::{SOON, Server, assert_gapless},
};

impl Running {
    pub(crate) async fn until_logged(&self, build: &BuildId, text: &str) {
        wait_until(text, SOON, || async {
            self.server.texts(build).await.iter().any(|logged| logged.contains(text))
        })
        .await;
    }

    pub(crate) async fn ended_steps(&self, build: &BuildId) -> Vec<StepLog> {
        let events = self.server.events(build).await;
        let ended = events.into_iter().filter_map(|event| match event.what {
            What::StepFinished(log) => Some(log),
            _ => None,
        });
        ended.collect()
    }
}

fn succeeded(outcome: &Outcome) -> TemplateKind {
    match outcome {
        Outcome::Succeeded(published) => published.kind,
        other => panic!("{other:?}"),
    }
}

/// The lines that `gate` wrote, as they are in the log.
fn gate_lines(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).filter(|text| text.starts_with("line ")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn step_goes_on_in_another_runner_without_a_line_lost_or_doubled_and_runs_once() {
    let agent = Agent::default();
    let recipe = "ENV A=b\nWORKDIR /srv\nRUN gate\nRUN print 2";
    let mut running = Running::start(&agent, plan(recipe, None), 1).await;
    let build = push_job(&running.server).await;
    agent.until_started(2).await;
    for n in 1..=5 {
        agent.gate_writes(&format!("line {n}"));
    }
    running.until_logged(&build, "line 5").await;
    running.replace().await;
    agent.gate_writes("line 6, while nobody listens");
    let standing = running.desk.hand_over(&running.server, &build).await;
    assert_eq!((standing.ready, standing.steps_done), (true, 2));
    push_attempt(&running.server, build, 2).await;
    running.until_logged(&build, "line 6").await;
    agent.gate_writes("line 7");
    agent.gate_ends(0);
    let finish = running.desk.finished().await;
    assert_eq!((succeeded(&finish.outcome), finish.attempt), (TemplateKind::Image, 2));

    assert_gapless(&running.server.records(&build).await);
    let texts = running.server.texts(&build).await;
    let expected = ["line 1", "line 2", "line 3", "line 4", "line 5"];
    assert_eq!(gate_lines(&texts)[..5], expected);
    assert_eq!(gate_lines(&texts)[5..], ["line 6, while nobody listens", "line 7"]);
    let count = |what: &str| texts.iter().filter(|text| text.contains(what)).count();
    assert_eq!((count("RUN gate"), count("microVM ready")), (1, 1), "{texts:#?}");
    // The row's excerpt has what was before the hand-over, too.
    let ended = running.ended_steps(&build).await;
    let step = ended.iter().find(|log| log.step == 3).unwrap();
    assert!(step.stdout.starts_with("line 1\n") && step.stdout.ends_with("line 7\n"), "{step:?}");
    assert_eq!(step.truncated, None);
    {
        let seen = agent.seen.lock().unwrap();
        assert_eq!(seen.created.len(), 1);
        let started: Vec<&str> =
            seen.started.iter().map(|started| started.args[1].as_str()).collect();
        assert_eq!(started[1..], ["gate", "print 2"], "the command ran once");
        let context = seen.started.last().unwrap().context.clone().unwrap();
        assert_eq!((context.env["A"].as_str(), context.workdir.as_str()), ("b", "/srv"));
        assert!(seen.attached.iter().any(|(_, from)| *from > 0), "{:?}", seen.attached);
    }
    assert!(agent.left().is_empty());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn step_that_ended_while_no_runner_was_there_is_read_to_its_end_not_run_again() {
    let agent = Agent::default();
    let mut running = Running::start(&agent, plan("RUN gate", None), 1).await;
    let build = push_job(&running.server).await;
    agent.until_started(1).await;
    agent.gate_writes("line 1");
    running.until_logged(&build, "line 1").await;
    running.replace().await;
    agent.gate_writes("line 2");
    agent.gate_ends(7);
    running.desk.hand_over(&running.server, &build).await;
    push_attempt(&running.server, build, 2).await;
    let (code, step, message, tail) = failure(&running.desk.finished().await.outcome);
    assert_eq!((code, step), (ReasonCode::StepFailed, Some(1)));
    assert!(message.contains("exit code 7"), "{message}");
    assert_eq!(tail.as_deref(), Some("line 1\nline 2"), "the tail is whole");
    let texts = running.server.texts(&build).await;
    assert_eq!(gate_lines(&texts), ["line 1", "line 2"]);
    assert_eq!(agent.seen.lock().unwrap().started.len(), 1);
    assert!(agent.left().is_empty());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_build_is_told_to_the_desk_by_whoever_comes_next_and_nothing_of_it_is_done_again() {
    let agent = Agent::default();
    agent.seen.lock().unwrap().hang_destroys = 1;
    let mut running = Running::start(&agent, plan("RUN gate\nRUN print 1", None), 1).await;
    let build = push_job(&running.server).await;
    agent.until_started(1).await;
    agent.gate_writes("line 1");
    agent.gate_ends(7);
    wait_until("the sandbox is being removed", SOON, || async {
        agent.seen.lock().unwrap().destroys == 1
    })
    .await;
    running.kill().await;
    let standing = running.desk.hand_over(&running.server, &build).await;
    assert_eq!(standing.failed.map(|reason| reason.code), Some(ReasonCode::StepFailed));
    running.resurrect().await;
    push_attempt(&running.server, build, 2).await;
    let finish = running.desk.finished().await;
    let (code, step, message, tail) = failure(&finish.outcome);
    assert_eq!((code, step, finish.attempt), (ReasonCode::StepFailed, Some(1), 2));
    assert!(message.contains("exit code 7"), "{message}");
    assert_eq!(tail.as_deref(), Some("line 1"));
    let texts = running.server.texts(&build).await;
    let failures = texts.iter().filter(|text| text.starts_with("failed: ")).count();
    assert_eq!(failures, 1, "{texts:#?}");
    {
        let seen = agent.seen.lock().unwrap();
        assert_eq!((seen.created.len(), seen.started.len()), (1, 1));
    }
    assert!(agent.left().is_empty());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_lease_leaves_the_step_to_the_next_attempt() {
    let agent = Agent::default();
    let running = Running::start(&agent, plan("RUN gate", None), 1).await;
    let build = push_job(&running.server).await;
    agent.until_started(1).await;
    agent.gate_writes("line 1");
    running.until_logged(&build, "line 1").await;
    running.desk.take_lease_away();
    wait_until("the attempt is given up", SOON, || async { running.server.jobs().await == (0, 0) })
        .await;
    running.desk.hand_over(&running.server, &build).await;
    push_attempt(&running.server, build, 2).await;
    agent.gate_writes("line 2");
    agent.gate_ends(0);
    let finish = running.desk.finished().await;
    assert_eq!((succeeded(&finish.outcome), finish.attempt), (TemplateKind::Image, 2));
    let texts = running.server.texts(&build).await;
    assert_eq!(gate_lines(&texts), ["line 1", "line 2"]);
    assert_eq!(agent.seen.lock().unwrap().started.len(), 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn second_try_of_a_step_is_gone_on_with_as_the_second() {
    let agent = Agent::default();
    let mut running = Running::start(&agent, plan("RUN --retries=1 twice", None), 1).await;
    let build = push_job(&running.server).await;
    agent.until_started(2).await;
    agent.gate_writes("line 1");
    running.until_logged(&build, "line 1").await;
    running.replace().await;
    let standing = running.desk.hand_over(&running.server, &build).await;
    assert_eq!((standing.steps_done, standing.step_try), (0, 2));
    push_attempt(&running.server, build, 2).await;
    agent.gate_writes("line 2");
    agent.gate_ends(0);
    succeeded(&running.desk.finished().await.outcome);
    let exec_ids: Vec<String> = {
        let seen = agent.seen.lock().unwrap();
        seen.started.iter().map(|started| started.exec_id.clone()).collect()
    };
    let first = format!("{build}.1.0123456789ab");
    assert_eq!(exec_ids, [first.clone(), format!("{first}.2")], "two tries, whoever made them");
    assert_eq!(gate_lines(&running.server.texts(&build).await), ["line 1", "line 2"]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn started_process_is_followed_again_and_the_healthcheck_begins_anew() {
    let agent = Agent::default();
    let check = "--interval=100ms --timeout=1s --retries=1000 pass 1000";
    let mut running = Running::start(&agent, plan("START gate", Some(check)), 1).await;
    let build = push_job(&running.server).await;
    agent.gate_writes("line 1");
    running.until_logged(&build, "line 1").await;
    running.until_logged(&build, "healthcheck attempt 2: exit code 1").await;
    running.replace().await;
    agent.gate_writes("line 2");
    let standing = running.desk.hand_over(&running.server, &build).await;
    assert_eq!((standing.steps_done, standing.healthy), (1, false));
    assert!(standing.outputs.iter().any(|output| output.background && output.stdout == 7));
    push_attempt(&running.server, build, 2).await;
    running.until_logged(&build, "line 2").await;
    wait_until("the second runner's first attempt", SOON, || async {
        let texts = running.server.texts(&build).await;
        let first = "healthcheck attempt 1: exit code 1";
        texts.iter().filter(|text| text.starts_with(first)).count() == 2
    })
    .await;
    agent.gate_writes("line 3");
    agent.gate_ends(9);
    let (code, _, message, tail) = failure(&running.desk.finished().await.outcome);
    assert_eq!(code, ReasonCode::StartDied);
    assert!(message.contains("exit code 9"), "{message}");
    assert_eq!(tail.as_deref(), Some("line 1\nline 2\nline 3"));
    let texts = running.server.texts(&build).await;
    assert_eq!(gate_lines(&texts), ["line 1", "line 2", "line 3"]);
    {
        let seen = agent.seen.lock().unwrap();
        let starts = seen.started.iter().filter(|started| started.args[1] == "gate").count();
        assert_eq!(starts, 1);
    }
    assert_gapless(&running.server.records(&build).await);
    running.stop().await;
}

/// The host writes on while no runner is there; `written_before` says whether it is done when the next one comes.
async fn template_is_found(health: Option<&str>, recipe: &str, written_before: bool) {
    let agent = Agent::default();
    agent.writes_wait.send_replace(true);
    let mut running = Running::start(&agent, plan(recipe, health), 1).await;
    let build = push_job(&running.server).await;
    wait_until("the template is being written", SOON, || async {
        agent.seen.lock().unwrap().writing.len() == 1
    })
    .await;
    running.replace().await;
    if written_before {
        agent.writes_wait.send_replace(false);
        wait_until("it is written", SOON, || async {
            agent.seen.lock().unwrap().written.len() == 1
        })
        .await;
    }
    running.desk.hand_over(&running.server, &build).await;
    push_attempt(&running.server, build, 2).await;
    running.until_logged(&build, "writing the").await;
    agent.writes_wait.send_replace(false);
    let finish = running.desk.finished().await;
    let kind = if health.is_some() { TemplateKind::Snapshot } else { TemplateKind::Image };
    assert_eq!((succeeded(&finish.outcome), finish.attempt), (kind, 2));
    let (written, deleted) = {
        let seen = agent.seen.lock().unwrap();
        (seen.written.clone(), seen.deleted.clone())
    };
    assert_eq!(written.len(), 1, "{written:?}");
    assert!(deleted.is_empty(), "{deleted:?}");
    let steps = running.finished_steps(&build).await;
    assert_eq!(steps.last(), Some(&(Phase::Publish, 0, true)));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn image_that_was_written_while_no_runner_was_there_is_published() {
    Box::pin(template_is_found(None, "RUN print 1", true)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshot_that_is_still_being_written_is_waited_for() {
    let check = "--interval=100ms --timeout=1s --retries=5 pass 1";
    Box::pin(template_is_found(Some(check), "START hang", false)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sandbox_that_is_gone_is_given_up_and_nothing_is_left_to_go_on_with() {
    for recipe in ["RUN gate", "START gate"] {
        let agent = Agent::default();
        let health = "--interval=100ms --timeout=1s --retries=1000 pass 1000";
        let health = recipe.starts_with("START").then_some(health);
        let mut running = Running::start(&agent, plan(recipe, health), 1).await;
        let build = push_job(&running.server).await;
        agent.gate_writes("line 1");
        running.until_logged(&build, "line 1").await;
        running.replace().await;
        agent.seen.lock().unwrap().gone = true;
        running.desk.hand_over(&running.server, &build).await;
        running.desk.forget_releases();
        push_attempt(&running.server, build, 2).await;
        assert_eq!(running.desk.lost().await.code, ReasonCode::HostLost);
        let last = running.server.log(&build).await.pop().unwrap().1;
        assert_eq!(last.standing, None);
        assert!(running.desk.heard().finishes.is_empty());
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn host_that_does_not_answer_is_no_failure_of_the_build() {
    let agent = Agent::default();
    let running = Running::start(&agent, plan("RUN gate", None), 1).await;
    let build = push_job(&running.server).await;
    agent.until_started(1).await;
    agent.gate_writes("line 1");
    running.until_logged(&build, "line 1").await;
    agent.goes_away();
    let reason = running.desk.lost().await;
    assert_eq!(reason.code, ReasonCode::HostLost);
    let records = running.server.records(&build).await;
    assert_gapless(&records);
    let Some(Record::Line(last)) = records.last() else { panic!("no line") };
    assert!(last.text.contains("the host failed"), "{}", last.text);
    assert!(running.desk.heard().finishes.is_empty());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_command_outlives_short_breaks_that_lie_far_apart() {
    let agent = Agent::default();
    let away_max = Duration::from_secs(5);
    let before = async |_: &Server, _: &Desk, config: &mut Config| {
        config.host_away_max = away_max;
    };
    let running = Running::start_after(&agent, plan("RUN gate", None), 1, before).await;
    push_job(&running.server).await;
    agent.until_started(1).await;
    let attached = || agent.seen.lock().unwrap().attached.len();
    for silence in [Duration::ZERO, away_max + Duration::from_secs(1)] {
        let begun = Instant::now();
        wait_until("some silent seconds", SOON, || async {
            attached() > 0 && begun.elapsed() >= silence
        })
        .await;
        let before = attached();
        agent.gate_breaks(true);
        wait_until("the runner attaches again", SOON, || async { attached() > before }).await;
        agent.gate_breaks(false);
    }
    agent.gate_ends(0);
    let finish = running.desk.finished().await;
    assert_eq!((succeeded(&finish.outcome), finish.attempt), (TemplateKind::Image, 1));
    assert!(running.desk.heard().releases.is_empty());
    assert_eq!(agent.seen.lock().unwrap().started.len(), 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_write_of_a_template_outlives_short_breaks_that_lie_far_apart() {
    let agent = Agent::default();
    agent.seen.lock().unwrap().hang_saves = true;
    // A host that is away for two seconds is lost.
    let running = Running::start(&agent, plan("RUN print 1", None), 1).await;
    push_job(&running.server).await;
    let saves = || agent.seen.lock().unwrap().saves;
    let begun = Instant::now();
    for (before, seconds) in [(0, 0), (1, 3)] {
        wait_until("some seconds of writing", SOON, || async {
            saves() > before && begun.elapsed() >= Duration::from_secs(seconds)
        })
        .await;
        let knocks = agent.seen.lock().unwrap().knocks;
        agent.cut_off(true);
        wait_until("the host is called while it is away", SOON, || async {
            agent.seen.lock().unwrap().knocks > knocks
        })
        .await;
        agent.seen.lock().unwrap().hang_saves = seconds == 0;
        agent.cut_off(false);
    }
    let finish = running.desk.finished().await;
    assert_eq!((succeeded(&finish.outcome), finish.attempt), (TemplateKind::Image, 1));
    assert_eq!(saves(), 3);
    assert!(running.desk.heard().releases.is_empty());
    running.stop().await;
}

/// Its agent is killed while it saves the sandbox; the next one finds it paused.
async fn killed_while_it_saves(agent: &Agent) -> Running {
    agent.seen.lock().unwrap().hang_saves = true;
    let running = Running::start(agent, plan("RUN print 1", None), 1).await;
    push_job(&running.server).await;
    wait_until("the template is being written", SOON, || async {
        agent.seen.lock().unwrap().saves == 1
    })
    .await;
    agent.cut_off(true);
    {
        let mut seen = agent.seen.lock().unwrap();
        (seen.asleep, seen.hang_saves) = (true, false);
    }
    wait_until("the host is called while it is away", SOON, || async {
        agent.seen.lock().unwrap().knocks > 0
    })
    .await;
    agent.cut_off(false);
    running
}

#[tokio::test(flavor = "multi_thread")]
async fn sandbox_whose_agent_was_killed_while_it_was_saved_is_resumed_and_saved_again() {
    let agent = Agent::default();
    let running = Box::pin(killed_while_it_saves(&agent)).await;
    let finish = running.desk.finished().await;
    assert_eq!((succeeded(&finish.outcome), finish.attempt), (TemplateKind::Image, 1));
    assert_eq!(agent.seen.lock().unwrap().saves, 2);
    assert!(running.desk.heard().releases.is_empty());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sandbox_that_cannot_be_resumed_after_its_agent_was_killed_is_no_failure_of_the_build() {
    let agent = Agent::default();
    agent.seen.lock().unwrap().state_is_lost = true;
    let running = Box::pin(killed_while_it_saves(&agent)).await;
    assert_eq!(running.desk.lost().await.code, ReasonCode::HostLost);
    assert!(running.desk.heard().finishes.is_empty());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn template_is_found_on_a_host_that_was_away_when_the_next_runner_asked() {
    let agent = Agent::default();
    agent.writes_wait.send_replace(true);
    let mut running = Running::start(&agent, plan("RUN print 1", None), 1).await;
    let build = push_job(&running.server).await;
    wait_until("the template is being written", SOON, || async {
        agent.seen.lock().unwrap().writing.len() == 1
    })
    .await;
    running.replace().await;
    agent.writes_wait.send_replace(false);
    agent.cut_off(true);
    running.desk.hand_over(&running.server, &build).await;
    running.desk.forget_releases();
    push_attempt(&running.server, build, 2).await;
    // One question is three calls.
    wait_until("it is asked twice", SOON, || async { agent.seen.lock().unwrap().knocks > 3 }).await;
    agent.cut_off(false);
    let finish = running.desk.finished().await;
    assert_eq!((succeeded(&finish.outcome), finish.attempt), (TemplateKind::Image, 2));
    assert!(running.desk.heard().releases.is_empty());
    running.stop().await;
}

/// The next runner would go on with a command in a sandbox that is being saved and takes none.
#[tokio::test(flavor = "multi_thread")]
async fn template_is_not_begun_before_the_log_says_that_all_steps_are_done() {
    let agent = Agent::default();
    let running = Running::start(&agent, plan("RUN gate", None), 1).await;
    let build = push_job(&running.server).await;
    agent.until_started(1).await;
    running.server.stall_logs(true).await;
    agent.gate_ends(0);
    wait_until("the template comes next", SOON, || async {
        let events = running.server.events(&build).await;
        events
            .iter()
            .any(|event| matches!(&event.what, What::StepStarted { phase: Phase::Publish, .. }))
    })
    .await;
    let begun = wait_for("the template", Duration::from_secs(1), || async {
        Some(agent.seen.lock().unwrap().saves).filter(|saves| *saves > 0)
    })
    .await;
    assert!(begun.is_err(), "a template was begun while the log stood still");
    running.server.stall_logs(false).await;
    succeeded(&running.desk.finished().await.outcome);
    running.stop().await;
}

/// A runner that was cut off comes back after another one has taken over: nothing it does is taken.
#[tokio::test(flavor = "multi_thread")]
async fn runner_that_comes_back_changes_nothing() {
    let agent = Agent::default();
    let running = Running::start(&agent, plan("RUN gate\nRUN print 1", None), 1).await;
    let build = push_job(&running.server).await;
    agent.until_started(1).await;
    agent.gate_writes("line 1");
    running.until_logged(&build, "line 1").await;
    // Its lease holds as far as it knows; the desk has given the build to attempt 2, which calls the host and
    // writes the log.
    running.desk.hand_over(&running.server, &build).await;
    let (second, ended) = running.another().await;
    push_attempt(&running.server, build, 2).await;
    wait_until("attempt 2 follows the command", SOON, || async {
        agent.seen.lock().unwrap().fences.iter().any(|fence| fence.1 == 2)
    })
    .await;
    agent.gate_writes("line 2");
    agent.gate_ends(0);
    let finish = running.desk.finished().await;
    assert_eq!((succeeded(&finish.outcome), finish.attempt), (TemplateKind::Image, 2));
    wait_until("attempt 1 is over", SOON, || async { running.server.jobs().await == (0, 0) }).await;
    assert_eq!(running.desk.heard().finishes.len(), 1);
    let texts = running.server.texts(&build).await;
    assert_eq!(gate_lines(&texts), ["line 1", "line 2"]);
    assert_gapless(&running.server.records(&build).await);
    {
        let seen = agent.seen.lock().unwrap();
        assert_eq!((seen.written.len(), seen.deleted.len()), (1, 0));
        assert_eq!(seen.started.len(), 2, "each command ran once");
    }
    second.cancel();
    ended.await.unwrap();
    running.stop().await;
}
