//! The host's connection: waits for a host on the virtio-serial port, shakes hands, and serves HTTP/2
//! until the host goes away or begins anew.
//!
//! ```text
//!  no host ──► hunting for HELLO ──► serving ──┐
//!     ▲              ▲                 │       │ a read starts with the token
//!     └── hang-up ───┴───── hang-up ───┘       │ (its bytes are the next HELLO)
//!                    └─────────────────────────┘
//! ```
//!
//! A session that ends takes every call that was open with it. Commands are not calls: they run on.

mod port;
mod session;

use std::{
    convert::Infallible,
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use http_body_util::BodyExt;
use hyper::{Request, Response, body::Incoming, server::conn::http2, service, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use ovenbird_guest_protocol::{
    CONNECTION_WINDOW, Hello, MESSAGE_MAX, PROTOCOL, Reply, STREAM_WINDOW, STREAMS_MAX, Search,
    Token, v1::guest_service_server::GuestServiceServer,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::{Status, body::Body, codegen::Service as _};

use crate::{clock, console::say, random, service::Service};
use port::Port;
use session::{Ended, Session, StreamTasks};

/// What one stream may hold that the host has not taken yet.
const SEND_BUFFER: usize = 64 * 1024;
/// Headers are the host's, and few.
const HEADERS_MAX: u32 = 16 * 1024;

/// Handshakes since boot.
static HELLOS: AtomicU64 = AtomicU64::new(0);

/// Why the link cannot go on at all. A single session's end is no error.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no virtio-serial port named {:?}", ovenbird_guest_protocol::PORT_NAME)]
    NoPort,
    #[error("the virtio-serial port")]
    Port(#[from] io::Error),
}

/// The port and what is known of the host on it.
pub(crate) struct Link {
    port: Port,
    token: Token,
    boot_id: [u8; 16],
    /// Bytes that no session has taken: noise, or the beginning of a HELLO.
    unread: BytesMut,
}

impl Link {
    /// Opens the port. Only one program can hold it, and this one keeps it for good.
    pub(crate) fn open(token: Token, boot_id: [u8; 16]) -> Result<Self, Error> {
        Ok(Self { port: Port::open()?, token, boot_id, unread: BytesMut::new() })
    }

    /// Handshakes since boot.
    pub(crate) fn hellos() -> u64 {
        HELLOS.load(Ordering::Relaxed)
    }

    /// Serves one host after the other. Returns only when the port itself fails.
    pub(crate) async fn serve(&mut self, service: Service) -> Result<(), Error> {
        let service = GuestServiceServer::new(service)
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX);
        loop {
            // A HELLO that ended the last session is followed up at once.
            if self.unread.is_empty() {
                self.port.wait_for_host().await?;
            }
            let mut session = Session::new(&self.port, self.token)?;
            let Some(hello) = self.hunt(&mut session).await? else { continue };
            if let Err(error) = self.answer(&mut session, &hello).await {
                say!("a HELLO could not be answered: {error}");
                continue;
            }
            let ended = serve_session(session, std::mem::take(&mut self.unread), &service).await;
            if let Ended::Restarted(bytes) = ended {
                self.unread = bytes;
            }
        }
    }

    /// Reads up to the end of a HELLO, or to the hang-up.
    async fn hunt(&mut self, session: &mut Session) -> io::Result<Option<Hello>> {
        loop {
            match Hello::search(&self.token, &self.unread) {
                Search::Found { frame, end } => {
                    self.unread.advance(end);
                    return Ok(Some(frame));
                }
                Search::More { discard } => self.unread.advance(discard),
            }
            self.unread.reserve(session::READ_MAX);
            if session.raw().read_buf(&mut self.unread).await? == 0 {
                self.unread.clear();
                return Ok(None);
            }
        }
    }

    /// Does what HELLO asks for, then says so: the host's first call comes after the reply.
    async fn answer(&self, session: &mut Session, hello: &Hello) -> io::Result<()> {
        if let Err(error) = clock::set(Duration::from_nanos(hello.unix_nanos)) {
            say!("the clock could not be set: {error}");
        }
        if let Err(error) = random::reseed(hello.entropy) {
            say!("the random generator could not be reseeded: {error}");
        }
        HELLOS.fetch_add(1, Ordering::Relaxed);
        let reply = Reply { protocol: PROTOCOL, nonce: hello.nonce, boot_id: self.boot_id };
        session.raw().write_all(&reply.encode()).await
    }
}

/// Serves HTTP/2 until the session ends, and with it every call of it.
async fn serve_session(
    mut session: Session,
    first: BytesMut,
    service: &GuestServiceServer<Service>,
) -> Ended {
    session.give_back(first);
    let ended = session.ended();
    let tasks = StreamTasks::default();
    let connection = http2::Builder::new(tasks.clone())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .adaptive_window(false)
        .max_concurrent_streams(STREAMS_MAX)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(HEADERS_MAX)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(session), whole_requests(service));
    let outcome = tokio::select! {
        outcome = ended.wait() => outcome,
        result = connection => {
            // Most often the hang-up, seen from the other side. Else the host ended HTTP/2 but not
            // the connection, or broke its rules: its next HELLO counts.
            let outcome = ended.now();
            if let (None, Err(error)) = (&outcome, result) {
                say!("a session broke off: {}", crate::console::Chain(&error));
            }
            outcome.unwrap_or(Ended::HungUp)
        }
    };
    tasks.end().await;
    outcome
}

/// The service as HTTP/2 sees it: a request that is cut is an error in here. To tonic a cancelled one would just be
/// over, and half a file must not pass for a whole one.
fn whole_requests(
    service: &GuestServiceServer<Service>,
) -> impl service::Service<
    Request<Incoming>,
    Response = Response<Body>,
    Error = Infallible,
    Future: Send + 'static,
> + use<> {
    let service = service.clone();
    service_fn(move |request: Request<Incoming>| {
        let cut = |error| Status::aborted(format!("the request was cut: {error}"));
        let request = request.map(|body| Body::new(body.map_err(cut)));
        service.clone().call(request)
    })
}
