//! `desk.claim`: begins an attempt, and says where it and its log go on.

use std::time::Duration;

use async_nats::service;
use ovenbird_contract::{
    build::Status,
    desk::{Base, Claim, ClaimRequest, Host, RefusalCode, Reply, TimeLimit},
    id::{BuildId, HostId, SandboxId, TemplateId},
};
use ovenbird_db::store::{
    self,
    claim::{Claimed, Refused, Request},
};
use serde_json::Value as Json;

use super::{
    Desk, NO_CAPACITY_AFTER, millis, note, read, refused, refused_for,
    resume::{self, Opened},
    send, unavailable,
};

impl Desk {
    pub(super) async fn answer_claim(&self, request: &service::Request) -> &'static str {
        let reply = match read(request) {
            Ok(message) => self.claim(message).await,
            Err(refusal) => Reply::Refused(refusal),
        };
        let told = async {
            if let Reply::Ok(claim) = &reply {
                self.states.tell(claim.build_id, claim.attempt, Status::Running).await;
            }
        };
        tokio::join!(send(request, &reply), told).0
    }

    async fn claim(&self, request: ClaimRequest) -> Reply<Claim<Json>> {
        note(request.build_id, request.attempt);
        self.catch_up(&request).await;
        let wanted = Request {
            build: request.build_id,
            attempt: request.attempt,
            runner: request.runner_id,
            lease: self.lease,
        };
        let (claimed, seen) =
            tokio::join!(self.store.build_claim(&wanted), self.seen_before_the_first(&request));
        let claimed = match claimed {
            Ok(Ok(claimed)) => claimed,
            Ok(Err(why)) => return not_claimed(why),
            Err(error) => return unavailable(&error),
        };
        // From here on the attempt is the runner's. When the log cannot be asked it repeats its request,
        // and gets the same claim.
        let opened = match self.open(&request, claimed, seen).await {
            Ok(opened) => opened,
            Err(resume::Error::Over) => {
                return refused(RefusalCode::StaleAttempt, "the attempt is over already");
            }
            Err(error) => return unavailable(&error),
        };
        let age = match self.age(&request).await {
            Ok(age) => age,
            Err(error) => return unavailable(&error),
        };
        let queued_at = opened.claimed.build.queued_at;
        match self.claim_compose(&request, opened, age) {
            Ok(claim) => {
                self.metrics.claimed(queued_at);
                tracing::info!(
                    build.id = %claim.build_id, attempt = claim.attempt, host.id = %claim.host.id,
                    runner.id = %request.runner_id, goes_on = claim.resume.is_some(), "build claimed"
                );
                Reply::Ok(claim)
            }
            Err(error) => unavailable(&error),
        }
    }

    /// How long ago the build's first attempt began, by the clock of Postgres.
    async fn age(&self, request: &ClaimRequest) -> Result<Duration, store::Error> {
        match request.attempt {
            0 | 1 => Ok(Duration::ZERO),
            _ => self.store.build_age(request.build_id).await,
        }
    }

    fn claim_compose(
        &self,
        request: &ClaimRequest,
        opened: Opened,
        age: Duration,
    ) -> Result<Claim<Json>, store::Error> {
        let Opened { claimed, seen, resume } = opened;
        let Claimed { build, base, host, previous_sandbox } = claimed;
        let previous_sandbox = previous_sandbox.filter(|_| resume.is_none());
        let unsigned = |value: i32| u32::try_from(value).unwrap_or(0);
        let default_env = store::template::default_env(&base)?;
        Ok(Claim {
            build_id: BuildId::from_uuid(build.id),
            attempt: request.attempt,
            lease_ms: millis(self.lease),
            plan: build.plan,
            plan_digest: build.plan_digest,
            name: build.name,
            tag: build.tag,
            vcpus: unsigned(build.vcpus),
            memory_mb: unsigned(build.memory_mb),
            disk_mb: build.disk_mb.map(unsigned),
            context: build.context_digest,
            base: Base {
                name: base.name,
                host_name: base.host_name,
                default_env,
                default_user: base.default_user,
            },
            host: Host {
                id: HostId::from_uuid(host.id),
                address: host.address,
                server_name: host.server_name,
            },
            template_id: TemplateId::from_uuid(build.planned_template_id.unwrap_or_default()),
            previous_sandbox_id: previous_sandbox.map(|id| SandboxId::from_uuid(id).to_string()),
            resume,
            log: seen.at.into(),
            log_caps: self.log_caps,
            time_limit: Some(TimeLimit {
                max_ms: millis(self.build_time_max),
                left_ms: millis(self.build_time_max.saturating_sub(age)),
            }),
        })
    }
}

fn not_claimed(why: Refused) -> Reply<Claim<Json>> {
    match why {
        Refused::NotFound => refused(RefusalCode::NotFound, "no such build"),
        Refused::NotClaimable(status) => {
            refused(RefusalCode::NotClaimable, format!("the build is {status}"))
        }
        Refused::StaleAttempt { begun } => {
            refused(RefusalCode::StaleAttempt, format!("attempt {begun} was begun last"))
        }
        Refused::NoBase => refused_for(
            RefusalCode::NoCapacity,
            "the base template does not exist any more",
            NO_CAPACITY_AFTER,
        ),
        Refused::NoHost => refused_for(
            RefusalCode::NoCapacity,
            "no host that answers holds the base template",
            NO_CAPACITY_AFTER,
        ),
        Refused::KeyLimit => refused(
            RefusalCode::KeyLimit,
            "its key has as many builds running as it may; the job comes again",
        ),
        Refused::NoRoom => {
            refused_for(RefusalCode::NoCapacity, "the hosts are full", NO_CAPACITY_AFTER)
        }
    }
}
