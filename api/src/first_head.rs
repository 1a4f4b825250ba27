//! Looks at the beginning of each connection: whoever connects must ask for something soon, and in HTTP/1.1.
//!
//! The server itself waits for a head that trickles in for as long as bytes come. And it would speak HTTP/2 with
//! whoever begins so, where one connection carries any number of requests, and one that is not read hides behind
//! others that are: the bounds of [`crate::listener`] look at connections, not at streams.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use poem::{
    http::uri::Scheme,
    listener::Acceptor,
    web::{LocalAddr, RemoteAddr},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

/// How HTTP/2 begins; RFC 9113, section 3.4. No method of HTTP/1.1 has this name.
const HTTP2: &[u8] = b"PRI ";
/// Empty SETTINGS, and a GOAWAY of the error HTTP_1_1_REQUIRED; RFC 9113, sections 6.5, 6.8 and 7.
const GO_AWAY: &[u8] = &[
    0, 0, 0, 4, 0, 0, 0, 0, 0, //
    0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 13,
];

/// Accepts connections whose first head is there in time.
pub struct FirstHead<A> {
    inner: A,
    timeout: Duration,
}

impl<A> FirstHead<A> {
    /// Over `inner`; a connection without a whole head after `timeout` ends.
    pub fn new(inner: A, timeout: Duration) -> Self {
        Self { inner, timeout }
    }
}

impl<A: Acceptor> Acceptor for FirstHead<A> {
    type Io = Connection<A::Io>;

    fn local_addr(&self) -> Vec<LocalAddr> {
        self.inner.local_addr()
    }

    async fn accept(&mut self) -> io::Result<(Self::Io, LocalAddr, RemoteAddr, Scheme)> {
        let (stream, local, remote, scheme) = self.inner.accept().await?;
        let deadline = Box::pin(tokio::time::sleep(self.timeout));
        let waits = Some(Waits { deadline, head: Head::default() });
        Ok((Connection { stream, waits }, local, remote, scheme))
    }
}

/// A connection whose first head is looked at.
pub struct Connection<S> {
    stream: S,
    /// Until the first head is there.
    waits: Option<Waits>,
}

struct Waits {
    deadline: Pin<Box<Sleep>>,
    head: Head,
}

/// What has come of a head.
#[derive(Debug, Default)]
struct Head {
    /// Bytes so far, up to the length of [`HTTP2`].
    length: usize,
    is_http2: bool,
    /// Line ends since the last other byte; two of them end a head.
    line_ends: usize,
    /// Line ends before the first other byte count nothing.
    has_begun: bool,
}

/// What to do with a connection.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Incomplete,
    Complete,
    Http2,
}

impl Head {
    fn take(&mut self, bytes: &[u8]) -> Verdict {
        for byte in bytes {
            if let Some(expected) = HTTP2.get(self.length) {
                self.is_http2 = (self.is_http2 || self.length == 0) && byte == expected;
                self.length += 1;
                if self.is_http2 && self.length == HTTP2.len() {
                    return Verdict::Http2;
                }
            }
            match byte {
                b'\n' if self.has_begun => self.line_ends += 1,
                b'\r' | b'\n' => {}
                _ => (self.has_begun, self.line_ends) = (true, 0),
            }
            if self.line_ends == 2 {
                return Verdict::Complete;
            }
        }
        Verdict::Incomplete
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let said = Pin::new(&mut this.stream).poll_read(context, buffer);
        let Some(waits) = &mut this.waits else { return said };
        if said.is_ready() {
            match waits.head.take(&buffer.filled()[before..]) {
                Verdict::Incomplete => {}
                Verdict::Complete => this.waits = None,
                Verdict::Http2 => {
                    tracing::info!("a client that speaks HTTP/2 is sent away");
                    // What is left unread would make a reset of the end, and the client might not hear why.
                    let mut rest = [0; 1024];
                    let _ =
                        Pin::new(&mut this.stream).poll_read(context, &mut ReadBuf::new(&mut rest));
                    // There is room for it in a connection on which nothing was written.
                    let _ = Pin::new(&mut this.stream).poll_write(context, GO_AWAY);
                    let _ = Pin::new(&mut this.stream).poll_flush(context);
                    return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                }
            }
            return said;
        }
        match waits.deadline.as_mut().poll(context) {
            Poll::Ready(()) => {
                tracing::info!("a client asked for nothing in time; its connection is closed");
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_ends_with_its_first_empty_line_however_its_bytes_come() {
        for (text, verdict) in [
            ("GET / HTTP/1.1\r\nhost: a\r\n\r\nbody", Verdict::Complete),
            ("GET / HTTP/1.1\n\n", Verdict::Complete),
            ("GET / HTTP/1.1\r\nhost: a\r\n", Verdict::Incomplete),
            ("\r\n\r\n\r\nGET / HTTP/1.1\r\n", Verdict::Incomplete),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Verdict::Http2),
            ("PRINT / HTTP/1.1\r\n\r\n", Verdict::Complete),
            ("APRI * HTTP/1.1\r\n\r\n", Verdict::Complete),
            ("PR", Verdict::Incomplete),
        ] {
            assert_eq!(Head::default().take(text.as_bytes()), verdict, "{text:?}");
            let mut head = Head::default();
            let mut bytes = text.as_bytes().chunks(1).map(|byte| head.take(byte));
            let told = bytes.find(|it| *it != Verdict::Incomplete).unwrap_or(Verdict::Incomplete);
            assert_eq!(told, verdict, "{text:?}");
        }
    }
}
