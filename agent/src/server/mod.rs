//! The gRPC server: mutual TLS, health, reflection, bounds on messages and calls.

mod calls;
mod directories;
mod egress;
mod exec;
mod fence;
mod fence_file;
mod file_streams;
mod files;
mod metrics;
mod service;
mod status;
mod tls;

use std::{sync::Arc, time::Duration};

use calls::{Bounded, Calls};
pub use fence::Fences;
use file_streams::FileStreams;
use ovenbird_hostagent::{
    FILE_DESCRIPTOR_SET, v1::host_agent_service_server::HostAgentServiceServer,
};
use service::{HostFacts, Service};
pub use tls::{Acceptor, Error as TlsError};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tower::layer::layer_fn;

use crate::sandbox::Manager;

/// Calls of one connection at once.
const CALLS_PER_CONNECTION: usize = 256;
/// A client that answers no ping has gone; its streams are closed.
const PING_EVERY: Duration = Duration::from_secs(20);
/// HTTP/2 windows: of one call, and of all calls of a connection. With less for the connection, a stream that
/// nobody reads would block the others.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 64 * STREAM_WINDOW;

/// The server could not be set up, or failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The transport.
    #[error("the gRPC server failed")]
    Transport(#[from] tonic::transport::Error),
    /// The service's own description.
    #[error("gRPC reflection cannot be set up")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// What the server is made of.
#[derive(Debug)]
pub struct Parts {
    /// The sandboxes.
    pub manager: Manager,
    /// The version of QEMU.
    pub qemu_version: String,
    /// The accelerator, and why.
    pub accelerator: (String, String),
    /// The version of control groups, or why there are none.
    pub cgroups: String,
    /// The highest attempts of builds.
    pub fences: Fences,
    /// The largest message.
    pub message_max: usize,
    /// For either side of a file stream.
    pub file_idle_timeout: Duration,
    /// File streams at the same time.
    pub file_streams: usize,
    /// Ends the process.
    pub shutdown: CancellationToken,
    /// Says that no sandbox is to be left then.
    pub terminate: CancellationToken,
}

fn service(parts: Parts) -> Service {
    let (accelerator, accelerator_reason) = parts.accelerator;
    Service {
        manager: parts.manager,
        fences: Arc::new(parts.fences),
        facts: HostFacts {
            qemu_version: parts.qemu_version,
            accelerator,
            accelerator_reason,
            cgroups: parts.cgroups,
        },
        message_max: parts.message_max,
        file_streams: FileStreams::new(parts.file_idle_timeout, parts.file_streams),
        shutdown: parts.shutdown,
        terminate: parts.terminate,
    }
}

/// Serves until `stop` is cancelled and the calls that run then have been answered.
///
/// # Errors
/// When it cannot be set up, or the listener fails.
pub async fn serve(
    listener: TcpListener,
    acceptor: Acceptor,
    parts: Parts,
    stop: CancellationToken,
) -> Result<(), Error> {
    let (shutdown, message_max) = (parts.shutdown.clone(), parts.message_max);
    let counted = parts.manager.counted().clone();
    let service = Bounded::new(service(parts), message_max);
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<HostAgentServiceServer<Service>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let (incoming, accepting) = acceptor.incoming(listener, stop.clone());
    let served = Server::builder()
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION)
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_EVERY))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .layer(layer_fn(move |inner| Calls::new(inner, counted.clone())))
        .add_service(health_service)
        .add_service(reflection)
        .add_service(service)
        .serve_with_incoming_shutdown(incoming, stop.cancelled());
    // Whoever asks learns that this host is leaving before it has left.
    let leaving = async {
        shutdown.cancelled().await;
        health.set_not_serving::<HostAgentServiceServer<Service>>().await;
        std::future::pending::<()>().await;
    };
    let served = async {
        let ((), served) = tokio::join!(accepting, served);
        served
    };
    tokio::select! {
        served = served => Ok(served?),
        () = leaving => Ok(()),
    }
}
