//! `desk.renew` and `desk.release`: a build that is handed over, or an attempt that is lost; and `desk.hear`.

use async_nats::service;
use ovenbird_contract::{
    build::{Reason, Status},
    desk::{Heard, ReleaseRequest, Released, RenewRequest, Renewed, Reply},
    id::BuildId,
};
use ovenbird_db::store::lease::{Expired, Holder};
use ovenbird_kit::telemetry::chain;

use super::{Desk, lease_refused, millis, note, read, send, unavailable};

impl Desk {
    pub(super) async fn answer_renew(&self, request: &service::Request) -> &'static str {
        let reply = match read(request) {
            Ok(message) => self.renew(message).await,
            Err(refusal) => Reply::Refused(refusal),
        };
        send(request, &reply).await
    }

    /// Notes that it hears. Whoever asks is heard as a runner that renews its lease would be.
    pub(super) async fn answer_hear(&self, request: &service::Request) -> &'static str {
        let reply = match self.store.hearing_note(self.lease).await {
            Ok(()) => Reply::Ok(Heard {}),
            Err(error) => unavailable(&error),
        };
        send(request, &reply).await
    }

    async fn renew(&self, request: RenewRequest) -> Reply<Renewed> {
        let RenewRequest { build_id: build, attempt, runner_id: runner } = request;
        match self.store.build_renew(&Holder { build, attempt, runner }, self.lease).await {
            Ok(Ok(cancel)) => Reply::Ok(Renewed { lease_ms: millis(self.lease), cancel }),
            Ok(Err(why)) => lease_refused(why),
            Err(error) => unavailable(&error),
        }
    }

    pub(super) async fn answer_release(&self, request: &service::Request) -> &'static str {
        let message: ReleaseRequest = match read(request) {
            Ok(message) => message,
            Err(refusal) => return send(request, &Reply::<Released>::Refused(refusal)).await,
        };
        match self.release(message).await {
            Ok(Expired { build, attempt, status, .. }) => {
                let outcome = send(request, &Reply::Ok(Released {})).await;
                self.states.tell(build, attempt, status).await;
                outcome
            }
            Err(refused) => send(request, &refused).await,
        }
    }

    pub(super) async fn release(
        &self,
        request: ReleaseRequest,
    ) -> Result<Expired, Reply<Released>> {
        let ReleaseRequest { build_id: build, attempt, runner_id: runner, why, lost } = request;
        note(build, attempt);
        let holder = Holder { build, attempt, runner };
        let released = match &lost {
            Some(reason) => self.store.build_lose(&holder, reason, self.attempts_max).await,
            None => self.store.build_release(&holder).await.map(|released| {
                released.map(|()| Expired {
                    build,
                    attempt,
                    status: Status::Queued,
                    counted: false,
                })
            }),
        };
        let released = match released {
            Ok(Ok(released)) => released,
            Ok(Err(why)) => return Err(lease_refused(why)),
            Err(error) => return Err(unavailable(&error)),
        };
        tracing::info!(build.id = %build, attempt, why, status = %released.status, "build released");
        if released.status == Status::Queued
            && self.goes_on_at_once(build, lost.as_ref()).await
            && let Err(error) = self.queue.push(&[build]).await
        {
            tracing::info!(build.id = %build, error = chain(&error), "left to the sweep");
        }
        self.next_turns(build).await;
        Ok(released)
    }

    /// A build whose host failed goes at once to another one. Where there is none the sweep pushes it a moment later:
    /// a host that is just being restarted must not use up its attempts.
    async fn goes_on_at_once(&self, build: BuildId, lost: Option<&Reason>) -> bool {
        if !lost.is_some_and(|reason| reason.code.is_host()) {
            return true;
        }
        self.store.build_has_another_host(build).await.unwrap_or_else(|error| {
            tracing::info!(build.id = %build, error = chain(&error), "left to the sweep");
            false
        })
    }
}
