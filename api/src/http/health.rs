//! `/healthz` and `/readyz`, for whoever starts and restarts the process. Public: they tell no more than
//! which service is away.

use std::{sync::Arc, time::Duration};

use poem_openapi::{ApiResponse, Object, OpenApi, payload::Json};

use super::Tag;
use crate::app::{App, health::Check};

/// The resource.
#[derive(Debug, Clone)]
pub struct HealthRoutes {
    app: Arc<App>,
    deadline: Duration,
}

impl HealthRoutes {
    /// The resource over the use cases; each service has `deadline` to answer.
    pub fn new(app: Arc<App>, deadline: Duration) -> Self {
        Self { app, deadline }
    }
}

/// The process lives.
#[derive(Debug, Object)]
pub struct Alive {
    /// Its version.
    pub version: String,
}

/// Whether the process can work, and what is behind it.
#[derive(Debug, Object)]
pub struct Ready {
    /// Whether it can serve: whether Postgres answered.
    pub ready: bool,
    /// Each service.
    pub checks: Vec<ServiceCheck>,
}

/// One service.
#[derive(Debug, Object)]
pub struct ServiceCheck {
    /// `postgres`, `nats` or `redis`.
    pub service: String,
    /// Whether it answered in time.
    pub ok: bool,
}

impl From<Check> for ServiceCheck {
    fn from(check: Check) -> Self {
        Self { service: check.service.to_owned(), ok: check.ok }
    }
}

/// The answer to the question for readiness.
#[derive(Debug, ApiResponse)]
pub enum Readiness {
    /// Postgres answered; `checks` says whether NATS and Redis did.
    #[oai(status = 200)]
    Ready(Json<Ready>),
    /// Postgres did not answer: nothing can be served.
    #[oai(status = 503)]
    NotReady(Json<Ready>),
}

#[OpenApi(tag = "Tag::Health")]
impl HealthRoutes {
    /// Is the process alive?
    ///
    /// Asks nothing but the process itself.
    #[oai(path = "/healthz", method = "get", operation_id = "healthz")]
    async fn alive(&self) -> Json<Alive> {
        Json(Alive { version: env!("CARGO_PKG_VERSION").to_owned() })
    }

    /// Can the process work?
    ///
    /// Asks Postgres, NATS and Redis, and is ready as long as Postgres answers. Without Redis builds are still accepted
    /// and start later; without NATS logs are not live, and no build begins or ends until it is back.
    #[oai(path = "/readyz", method = "get", operation_id = "readyz")]
    async fn ready(&self) -> Readiness {
        let checks = self.app.ready(self.deadline).await;
        let ready = checks.iter().all(|check| check.ok || !check.needed);
        let told = Json(Ready { ready, checks: checks.map(Into::into).into() });
        if ready { Readiness::Ready(told) } else { Readiness::NotReady(told) }
    }
}
