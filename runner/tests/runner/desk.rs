//! A desk of scripted answers, over real NATS.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex},
};

use async_nats::jetstream::message::PublishMessage;
use futures::StreamExt as _;
use ovenbird_contract::{
    build::{Reason, ReasonCode},
    desk::{
        Base, Claim, ClaimRequest, FinishRequest, Finished, Host, LogPosition, Outcome, Refusal,
        RefusalCode, ReleaseRequest, Released, Renewed, Reply, TimeLimit,
    },
    id::{BuildId, HostId, TemplateId},
    job::{self, Job},
    log::{Batch, LineRecord, LogCaps, Record, Resume, Stream},
    nats::DEFAULT_LANE,
    standing::{ResumeFrom, Standing},
};
use ovenbird_recipe::{Available, Plan, Source, parse};
use tokio::{sync::watch, task::JoinHandle};

use crate::nats::Server;

/// What the desk answers, and what it heard.
#[derive(Clone)]
pub(crate) struct Desk {
    shared: Arc<Mutex<Script>>,
    heard: Arc<watch::Sender<Heard>>,
}

/// What runners told the desk.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard {
    pub(crate) claims: usize,
    /// Builds that were asked for, each once.
    pub(crate) claimed: Vec<BuildId>,
    pub(crate) finishes: Vec<FinishRequest>,
    pub(crate) releases: Vec<ReleaseRequest>,
}

struct Script {
    plan: Plan,
    agent: String,
    lease_ms: u64,
    /// Claims wait until it is true.
    answer_claims: bool,
    claimable: bool,
    /// Builds that no host has room for.
    no_room: HashSet<BuildId>,
    /// Releases that are still to be put off.
    releases_later: u32,
    cancel: bool,
    lose: bool,
    previous_sandbox_id: Option<String>,
    context: Option<String>,
    resume: Option<ResumeFrom>,
    log: LogPosition,
    log_caps: LogCaps,
    time_limit: Option<TimeLimit>,
    template_id: TemplateId,
}

pub(crate) fn plan(recipe: &str, healthcheck: Option<&str>) -> Plan {
    let source = Source::Text(recipe.to_owned());
    parse(&source, healthcheck, Available::ALL).unwrap()
}

impl Desk {
    /// Answers claims with `plan`, on the host at `agent`.
    pub(crate) async fn start(server: &Server, plan: Plan, agent: &str) -> (Self, JoinHandle<()>) {
        let script = Script {
            plan,
            agent: agent.into(),
            lease_ms: 12_000,
            answer_claims: true,
            claimable: true,
            no_room: HashSet::new(),
            releases_later: 0,
            cancel: false,
            lose: false,
            previous_sandbox_id: None,
            context: None,
            resume: None,
            log: LogPosition { next_seq: 1, stream_seq: 0 },
            log_caps: LogCaps::default(),
            time_limit: None,
            template_id: TemplateId::new(),
        };
        let desk = Self {
            shared: Arc::new(Mutex::new(script)),
            heard: Arc::new(watch::Sender::new(Heard::default())),
        };
        let client = server.client.clone();
        let mut requests = client.subscribe(server.names.desk("*")).await.unwrap();
        client.flush().await.unwrap();
        let answering = desk.clone();
        let task = tokio::spawn(async move {
            while let Some(request) = requests.next().await {
                let verb = request.subject.rsplit('.').next().unwrap_or_default().to_owned();
                let Some(reply) = request.reply else { continue };
                if let Some(answer) = answering.answer(&verb, &request.payload) {
                    client.publish(reply, answer.into()).await.unwrap();
                }
            }
        });
        (desk, task)
    }

    pub(crate) fn hold_claims(&self) {
        self.shared.lock().unwrap().answer_claims = false;
    }

    pub(crate) fn refuse_claims(&self) {
        let mut script = self.shared.lock().unwrap();
        (script.answer_claims, script.claimable) = (true, false);
    }

    /// A build that no host has room for.
    pub(crate) fn no_room_for(&self, build: BuildId) {
        self.shared.lock().unwrap().no_room.insert(build);
    }

    /// As while Postgres is away: so many releases are to be asked for again.
    pub(crate) fn put_releases_off(&self, count: u32) {
        self.shared.lock().unwrap().releases_later = count;
    }

    pub(crate) fn cancel(&self) {
        self.shared.lock().unwrap().cancel = true;
    }

    pub(crate) fn take_lease_away(&self) {
        self.shared.lock().unwrap().lose = true;
    }

    pub(crate) fn cap_log(&self, step_bytes: u64) {
        self.shared.lock().unwrap().log_caps.step_bytes = step_bytes;
    }

    /// Of `max_ms` this much is left.
    pub(crate) fn limit_time(&self, max_ms: u64, left_ms: u64) {
        self.shared.lock().unwrap().time_limit = Some(TimeLimit { max_ms, left_ms });
    }

    pub(crate) fn leave_sandbox(&self, id: &str) {
        self.shared.lock().unwrap().previous_sandbox_id = Some(id.into());
    }

    /// The builds copy from the context of this digest.
    pub(crate) fn give_context(&self, digest: &str) {
        self.shared.lock().unwrap().context = Some(digest.to_owned());
    }

    /// The next claim goes on where the log says, as the desk's does. The runner before has its lease no more.
    pub(crate) async fn hand_over(&self, server: &Server, build: &BuildId) -> Standing {
        let messages = server.log(build).await;
        let (stream_seq, last) = messages.last().unwrap().clone();
        let standing = last.standing.expect("there is something to go on with");
        let is_followed = |line: &LineRecord| {
            let of = |output: &Resume| output.step == line.step;
            line.stream != Stream::System && standing.outputs.iter().any(of)
        };
        let records = messages.into_iter().flat_map(|(_, batch)| batch.records);
        let lines = records.filter_map(|record| match record {
            Record::Line(line) if is_followed(&line) => Some(line),
            _ => None,
        });
        let lines = lines.collect();
        let next_seq = last.records.last().unwrap().seq() + 1;
        let line = Record::Line(LineRecord {
            seq: next_seq,
            ts: chrono::Utc::now(),
            attempt: 2,
            step: 0,
            stream: Stream::System,
            text: "Attempt 2 goes on.".into(),
            cont: false,
            data: None,
        });
        let batch = Batch { records: vec![line], resume: None, standing: Some(standing.clone()) };
        let message = PublishMessage::build()
            .payload(serde_json::to_vec(&batch).unwrap().into())
            .expected_last_subject_sequence(stream_seq);
        let ack = server.jetstream.send_publish(server.names.logs(build), message).await.unwrap();
        let stream_seq = ack.await.unwrap().sequence;
        let mut script = self.shared.lock().unwrap();
        script.lose = false;
        script.log = LogPosition { next_seq: next_seq + 1, stream_seq };
        script.resume = Some(ResumeFrom { standing: standing.clone(), lines });
        standing
    }

    pub(crate) fn forget_releases(&self) {
        self.heard.send_modify(|heard| heard.releases.clear());
    }

    pub(crate) fn heard(&self) -> Heard {
        self.heard.borrow().clone()
    }

    /// Waits for the one finish.
    pub(crate) async fn finished(&self) -> FinishRequest {
        let mut heard = self.heard.subscribe();
        let waited = tokio::time::timeout(
            std::time::Duration::from_secs(30),
            heard.wait_for(|heard| !heard.finishes.is_empty()),
        );
        waited.await.expect("a build ends").unwrap().finishes[0].clone()
    }

    /// Waits for an attempt that is given up.
    pub(crate) async fn lost(&self) -> Reason {
        let mut heard = self.heard.subscribe();
        let waited = tokio::time::timeout(
            std::time::Duration::from_secs(30),
            heard.wait_for(|heard| !heard.releases.is_empty()),
        );
        let heard = waited.await.expect("an attempt is given up").unwrap().clone();
        heard.releases[0].lost.clone().expect("not lost, but handed over")
    }

    fn answer(&self, verb: &str, payload: &[u8]) -> Option<Vec<u8>> {
        let mut script = self.shared.lock().unwrap();
        let answer = match verb {
            "claim" => {
                let request: ClaimRequest = serde_json::from_slice(payload).unwrap();
                self.heard.send_modify(|heard| {
                    heard.claims += 1;
                    if !heard.claimed.contains(&request.build_id) {
                        heard.claimed.push(request.build_id);
                    }
                });
                if !script.answer_claims {
                    return None;
                }
                if script.no_room.contains(&request.build_id) {
                    let answer = refused(RefusalCode::NoCapacity, Some(2_000));
                    return Some(answer.unwrap());
                }
                match script.claimable {
                    true => serde_json::to_vec(&Reply::Ok(claim(&script, &request))),
                    false => refused(RefusalCode::NotClaimable, None),
                }
            }
            "renew" if script.lose => refused(RefusalCode::StaleAttempt, None),
            "renew" => serde_json::to_vec(&Reply::Ok(Renewed {
                lease_ms: script.lease_ms,
                cancel: script.cancel,
            })),
            "finish" => {
                let request: FinishRequest = serde_json::from_slice(payload).unwrap();
                if script.cancel && request.outcome != Outcome::Cancelled {
                    refused(RefusalCode::NotClaimable, None)
                } else {
                    self.heard.send_modify(|heard| heard.finishes.push(request));
                    serde_json::to_vec(&Reply::Ok(Finished {}))
                }
            }
            "release" if script.releases_later > 0 => {
                script.releases_later -= 1;
                refused(RefusalCode::Unavailable, None)
            }
            "release" => {
                let request: ReleaseRequest = serde_json::from_slice(payload).unwrap();
                self.heard.send_modify(|heard| heard.releases.push(request));
                serde_json::to_vec(&Reply::Ok(Released {}))
            }
            other => panic!("desk.{other}"),
        };
        Some(answer.unwrap())
    }
}

fn refused(code: RefusalCode, retry_after_ms: Option<u64>) -> serde_json::Result<Vec<u8>> {
    let refusal = Refusal { code, message: "scripted".into(), retry_after_ms };
    serde_json::to_vec(&Reply::<()>::Refused(refusal))
}

fn claim(script: &Script, request: &ClaimRequest) -> Claim<Plan> {
    Claim {
        build_id: request.build_id,
        attempt: request.attempt,
        lease_ms: script.lease_ms,
        plan: script.plan.clone(),
        plan_digest: "0123456789abcdef".into(),
        name: "web".into(),
        tag: "latest".into(),
        vcpus: 1,
        memory_mb: 256,
        disk_mb: None,
        context: script.context.clone(),
        base: Base {
            name: "minimal".into(),
            host_name: "minimal".into(),
            default_env: BTreeMap::new(),
            default_user: None,
        },
        host: Host {
            id: HostId::new(),
            address: script.agent.clone(),
            server_name: "agent.test".into(),
        },
        template_id: script.template_id,
        previous_sandbox_id: script.previous_sandbox_id.clone(),
        resume: script.resume.clone(),
        log: script.log,
        log_caps: script.log_caps,
        time_limit: script.time_limit,
    }
}

/// Puts a job of a new build on the default lane.
pub(crate) async fn push_job(server: &Server) -> BuildId {
    push_attempt(server, BuildId::new(), 1).await
}

/// Puts a job on the default lane.
pub(crate) async fn push_attempt(server: &Server, build_id: BuildId, attempt: u32) -> BuildId {
    push_to(server, DEFAULT_LANE, build_id, attempt).await
}

/// Puts a job on a lane.
pub(crate) async fn push_to(
    server: &Server,
    lane: &str,
    build_id: BuildId,
    attempt: u32,
) -> BuildId {
    let job = Job { v: job::VERSION, build_id, attempt, trace: String::new() };
    let payload = serde_json::to_vec(&job).unwrap();
    let ack = server.jetstream.publish(server.names.builds(lane), payload.into()).await;
    ack.unwrap().await.unwrap();
    job.build_id
}

/// The code of a failed outcome.
pub(crate) fn failure(outcome: &Outcome) -> (ReasonCode, Option<u32>, String, Option<String>) {
    match outcome {
        Outcome::Failed { reason } => {
            (reason.code, reason.step, reason.message.clone(), reason.tail.clone())
        }
        other => panic!("not failed: {other:?}"),
    }
}
