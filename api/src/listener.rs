//! The TCP listener, with a bound on connections, and on writes that make no progress.
//!
//! A client that stops reading would otherwise hold its connection, and all that is buffered for it, for
//! ever: the server's own idle timeout counts an attempt to write as activity.
//!
//! It also tells who has hung up: the server goes on with a request whose client is gone, and does not say so.

use std::{
    collections::HashMap,
    future::Future as _,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use poem::{
    http::uri::Scheme,
    listener::{Acceptor, TcpAcceptor},
    web::{LocalAddr, RemoteAddr},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep},
};
use tokio_util::sync::CancellationToken;

/// Pause after an accept that failed: usually the process has no file descriptor left, and the next
/// attempt would fail at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The connections that are open, by the address of their clients.
#[derive(Debug, Clone, Default)]
pub struct Open(Arc<Mutex<HashMap<SocketAddr, CancellationToken>>>);

impl Open {
    /// Cancelled when the client at `address` hangs up; never for one that is not connected.
    pub fn hung_up(&self, address: &SocketAddr) -> CancellationToken {
        self.all().get(address).cloned().unwrap_or_default()
    }

    fn all(&self) -> MutexGuard<'_, HashMap<SocketAddr, CancellationToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Accepts connections whose writes must make progress.
pub struct Bounded {
    inner: TcpAcceptor,
    places: Arc<Semaphore>,
    open: Open,
    write_timeout: Duration,
}

impl Bounded {
    /// Wraps a listener; a write that moves no byte for `write_timeout` ends its connection. While there are
    /// `connections_max` of them the next one waits, in the system's queue.
    ///
    /// # Errors
    /// When the listener has no address.
    pub fn new(
        listener: TcpListener,
        connections_max: usize,
        write_timeout: Duration,
    ) -> io::Result<Self> {
        let places = Arc::new(Semaphore::new(connections_max));
        let (inner, open) = (TcpAcceptor::from_tokio(listener)?, Open::default());
        Ok(Self { inner, places, open, write_timeout })
    }
}

impl Bounded {
    /// The connections that it has accepted.
    pub fn open(&self) -> Open {
        self.open.clone()
    }
}

impl Acceptor for Bounded {
    type Io = Connection;

    fn local_addr(&self) -> Vec<LocalAddr> {
        self.inner.local_addr()
    }

    async fn accept(&mut self) -> io::Result<(Self::Io, LocalAddr, RemoteAddr, Scheme)> {
        let places = Arc::clone(&self.places);
        let place = places.acquire_owned().await.map_err(io::Error::other)?;
        let (stream, local, remote, scheme) = match self.inner.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(error = %error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                return Err(error);
            }
        };
        // Small writes, such as one log line, should not wait for more.
        stream.set_nodelay(true)?;
        let write_timeout = self.write_timeout;
        let (address, hung_up) = (stream.peer_addr()?, CancellationToken::new());
        self.open.all().insert(address, hung_up.clone());
        let presence = Presence { open: self.open.clone(), address, hung_up };
        let connection =
            Connection { stream, write_timeout, blocked: None, presence, _place: place };
        Ok((connection, local, remote, scheme))
    }
}

/// A connection whose writes must make progress.
pub struct Connection {
    stream: TcpStream,
    write_timeout: Duration,
    /// Set while a write waits for room.
    blocked: Option<Pin<Box<Sleep>>>,
    presence: Presence,
    _place: OwnedSemaphorePermit,
}

/// Of a client, until its connection is closed.
struct Presence {
    open: Open,
    address: SocketAddr,
    hung_up: CancellationToken,
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.hung_up.cancel();
        self.open.all().remove(&self.address);
    }
}

impl Connection {
    /// Passes on what a write said, unless it has been waiting for too long.
    fn watch<T>(
        &mut self,
        context: &mut Context<'_>,
        said: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if said.is_ready() {
            self.blocked = None;
            return said;
        }
        let end = Instant::now() + self.write_timeout;
        let timer = self.blocked.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(end)));
        match timer.as_mut().poll(context) {
            Poll::Ready(()) => {
                tracing::info!("a client stopped reading; its connection is closed");
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, room) = (buffer.filled().len(), buffer.remaining());
        let said = Pin::new(&mut self.stream).poll_read(context, buffer);
        let is_over = match &said {
            Poll::Ready(Ok(())) => room > 0 && buffer.filled().len() == before,
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        };
        if is_over {
            self.presence.hung_up.cancel();
        }
        said
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let said = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, said)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let said = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch(context, said)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let said = Pin::new(&mut self.stream).poll_flush(context);
        self.watch(context, said)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
