//! Client of Ovenbird: submit builds, follow their logs, use sandboxes.
//!
//! [`rest`] is generated from the API's OpenAPI document and has every operation. What a generator cannot make stands
//! beside it: [`Log`] follows a build's log through broken connections, [`live::Live`] does so over NATS, and
//! [`build_end`] waits for a build.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use ovenbird_sdk::{Log, build_end, connect, rest::types::{BuildCreate, RecipeEntry}};
//!
//! let client = connect("https://ovenbird.example", "ovb_…")?;
//! let body = BuildCreate::builder().name("hello").recipe(vec![RecipeEntry::String("RUN echo hello".to_owned())]);
//! let build = client.build_create().body(body).send().await?.into_inner();
//! let mut log = Log::follow(&client, &build.id, 0);
//! while let Some(record) = log.next().await? {
//!     println!("{:?}", record.text);
//! }
//! let build = build_end(&client, &build.id, std::time::Duration::from_secs(60)).await?;
//! println!("{:?}", build.template_id);
//! # Ok(())
//! # }
//! ```

mod build;
mod error;
#[cfg(feature = "nats")]
pub mod live;
mod log;
#[allow(clippy::all, clippy::unwrap_used, missing_docs, unreachable_pub, reason = "generated")]
pub mod rest;

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};

pub use self::{build::build_end, error::Error, log::Log};

/// A server that is there answers within this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A silent log sends a comment more often than this.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// A client of the API at `url` with an API key.
///
/// # Errors
/// [`Error::Key`] when the key can be no header; [`Error::Client`] when no HTTP client can be made.
pub fn connect(url: &str, key: &str) -> Result<rest::Client, Error> {
    let mut value = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| Error::Key)?;
    value.set_sensitive(true);
    let client = http()
        .default_headers(HeaderMap::from_iter([(AUTHORIZATION, value)]))
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .build()
        .map_err(Error::Client)?;
    Ok(rest::Client::new_with_client(url.trim_end_matches('/'), client))
}

fn http() -> reqwest::ClientBuilder {
    // Whoever set a provider before keeps it.
    #[cfg(feature = "tls")]
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
}
