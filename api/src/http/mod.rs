//! The REST API: one file or folder per resource, and what all of them share. Handlers translate and call
//! a use case; none touches Postgres, NATS or Redis.

mod allow;
mod answers;
pub mod audit;
pub mod auth;
pub mod body;
pub mod builds;
pub mod code;
pub mod contexts;
mod cut;
mod dashboard;
mod docs;
pub mod error;
pub mod events;
mod example;
mod guard;
pub mod health;
pub mod hosts;
pub mod keys;
pub mod logs;
mod operations;
pub mod parameters;
pub mod queue;
mod repeat;
pub mod request;
pub mod sandboxes;
pub mod schema;
pub mod session;
mod shape;
pub mod spec;
pub mod templates;

use std::sync::Arc;

use poem::{
    Endpoint, EndpointExt as _, Response, Route,
    middleware::{AddData, CatchPanic},
};
use poem_openapi::{ContactObject, LicenseObject, OpenApiService, Tags};

use crate::{app::App, config, listener::Open};

/// Groups of operations in the documentation.
#[derive(Debug, Clone, Copy, Tags)]
pub enum Tag {
    /// Recipes on their way to templates, and their logs.
    Builds,
    /// What sandboxes start from.
    Templates,
    /// MicroVMs that were started from templates.
    Sandboxes,
    /// Who may call.
    Keys,
    /// Who asked for which change.
    Audit,
    /// The machines that run sandboxes.
    Hosts,
    /// The builds that wait.
    Queue,
    /// Browsers that sign in with a key.
    Session,
    /// For whoever runs Ovenbird.
    Health,
}

const DESCRIPTION: &str = "\
Ovenbird bakes recipes into microVM templates.

Submit a build, follow its log, and start sandboxes from its template. Every call but the health checks and those \
of hosts' agents needs an API key, as `Authorization: Bearer <key>` or `X-API-Key: <key>`. The dashboard is at `/admin/templates`.

Every error has one shape: `{\"error\":{\"code\",\"message\",\"details\"}}`. Match on `code`; `details` \
lists everything that is wrong with a request. Every answer carries an `X-Request-Id`.

Requests are limited for each key, as a token bucket: `RateLimit-Limit`, `RateLimit-Remaining` and \
`RateLimit-Reset` (seconds until it is full) say how it stands, and 429 comes with `Retry-After`.

A POST can be sent again with an `Idempotency-Key`: it is carried out once, and answered for 24 hours as it was \
the first time.

Lists are newest first and paged: pass `next_cursor` as `cursor` until it is absent.";

type Routes = (
    builds::BuildRoutes,
    contexts::ContextRoutes,
    logs::LogRoutes,
    templates::TemplateRoutes,
    sandboxes::SandboxRoutes,
    sandboxes::exec::ExecRoutes,
    sandboxes::files::FileRoutes,
    keys::KeyRoutes,
    audit::AuditRoutes,
    templates::TagRoutes,
    hosts::HostRoutes,
    hosts::registration::RegistrationRoutes,
    queue::QueueRoutes,
    events::EventRoutes,
    session::SessionRoutes,
    health::HealthRoutes,
);

/// The API over the use cases.
pub fn service(
    app: &Arc<App>,
    http: &config::Http,
    logs: &config::Logs,
) -> OpenApiService<Routes, ()> {
    let routes = (
        builds::BuildRoutes::new(Arc::clone(app)),
        contexts::ContextRoutes::new(Arc::clone(app)),
        logs::LogRoutes::new(Arc::clone(app), logs.clone()),
        templates::TemplateRoutes::new(Arc::clone(app)),
        sandboxes::SandboxRoutes::new(Arc::clone(app)),
        sandboxes::exec::ExecRoutes::new(Arc::clone(app), logs.heartbeat),
        sandboxes::files::FileRoutes::new(Arc::clone(app)),
        keys::KeyRoutes::new(Arc::clone(app)),
        audit::AuditRoutes::new(Arc::clone(app)),
        templates::TagRoutes::new(Arc::clone(app)),
        hosts::HostRoutes::new(Arc::clone(app)),
        hosts::registration::RegistrationRoutes::new(Arc::clone(app)),
        queue::QueueRoutes::new(Arc::clone(app)),
        events::EventRoutes::new(Arc::clone(app), logs.heartbeat),
        session::SessionRoutes::new(Arc::clone(app), http.session.clone()),
        health::HealthRoutes::new(Arc::clone(app), http.ready_timeout),
    );
    OpenApiService::new(routes, "Ovenbird", env!("CARGO_PKG_VERSION"))
        .description(DESCRIPTION)
        .license(
            LicenseObject::new("Apache-2.0").url("https://www.apache.org/licenses/LICENSE-2.0"),
        )
        .contact(ContactObject::new().name("Ovenbird"))
        .server("/")
}

/// Everything that is served to the clients of the connections that are `open`: the API, its documentation, and the
/// layers around them.
///
/// # Errors
/// As [`spec::document`].
pub fn endpoint(
    app: &Arc<App>,
    open: Open,
    http: &config::Http,
    logs: &config::Logs,
) -> serde_json::Result<impl Endpoint<Output = Response> + use<>> {
    let service = service(app, http, logs);
    let document = spec::document(&service)?;
    let operations = Arc::new(operations::Operations::of(&document));
    let allow = allow::Allow::of(&document);
    let route = dashboard::add(docs::add(Route::new(), &service)?);
    let http = Arc::new(http.clone());
    Ok(route
        .nest_no_strip("/", service)
        .with(allow)
        .with(AddData::new(Arc::clone(app)))
        .with(AddData::new(Arc::clone(&http)))
        .with(CatchPanic::new().with_handler(shape::panicked))
        .with(guard::Guard::new(Arc::clone(app), open, Arc::clone(&operations), http))
        .with(request::Observe::new(operations, app.metrics().clone())))
}
