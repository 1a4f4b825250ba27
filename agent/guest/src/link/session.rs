//! One host's session on the port, as the byte stream that HTTP/2 runs on, and the rule that ends it:
//! a hang-up, or a read that starts with the token.

use std::{
    future::Future,
    io,
    os::fd::{AsRawFd, OwnedFd},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use ovenbird_guest_protocol::Token;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, unix::AsyncFd},
    sync::Notify,
    task::JoinSet,
};

use super::port::Port;

/// The driver hands out one buffer of the host at a time, never more than a page; a HELLO always
/// begins a buffer. Reads are at least this large, so none of them begins inside of a HELLO.
pub(super) const READ_MAX: usize = 16 * 1024;

/// How a session ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The host is gone, or broke off HTTP/2.
    HungUp,
    /// The host began anew; these bytes start with the token.
    Restarted(BytesMut),
}

/// The end of a session, for whoever waits for it.
#[derive(Clone, Default)]
pub(super) struct End(Arc<(Mutex<Option<Ended>>, Notify)>);

impl End {
    fn set(&self, ended: Ended) {
        let (slot, notify) = &*self.0;
        slot.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(ended);
        notify.notify_one();
    }

    /// Waits for the end.
    pub(super) async fn wait(&self) -> Ended {
        self.0.1.notified().await;
        self.now().unwrap_or(Ended::HungUp)
    }

    /// The end, if there is one yet.
    pub(super) fn now(&self) -> Option<Ended> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A session's byte stream.
pub(super) struct Session {
    raw: Raw,
    token: Token,
    /// Read, but not taken by HTTP/2 yet.
    pending: BytesMut,
    end: End,
    over: bool,
}

impl Session {
    pub(super) fn new(port: &Port, token: Token) -> io::Result<Self> {
        let raw = Raw(port.duplicate()?);
        Ok(Self { raw, token, pending: BytesMut::new(), end: End::default(), over: false })
    }

    /// The port below, without the rule: for the handshake.
    pub(super) fn raw(&mut self) -> &mut Raw {
        &mut self.raw
    }

    /// Bytes that came behind the HELLO.
    pub(super) fn give_back(&mut self, first: BytesMut) {
        self.pending = first;
    }

    pub(super) fn ended(&self) -> End {
        self.end.clone()
    }
}

impl AsyncRead for Session {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.over {
            return Poll::Ready(Ok(()));
        }
        if this.pending.is_empty() {
            // Never straight into the caller's buffer: a short one would cut a HELLO in two.
            this.pending.resize(READ_MAX, 0);
            let mut read = ReadBuf::new(&mut this.pending);
            let polled = Pin::new(&mut this.raw).poll_read(cx, &mut read);
            let filled = read.filled().len();
            this.pending.truncate(filled);
            ready!(polled)?;
            if filled == 0 {
                this.over = true;
                this.end.set(Ended::HungUp);
                return Poll::Ready(Ok(()));
            }
            if this.token.starts(&this.pending) {
                this.over = true;
                this.end.set(Ended::Restarted(this.pending.split()));
                return Poll::Ready(Ok(()));
            }
        }
        let taken = this.pending.len().min(buf.remaining());
        buf.put_slice(&this.pending[..taken]);
        this.pending.advance(taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Session {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.over {
            // The next session owns the port: not one more byte of this one.
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.raw).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The port as an asynchronous file.
pub(super) struct Raw(AsyncFd<OwnedFd>);

impl AsyncRead for Raw {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            let free = buf.initialize_unfilled();
            match ready.try_io(|fd| Ok(nix::unistd::read(fd.get_ref(), free)?)) {
                Ok(read) => {
                    let read = read?;
                    buf.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Raw {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
            match ready.try_io(|fd| Ok(nix::unistd::write(fd.get_ref(), buf)?)) {
                Ok(written) => return Poll::Ready(written),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsRawFd for Raw {
    fn as_raw_fd(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

/// The tasks of a session's streams, one per open call.
#[derive(Clone, Default)]
pub(super) struct StreamTasks(Arc<Mutex<JoinSet<()>>>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for StreamTasks {
    fn execute(&self, stream: F) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(stream);
    }
}

impl StreamTasks {
    /// Ends every call that is still open, and waits until it is.
    pub(super) async fn end(self) {
        let mut tasks = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
    }
}
