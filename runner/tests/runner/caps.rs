//! What of a loud command's output is in the log, and builds that take too long.

use std::time::Duration;

use ovenbird_contract::{
    build::ReasonCode,
    limits::LOG_TAIL_BYTES,
    log::{LineRecord, Record, Stream},
};
use ovenbird_testkit::wait_until;

use crate::{
    agent::Agent,
    attempt::Running,
    desk::{failure, plan, push_attempt, push_job},
    nats::assert_gapless,
};

const SOON: Duration = Duration::from_secs(30);

fn lines(records: &[Record], of: Stream) -> Vec<&LineRecord> {
    let mut lines = Vec::new();
    for record in records {
        if let Record::Line(line) = record
            && line.stream == of
        {
            lines.push(line);
        }
    }
    lines
}

/// Bytes and lines of the output that is in the log.
fn logged(output: &[&LineRecord]) -> (u64, u64) {
    (output.iter().map(|line| line.text.len() as u64 + 1).sum(), output.len() as u64)
}

#[tokio::test(flavor = "multi_thread")]
async fn loud_step_that_fails_has_head_and_tail_in_the_log_and_says_what_is_between() {
    const LINES: u64 = 100_000;
    let agent = Agent::default();
    let script = format!("loud {LINES}");
    let running = Running::start(&agent, plan(&format!("RUN {script}\nRUN never"), None), 1).await;
    running.desk.cap_log(50_000);
    let build = push_job(&running.server).await;
    let (code, step, _, tail) = failure(&running.desk.finished().await.outcome);
    assert_eq!((code, step), (ReasonCode::StepFailed, Some(1)));
    assert!(tail.unwrap().ends_with(&format!("{script}: line {LINES}")));
    let records = running.server.records(&build).await;
    assert_gapless(&records);
    let output = lines(&records, Stream::Stdout);
    assert_eq!(output[0].text, format!("{script}: line 1"));
    assert_eq!(output[1_000].text, format!("{script}: line 1001"));
    assert_eq!(output.last().unwrap().text, format!("{script}: line {LINES}"));
    let whole: u64 = (1..=LINES).map(|n| format!("{script}: line {n}\n").len() as u64).sum();
    let (bytes, count) = logged(&output);
    assert!(bytes < 50_000 + 100 + LOG_TAIL_BYTES as u64, "{bytes}");
    let steps = running.ended_steps(&build).await;
    let ended = steps.iter().find(|log| log.step == 1).unwrap();
    let cut = ended.log_truncated.unwrap();
    assert_eq!((bytes + cut.bytes, count + cut.lines), (whole, LINES));
    let kept = ended.stdout.lines().filter(|line| line.contains(": line ")).count() as u64;
    let left_out = ended.truncated.unwrap();
    // A line that is cut in its middle has lost its end, or has not.
    assert!((LINES - 2..=LINES + 2).contains(&(kept + left_out.lines)), "{kept} {left_out:?}");
    let said = lines(&records, Stream::System);
    let said = said.iter().rfind(|line| line.text.contains("left out so far")).unwrap();
    assert!(said.text.contains(&format!("{} bytes, {} lines", cut.bytes, cut.lines)), "{said:?}");
    assert!(said.seq < output.last().unwrap().seq, "before the tail");
    let exec_id = agent.seen.lock().unwrap().started[0].exec_id.clone();
    // What is cut is not held back, however seldom the log speaks of it. The last word may be cut off by the end.
    assert!(agent.acked(&exec_id) > whole / 2, "{} of {whole}", agent.acked(&exec_id));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cut_stays_cut_and_is_counted_in_another_runner() {
    const LINES: u64 = 90_000;
    let agent = Agent::default();
    let mut running = Running::start(&agent, plan("RUN gate", None), 1).await;
    running.desk.cap_log(0);
    let build = push_job(&running.server).await;
    agent.until_started(1).await;
    let block = |from: u64| {
        let lines: Vec<String> = (from..from + LINES / 3).map(|n| format!("line {n}")).collect();
        lines.join("\n")
    };
    agent.gate_writes(&block(1));
    running.until_logged(&build, "left out so far").await;
    let exec_id = agent.seen.lock().unwrap().started[0].exec_id.clone();
    wait_until("some of it is forgotten", SOON, || async { agent.acked(&exec_id) > 40_000 }).await;
    running.replace().await;
    agent.gate_writes(&block(LINES / 3 + 1));
    let standing = running.desk.hand_over(&running.server, &build).await;
    assert!(standing.outputs[0].cut.bytes > 0 && standing.log_bytes > 0, "{standing:?}");
    push_attempt(&running.server, build, 2).await;
    agent.gate_writes(&block(2 * LINES / 3 + 1));
    agent.gate_ends(3);
    let (code, _, _, tail) = failure(&running.desk.finished().await.outcome);
    assert_eq!(code, ReasonCode::StepFailed);
    assert!(tail.unwrap().ends_with(&format!("line {LINES}")));
    let records = running.server.records(&build).await;
    assert_gapless(&records);
    let output = lines(&records, Stream::Stdout);
    let numbers: Vec<u64> = output
        .iter()
        .map(|line| line.text.strip_prefix("line ").unwrap().parse().unwrap())
        .collect();
    assert!(numbers.is_sorted_by(|one, next| one < next), "a line is doubled");
    let holes = numbers.windows(2).filter(|pair| pair[0] + 1 != pair[1]).count();
    assert_eq!((numbers[0], holes, *numbers.last().unwrap()), (1, 1, LINES), "a head and a tail");
    let whole: u64 = (1..=LINES).map(|n| format!("line {n}\n").len() as u64).sum();
    let (bytes, count) = logged(&output);
    let steps = running.ended_steps(&build).await;
    let ended = steps.iter().find(|log| log.step == 1).unwrap();
    let cut = ended.log_truncated.unwrap();
    assert_eq!((bytes + cut.bytes, count + cut.lines), (whole, LINES));
    let left_out = ended.truncated.unwrap();
    assert!(left_out.lines >= cut.lines && left_out.bytes >= cut.bytes, "{left_out:?} {cut:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn step_that_runs_when_the_builds_time_is_over_is_killed_and_its_output_kept() {
    let agent = Agent::default();
    let running = Running::start(&agent, plan("RUN print 1\nRUN hang\nRUN never", None), 1).await;
    running.desk.limit_time(90_000, 10_000);
    let build = push_job(&running.server).await;
    let (code, step, message, tail) = failure(&running.desk.finished().await.outcome);
    assert_eq!((code, step), (ReasonCode::BuildTimeout, Some(2)));
    assert!(message.contains("1m 30s") && message.contains("step 2 (RUN hang)"), "{message}");
    assert_eq!(tail.as_deref(), Some("hang: line 1"));
    assert!(agent.left().is_empty());
    assert!(running.desk.heard().releases.is_empty(), "it is not tried again");
    let steps = running.ended_steps(&build).await;
    let ended = steps.iter().find(|log| log.step == 2).unwrap();
    assert_eq!((ended.ok, ended.stdout.as_str()), (false, "hang: line 1\n"));
    let texts = running.server.texts(&build).await;
    assert!(texts.iter().any(|text| text.starts_with("failed: the build took")), "{texts:#?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn build_whose_time_is_over_while_its_template_is_written_publishes_nothing() {
    let agent = Agent::default();
    agent.seen.lock().unwrap().hang_saves = true;
    agent.seen.lock().unwrap().undestroyed = 2;
    let running = Running::start(&agent, plan("RUN print 1", None), 1).await;
    running.desk.limit_time(90_000, 10_000);
    let build = push_job(&running.server).await;
    let (code, step, message, _) = failure(&running.desk.finished().await.outcome);
    assert_eq!((code, step), (ReasonCode::BuildTimeout, None));
    assert!(message.contains("template was being written"), "{message}");
    assert!(agent.left().is_empty());
    let fences = agent.seen.lock().unwrap().fences.clone();
    assert!(fences.contains(&(build.to_string(), 2)), "no late call makes anything: {fences:?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn step_that_turns_its_machine_off_fails_the_build_with_a_reason() {
    let agent = Agent::default();
    let running = Running::start(&agent, plan("RUN poweroff", None), 1).await;
    push_job(&running.server).await;
    let (code, step, message, _) = failure(&running.desk.finished().await.outcome);
    assert_eq!((code, step), (ReasonCode::SandboxEnded, Some(1)));
    assert!(message.contains("turned itself off"), "{message}");
    assert!(agent.left().is_empty());
    running.stop().await;
}
