//! The TCP listener, with a bound on writes that make no progress.
//!
//! A client that stops reading would otherwise hold its connection, and all that is buffered for it, for
//! ever: the server's own idle timeout counts an attempt to write as activity.

use std::{
    future::Future as _,
    io,
    pin::Pin,
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
    time::{Instant, Sleep},
};

/// Pause after an accept that failed: usually the process has no file descriptor left, and the next
/// attempt would fail at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections whose writes must make progress.
pub struct Bounded {
    inner: TcpAcceptor,
    write_timeout: Duration,
}

impl Bounded {
    /// Wraps a listener; a write that moves no byte for `write_timeout` ends its connection.
    ///
    /// # Errors
    /// When the listener has no address.
    pub fn new(listener: TcpListener, write_timeout: Duration) -> io::Result<Self> {
        Ok(Self { inner: TcpAcceptor::from_tokio(listener)?, write_timeout })
    }
}

impl Acceptor for Bounded {
    type Io = Connection;

    fn local_addr(&self) -> Vec<LocalAddr> {
        self.inner.local_addr()
    }

    async fn accept(&mut self) -> io::Result<(Self::Io, LocalAddr, RemoteAddr, Scheme)> {
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
        let connection = Connection { stream, write_timeout: self.write_timeout, blocked: None };
        Ok((connection, local, remote, scheme))
    }
}

/// A connection whose writes must make progress.
pub struct Connection {
    stream: TcpStream,
    write_timeout: Duration,
    /// Set while a write waits for room.
    blocked: Option<Pin<Box<Sleep>>>,
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
        Pin::new(&mut self.stream).poll_read(context, buffer)
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
