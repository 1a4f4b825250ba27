//! The way from the host agent to the guest agent: tonic over the unix socket behind a VM's
//! virtio-serial port, with the HELLO of `ovenbird_guest_protocol::hello` inside the connector.
//!
//! ```text
//!  connect ──► dial ──► HELLO ──► reply ──► HTTP/2 ──► lost ──► (next call) dial …
//!                ▲        │ none in 250 ms                          5 s at most
//!                └─ 20 ms ┘ until the deadline
//! ```
//!
//! It deliberately does not retry a call, know what a sandbox is, or judge what the guest says: the
//! guest is untrusted, so every caller sets a deadline on every call, and messages are bounded here.

mod dial;
mod stream;

pub use dial::Error;
pub(crate) use dial::unix_nanos;
pub use ovenbird_guest_protocol::{Arrival, Token};

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dial::Dialer;
use hyper_util::rt::TokioIo;
use ovenbird_guest_protocol::{
    CONNECTION_WINDOW, MESSAGE_MAX, STREAM_WINDOW, v1::guest_service_client::GuestServiceClient,
};
use stream::GuestStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

/// Calls the guest. Clones share one connection, which is made anew by the next call when it was lost.
pub type GuestClient = GuestServiceClient<Channel>;

/// How long a lost connection is dialled again for a call that needs it.
const RECONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// A guest that answers no HTTP/2 ping for this long while a call is open has lost its connection.
const PING_EVERY: Duration = Duration::from_secs(15);

/// One VM's link. QEMU serves one connection of a port at a time, so a link keeps at most one open.
#[derive(Debug)]
pub struct GuestLink {
    socket: PathBuf,
    token: Token,
    session: Mutex<CancellationToken>,
}

impl GuestLink {
    /// A link over the socket of the VM's `-chardev socket`, not connected yet. The token is the one
    /// on the kernel command line; that of a fork is the one of its snapshot.
    pub fn new(socket: impl Into<PathBuf>, token: Token) -> Self {
        Self { socket: socket.into(), token, session: Mutex::new(CancellationToken::new()) }
    }

    /// Ends the former connection, waits until the guest answers, and gives a client of it. The guest
    /// answers only after its timer check, so this is also how to wait for a boot; its clock is set and
    /// its random generator reseeded before the first call. Call it again after every `cont`.
    ///
    /// # Errors
    /// When the guest has not answered by the deadline, or is too old.
    pub async fn connect(&self, arrival: Arrival, deadline: Instant) -> Result<GuestClient, Error> {
        let dialer = Arc::new(Dialer {
            socket: self.socket.clone(),
            token: self.token,
            closed: self.next_session(),
        });
        let first = dialer.dial(arrival, deadline).await?;
        let channel = channel(dialer, first).await?;
        Ok(GuestClient::new(channel)
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX))
    }

    /// Ends the connection: open calls fail, and clients that [`GuestLink::connect`] gave before
    /// answer UNAVAILABLE from now on. For the moment before a pause or a snapshot.
    pub fn disconnect(&self) {
        self.next_session();
    }

    fn next_session(&self) -> CancellationToken {
        let next = CancellationToken::new();
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *session, next.clone()).cancel();
        next
    }
}

impl Drop for GuestLink {
    fn drop(&mut self) {
        self.disconnect();
    }
}

/// A channel that begins on the connection `first` and dials again when that is lost.
async fn channel(dialer: Arc<Dialer>, first: GuestStream) -> Result<Channel, Error> {
    let first = Arc::new(Mutex::new(Some(first)));
    let connector = tower::service_fn(move |_| {
        let first = first.lock().unwrap_or_else(PoisonError::into_inner).take();
        let dialer = dialer.clone();
        async move {
            let stream = match first {
                Some(stream) => stream,
                None => {
                    let deadline = Instant::now() + RECONNECT_PATIENCE;
                    dialer.dial(Arrival::Running, deadline).await?
                }
            };
            Ok::<_, Error>(TokioIo::new(stream))
        }
    });
    // The name is never looked up: the connector knows where to go.
    Endpoint::from_static("http://guest.invalid")
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_adaptive_window(false)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_EVERY)
        .connect_with_connector(connector)
        .await
        .map_err(Error::Channel)
}
