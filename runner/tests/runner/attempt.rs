//! Whole attempts: what the desk hears, what the log and the events say, and that nothing is left.

use std::time::Duration;

use ovenbird_contract::{
    build::ReasonCode,
    desk::{Outcome, TemplateKind},
    event::What,
    id::BuildId,
    step::Phase,
};
use ovenbird_kit::tls::Files;
use ovenbird_recipe::Plan;
use ovenbird_runner::{Config, Service};
use ovenbird_testkit::{Stalls, wait_until};
use tokio::{task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    agent::Agent,
    desk::{Desk, failure, plan, push_job},
    nats::{SOON, Server, assert_gapless},
};

/// A runner with its desk and its host.
pub(crate) struct Running {
    pub(crate) server: Server,
    pub(crate) desk: Desk,
    config: Config,
    service: JoinHandle<()>,
    shutdown: CancellationToken,
    others: [JoinHandle<()>; 2],
}

impl Running {
    pub(crate) async fn start(agent: &Agent, plan: Plan, slots: usize) -> Self {
        Self::start_after(agent, plan, slots, async |_, _, _| {}).await
    }

    /// With something done before there is a runner.
    pub(crate) async fn start_after(
        agent: &Agent,
        plan: Plan,
        slots: usize,
        before: impl AsyncFnOnce(&Server, &Desk, &mut Config),
    ) -> Self {
        Self::start_with(agent, plan, async |server, desk, config| {
            config.slots = slots;
            config.drain = Duration::from_millis(300);
            config.host_away_max = Duration::from_secs(2);
            before(server, desk, config).await;
        })
        .await
    }

    /// With the documented defaults, but for what `before` sets.
    pub(crate) async fn start_with(
        agent: &Agent,
        plan: Plan,
        before: impl AsyncFnOnce(&Server, &Desk, &mut Config),
    ) -> Self {
        let server = Server::start().await;
        let (address, tls, host) = agent.start(&server.folder).await;
        let (desk, answering) = Desk::start(&server, plan, &address).await;
        let mut config = defaults(&server, tls);
        before(&server, &desk, &mut config).await;
        let shutdown = CancellationToken::new();
        let service = Service::connect(config.clone()).await.unwrap();
        let service = tokio::spawn(service.run(shutdown.clone()));
        Self { server, desk, config, service, shutdown, others: [host, answering] }
    }

    /// Ends the runner as SIGTERM does, and starts another one.
    pub(crate) async fn replace(&mut self) {
        self.end().await;
        (self.shutdown, self.service) = self.another().await;
    }

    /// Ends the runner in the middle of what it does.
    pub(crate) async fn kill(&mut self) {
        self.service.abort();
        let _ = (&mut self.service).await;
    }

    /// Starts another one after that.
    pub(crate) async fn resurrect(&mut self) {
        (self.shutdown, self.service) = self.another().await;
    }

    /// Starts another runner beside it.
    pub(crate) async fn another(&self) -> (CancellationToken, JoinHandle<()>) {
        let shutdown = CancellationToken::new();
        let service = Service::connect(self.config.clone()).await.unwrap();
        (shutdown.clone(), tokio::spawn(service.run(shutdown)))
    }

    async fn end(&mut self) {
        self.shutdown.cancel();
        // What is left is the scheduler's, which others may keep busy.
        let within = self.config.exit_within + Duration::from_millis(1500);
        let (begun, stalls) = (Instant::now(), Stalls::watch());
        let ended = tokio::time::timeout(within + SOON, &mut self.service).await;
        ended.expect("the runner hangs").unwrap();
        let took = stalls.without(begun.elapsed());
        assert!(took < within, "the runner took {took:?} to end");
    }

    /// As SIGTERM does.
    pub(crate) async fn stop(mut self) {
        self.end().await;
        for other in self.others {
            other.abort();
        }
    }

    /// As the api does.
    pub(crate) async fn cancel(&self, build: &BuildId) {
        self.desk.cancel();
        self.server.client.publish(self.server.names.control(build), "".into()).await.unwrap();
    }

    /// Its connections break, and it answers no more.
    fn host_goes(&self) {
        self.others[0].abort();
    }

    pub(crate) async fn finished_steps(&self, build: &BuildId) -> Vec<(Phase, u32, bool)> {
        let events = self.server.events(build).await;
        let finished = events.into_iter().filter_map(|event| match event.what {
            What::StepFinished(log) => Some((log.phase, log.step, log.ok)),
            _ => None,
        });
        finished.collect()
    }
}

fn defaults(server: &Server, tls: Files) -> Config {
    let file = server.folder.join("runner.toml");
    let Files { ca, cert, key } = tls;
    let text = format!(
        "nats_url = '{}'\nmetrics_listen = ''\n[tls]\nca = '{}'\ncert = '{}'\nkey = '{}'\n",
        server.nats.url(),
        ca.display(),
        cert.display(),
        key.display()
    );
    std::fs::write(&file, text).unwrap();
    Config::load(Some(&file)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn image_build_runs_its_steps_and_leaves_exactly_the_template() {
    let agent = Agent::default();
    let recipe = "ENV A=b\nWORKDIR /srv/app\nUSER web\nRUN print 3\nRUN print 20000";
    let running = Running::start(&agent, plan(recipe, None), 1).await;
    running.desk.leave_sandbox("sbx_old");
    let build = push_job(&running.server).await;
    let finish = running.desk.finished().await;

    let Outcome::Succeeded(published) = &finish.outcome else { panic!("{:?}", finish.outcome) };
    assert_eq!((published.kind, published.size_bytes), (TemplateKind::Image, 4096));
    assert_eq!(published.default_env["A"], "b");
    assert_eq!(published.default_user.as_deref(), Some("web"));
    assert!(agent.left().is_empty());
    let records = running.server.records(&build).await;
    assert_gapless(&records);
    assert_eq!(finish.log.next_seq, records.len() as u64 + 1);
    let texts = running.server.texts(&build).await;
    let printed: Vec<_> =
        texts.iter().filter(|text| text.starts_with("print 20000: line")).collect();
    assert_eq!(printed.len(), 20_000);
    for (text, n) in printed.iter().zip(1..) {
        assert_eq!(**text, format!("print 20000: line {n}"));
    }
    let step = |number| (Phase::Step, number, true);
    let phases = [(Phase::Boot, 0, true), step(1), step(2), step(3), step(4), step(5)];
    let steps = running.finished_steps(&build).await;
    assert_eq!(steps[..6], phases);
    assert_eq!(steps[6..], [(Phase::Publish, 0, true)]);
    {
        let seen = agent.seen.lock().unwrap();
        assert_eq!(seen.destroyed[0], "sbx_old");
        assert_eq!(seen.written[0].1, "image");
        assert_eq!(seen.fences.len(), 1);
        let run = seen.started.last().unwrap();
        assert_eq!(run.exec_id, format!("{build}.5.0123456789ab"));
        let context = run.context.clone().unwrap();
        assert_eq!((context.workdir.as_str(), context.user.as_str()), ("/srv/app", "web"));
        let acked = seen.acked.iter().rfind(|(exec_id, _)| *exec_id == run.exec_id).unwrap();
        assert!(acked.1 > 400_000, "acknowledged up to {}", acked.1);
    }
    wait_until("an empty queue", Duration::from_secs(5), || async {
        running.server.jobs().await == (0, 0)
    })
    .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guest_that_is_not_ready_twice_is_made_a_third_time() {
    let agent = Agent::default();
    agent.seen.lock().unwrap().not_ready = 2;
    let running = Running::start(&agent, plan("RUN print 1", None), 1).await;
    let build = push_job(&running.server).await;
    let finish = running.desk.finished().await;
    assert!(matches!(finish.outcome, Outcome::Succeeded(_)), "{:?}", finish.outcome);
    let boots: Vec<bool> =
        running.finished_steps(&build).await[..3].iter().map(|log| log.2).collect();
    assert_eq!(boots, [false, false, true]);
    assert!(agent.left().is_empty());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guest_that_is_never_ready_is_the_fault_of_its_host_and_shows_its_console() {
    let agent = Agent::default();
    agent.seen.lock().unwrap().not_ready = 9;
    let running = Running::start(&agent, plan("RUN print 1", None), 1).await;
    push_job(&running.server).await;
    let reason = running.desk.lost().await;
    assert_eq!((reason.code, reason.step), (ReasonCode::GuestNotReady, None));
    assert!(reason.tail.unwrap().ends_with("panic"));
    assert_eq!(agent.seen.lock().unwrap().not_ready, 6);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sandbox_whose_agent_starts_again_meanwhile_is_made_again_and_costs_no_attempt() {
    let agent = Agent::default();
    agent.seen.lock().unwrap().hang_creates = true;
    let running = Running::start_with(&agent, plan("RUN print 1", None), async |_, _, _| {}).await;
    let build = push_job(&running.server).await;
    wait_until("the sandbox is made", Duration::from_secs(20), || async {
        agent.seen.lock().unwrap().created.len() == 1
    })
    .await;
    // The call breaks off: whether it was made, the runner cannot know.
    agent.cut_off(true);
    agent.seen.lock().unwrap().hang_creates = false;
    wait_until("the agent is called while it is away", Duration::from_secs(20), || async {
        agent.seen.lock().unwrap().knocks > 3
    })
    .await;
    agent.cut_off(false);
    let finish = running.desk.finished().await;
    assert!(matches!(finish.outcome, Outcome::Succeeded(_)), "{:?}", finish.outcome);
    assert_eq!((finish.attempt, running.desk.heard().releases.len()), (1, 0));
    assert_eq!(running.finished_steps(&build).await[0], (Phase::Boot, 0, true));
    {
        let seen = agent.seen.lock().unwrap();
        assert_eq!(seen.created.len(), 2);
        assert_eq!(seen.created[0], seen.created[1], "the id that everybody knows");
        assert_eq!(seen.destroyed[0], seen.created[0]);
    }
    assert!(agent.left().is_empty());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agent_that_is_ending_uses_up_no_microvm() {
    let agent = Agent::default();
    // One more than there may be microVMs.
    agent.seen.lock().unwrap().closing = 4;
    let running = Running::start_with(&agent, plan("RUN print 1", None), async |_, _, _| {}).await;
    let build = push_job(&running.server).await;
    let finish = running.desk.finished().await;
    assert!(matches!(finish.outcome, Outcome::Succeeded(_)), "{:?}", finish.outcome);
    let boots = running.finished_steps(&build).await;
    assert_eq!(boots[..2], [(Phase::Boot, 0, true), (Phase::Step, 1, true)]);
    let texts = running.server.texts(&build).await;
    assert_eq!(texts.iter().filter(|text| text.contains("agent is ending")).count(), 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn host_that_does_not_come_back_while_a_sandbox_is_made_is_lost_after_its_time() {
    let agent = Agent::default();
    agent.cut_off(true);
    let running = Running::start(&agent, plan("RUN print 1", None), 1).await;
    let begun = tokio::time::Instant::now();
    let build = push_job(&running.server).await;
    assert_eq!(running.desk.lost().await.code, ReasonCode::HostLost);
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
    let texts = running.server.texts(&build).await;
    assert!(texts.iter().any(|text| text.contains("waiting for it")), "{texts:#?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn step_that_fails_names_itself_and_shows_its_tail() {
    let agent = Agent::default();
    let running = Running::start(&agent, plan("# one\nRUN print 2\n\nRUN exit 3", None), 1).await;
    let build = push_job(&running.server).await;
    let (code, step, message, tail) = failure(&running.desk.finished().await.outcome);
    assert_eq!((code, step), (ReasonCode::StepFailed, Some(2)));
    assert!(message.contains("exit code 3"), "{message}");
    assert_eq!(tail.as_deref(), Some("exit 3: line 1"));
    assert!(agent.left().is_empty());
    assert!(agent.seen.lock().unwrap().written.is_empty());
    assert_gapless(&running.server.records(&build).await);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn step_over_its_time_says_so() {
    let agent = Agent::default();
    let running = Running::start(&agent, plan("RUN --timeout=2s slow", None), 1).await;
    push_job(&running.server).await;
    let (code, step, message, _) = failure(&running.desk.finished().await.outcome);
    assert_eq!((code, step), (ReasonCode::StepTimeout, Some(1)));
    assert!(message.contains("2.00 s"), "{message}");
    assert_eq!(agent.seen.lock().unwrap().started[0].timeout_ms, 2_000);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_that_breaks_is_attached_again_and_no_line_is_lost_or_doubled() {
    let agent = Agent::default();
    let running = Running::start(&agent, plan("RUN break", None), 1).await;
    let build = push_job(&running.server).await;
    let finish = running.desk.finished().await;
    assert!(matches!(finish.outcome, Outcome::Succeeded(_)), "{:?}", finish.outcome);
    let texts = running.server.texts(&build).await;
    let lines: Vec<_> = texts.into_iter().filter(|text| text.starts_with("break: line")).collect();
    let expected: Vec<_> = (1..=100).map(|n| format!("break: line {n}")).collect();
    assert_eq!(lines, expected);
    let attached: Vec<u64> = agent.seen.lock().unwrap().attached.iter().map(|at| at.1).collect();
    assert_eq!(attached.len(), 2);
    assert!(attached[1] > 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn healthcheck_that_passes_makes_a_snapshot_and_shows_its_attempts() {
    let agent = Agent::default();
    let plan = plan("START hang", Some("--interval=100ms --timeout=10s --retries=5 pass 3"));
    let running = Running::start(&agent, plan, 1).await;
    let build = push_job(&running.server).await;
    let finish = running.desk.finished().await;
    let Outcome::Succeeded(published) = finish.outcome else { panic!("{:?}", finish.outcome) };
    assert_eq!(published.kind, TemplateKind::Snapshot);
    assert_eq!(agent.seen.lock().unwrap().written[0].1, "snapshot");
    let texts = running.server.texts(&build).await;
    let has = |what: &str| texts.iter().any(|text| text.contains(what));
    assert!(has("healthcheck attempt 1: exit code 1") && has("healthcheck attempt 2: exit code 1"));
    assert!(has("healthcheck passed at attempt 3") && has("hang: line 1"), "{texts:#?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn healthcheck_that_never_passes_ends_after_its_retries_with_everything_in_the_log() {
    let agent = Agent::default();
    let plan = plan("START hang", Some("--interval=100ms --timeout=10s --retries=3 exit 7"));
    let running = Running::start(&agent, plan, 1).await;
    let build = push_job(&running.server).await;
    let (code, step, message, tail) = failure(&running.desk.finished().await.outcome);
    assert_eq!((code, step), (ReasonCode::HealthFailed, None));
    assert!(message.contains("3 attempts") && message.contains("exit code 7"), "{message}");
    assert_eq!(tail.as_deref(), Some("exit 7: line 1"));
    let texts = running.server.texts(&build).await;
    let count = |what: &str| texts.iter().filter(|text| text.starts_with(what)).count();
    assert_eq!(
        (count("healthcheck attempt"), count("exit 7: line 1"), count("hang: line 1")),
        (3, 3, 1)
    );
    assert!(agent.left().is_empty());
    assert!(agent.seen.lock().unwrap().written.is_empty(), "nothing is published");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn start_process_that_dies_fails_the_build_with_its_output() {
    let agent = Agent::default();
    let plan = plan("START exit 9", Some("--interval=100ms --timeout=1s --retries=100 pass 100"));
    let running = Running::start(&agent, plan, 1).await;
    push_job(&running.server).await;
    let (code, _, message, tail) = failure(&running.desk.finished().await.outcome);
    assert_eq!(code, ReasonCode::StartDied);
    assert!(message.contains("step 1") && message.contains("exit code 9"), "{message}");
    assert_eq!(tail.as_deref(), Some("exit 9: line 1"));
    assert!(agent.left().is_empty());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn step_is_tried_again_as_often_as_it_says() {
    let agent = Agent::default();
    let running = Running::start(&agent, plan("RUN --retries=1 exit 1", None), 1).await;
    let build = push_job(&running.server).await;
    failure(&running.desk.finished().await.outcome);
    let exec_ids: Vec<String> = {
        let seen = agent.seen.lock().unwrap();
        seen.started.iter().map(|started| started.exec_id.clone()).collect()
    };
    let first = format!("{build}.1.0123456789ab");
    assert_eq!(exec_ids, [first.clone(), format!("{first}.2")]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_destroys_the_sandbox_before_the_desk_hears_of_the_end() {
    let agent = Agent::default();
    let running = Running::start(&agent, plan("RUN hang", None), 1).await;
    let build = push_job(&running.server).await;
    agent.until_started(1).await;
    running.cancel(&build).await;
    let finish = running.desk.finished().await;
    assert_eq!(finish.outcome, Outcome::Cancelled);
    assert!(agent.left().is_empty());
    assert!(agent.seen.lock().unwrap().written.is_empty());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_waits_for_a_sandbox_that_is_not_destroyed_yet_and_keeps_later_calls_out() {
    let agent = Agent::default();
    agent.seen.lock().unwrap().undestroyed = 2;
    let running = Running::start(&agent, plan("RUN hang", None), 1).await;
    let build = push_job(&running.server).await;
    agent.until_started(1).await;
    running.cancel(&build).await;
    assert_eq!(running.desk.finished().await.outcome, Outcome::Cancelled);
    assert!(agent.left().is_empty());
    let fences = agent.seen.lock().unwrap().fences.clone();
    assert!(fences.contains(&(build.to_string(), 2)), "{fences:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_whose_host_does_not_answer_is_left_to_the_sweep_and_claims_nothing() {
    let agent = Agent::default();
    let running = Running::start(&agent, plan("RUN hang", None), 1).await;
    let build = push_job(&running.server).await;
    agent.until_started(1).await;
    running.host_goes();
    running.cancel(&build).await;
    wait_until("an empty queue", Duration::from_secs(60), || async {
        running.server.jobs().await == (0, 0)
    })
    .await;
    let heard = running.desk.heard();
    assert!(heard.finishes.is_empty() && heard.releases.is_empty(), "{heard:?}");
    let texts = running.server.texts(&build).await;
    assert_eq!(texts.last().map(String::as_str), Some("the sandbox cannot be destroyed yet"));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_while_the_sandbox_of_the_attempt_before_is_destroyed_waits_for_its_end() {
    let agent = Agent::default();
    agent.seen.lock().unwrap().hang_destroys = 1;
    let running = Running::start(&agent, plan("RUN print 1", None), 1).await;
    running.desk.leave_sandbox("sbx_old");
    let build = push_job(&running.server).await;
    wait_until("the destruction to begin", Duration::from_secs(20), || async {
        agent.seen.lock().unwrap().destroys == 1
    })
    .await;
    running.cancel(&build).await;
    assert_eq!(running.desk.finished().await.outcome, Outcome::Cancelled);
    assert_eq!(agent.seen.lock().unwrap().destroyed, ["sbx_old"], "the host has said so");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_while_the_template_is_written_publishes_nothing() {
    let agent = Agent::default();
    agent.seen.lock().unwrap().hang_saves = true;
    let running = Running::start(&agent, plan("RUN print 1", None), 1).await;
    let build = push_job(&running.server).await;
    wait_until("the save to begin", Duration::from_secs(60), || async {
        agent.seen.lock().unwrap().saves > 0
    })
    .await;
    running.cancel(&build).await;
    assert_eq!(running.desk.finished().await.outcome, Outcome::Cancelled);
    assert!(agent.left().is_empty());
    let deleted = agent.seen.lock().unwrap().deleted.clone();
    assert!(deleted[0].starts_with("tpl_"), "{deleted:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attempt_that_lost_its_lease_leaves_its_sandbox_and_says_nothing() {
    let agent = Agent::default();
    let running = Running::start(&agent, plan("RUN hang", None), 1).await;
    push_job(&running.server).await;
    agent.until_started(1).await;
    running.desk.take_lease_away();
    wait_until("an empty queue", SOON, || async { running.server.jobs().await == (0, 0) }).await;
    let heard = running.desk.heard();
    assert!(heard.finishes.is_empty() && heard.releases.is_empty(), "{heard:?}");
    assert_eq!(agent.left().len(), 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runner_that_ends_gives_its_build_back_with_its_sandbox_within_five_seconds() {
    let agent = Agent::default();
    let running = Running::start_with(&agent, plan("RUN hang", None), async |_, _, _| {}).await;
    let build = push_job(&running.server).await;
    agent.until_started(1).await;
    let (desk, begun, stalls) = (running.desk.clone(), Instant::now(), Stalls::watch());
    running.stop().await;
    let took = stalls.without(begun.elapsed());
    assert!(took < Duration::from_secs(5), "{took:?}");
    let heard = desk.heard();
    assert!(heard.finishes.is_empty());
    assert_eq!((heard.releases[0].build_id, &heard.releases[0].lost), (build, &None));
    assert_eq!(agent.left().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn failure_of_a_host_is_told_to_a_desk_that_is_away_for_a_while() {
    let agent = Agent::default();
    let running = Running::start(&agent, plan("RUN gate", None), 1).await;
    // Three seconds, as the pauses between requests grow.
    running.desk.put_releases_off(4);
    push_job(&running.server).await;
    agent.until_started(1).await;
    agent.goes_away();
    assert_eq!(running.desk.lost().await.code, ReasonCode::HostLost);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn template_that_the_desk_refuses_is_removed_and_a_cancel_wins() {
    let agent = Agent::default();
    let running = Running::start(&agent, plan("RUN print 1", None), 1).await;
    // The desk knows of the cancel, and no renewal has told the runner yet.
    running.desk.cancel();
    push_job(&running.server).await;
    assert_eq!(running.desk.finished().await.outcome, Outcome::Cancelled);
    let (written, deleted) = {
        let seen = agent.seen.lock().unwrap();
        (seen.written.len(), seen.deleted.len())
    };
    assert_eq!(written, deleted);
    running.stop().await;
}
