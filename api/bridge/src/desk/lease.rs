//! `desk.renew` and `desk.release`.

use async_nats::service;
use ovenbird_contract::{
    build::Status,
    desk::{ReleaseRequest, Released, RenewRequest, Renewed, Reply},
};
use ovenbird_db::store::lease::Holder;
use ovenbird_kit::telemetry::chain;

use super::{Desk, lease_refused, millis, read, send, unavailable};

impl Desk {
    pub(super) async fn answer_renew(&self, request: &service::Request) {
        let reply = match read(request) {
            Ok(message) => self.renew(message).await,
            Err(refusal) => Reply::Refused(refusal),
        };
        send(request, &reply).await;
    }

    async fn renew(&self, request: RenewRequest) -> Reply<Renewed> {
        let RenewRequest { build_id: build, attempt, runner_id: runner } = request;
        match self.store.build_renew(&Holder { build, attempt, runner }, self.lease).await {
            Ok(Ok(cancel)) => Reply::Ok(Renewed { lease_ms: millis(self.lease), cancel }),
            Ok(Err(why)) => lease_refused(why),
            Err(error) => unavailable(&error),
        }
    }

    pub(super) async fn answer_release(&self, request: &service::Request) {
        let message: ReleaseRequest = match read(request) {
            Ok(message) => message,
            Err(refusal) => return send(request, &Reply::<Released>::Refused(refusal)).await,
        };
        let (build, attempt) = (message.build_id, message.attempt);
        let reply = self.release(message).await;
        send(request, &reply).await;
        if let Reply::Ok(Released {}) = reply {
            self.states.tell(build, attempt, Status::Queued).await;
        }
    }

    async fn release(&self, request: ReleaseRequest) -> Reply<Released> {
        let ReleaseRequest { build_id: build, attempt, runner_id: runner, why } = request;
        match self.store.build_release(&Holder { build, attempt, runner }).await {
            Ok(Ok(())) => {
                tracing::info!(build.id = %build, attempt, why, "build released");
                if let Err(error) = self.queue.push(&[build]).await {
                    tracing::info!(build.id = %build, error = chain(&error), "left to the sweep");
                }
                Reply::Ok(Released {})
            }
            Ok(Err(why)) => lease_refused(why),
            Err(error) => unavailable(&error),
        }
    }
}
