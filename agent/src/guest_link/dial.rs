//! Dials a guest and shakes hands with it, again and again until it answers or the time is over.

use std::{
    io,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::{Buf, BytesMut};
use ovenbird_guest_protocol::{Arrival, Hello, PROTOCOL, PROTOCOL_OLDEST, Reply, Search, Token};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::stream::GuestStream;

/// How long one HELLO waits for its reply. It also waits in the socket's buffer while the guest still
/// boots, so this is no polling interval: a guest that comes up answers at once.
const REPLY_WITHIN: Duration = Duration::from_millis(250);
/// Between two dials.
const REDIAL_AFTER: Duration = Duration::from_millis(20);
/// What a guest may send before its reply: what was on its way when an older session was cut. More is
/// a guest that talks nonsense without end.
const STALE_MAX: usize = 64 * 1024 * 1024;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The deadline passed.
    #[error("the guest did not answer within {} ms", waited.as_millis())]
    NotAnswered {
        /// From the first dial.
        waited: Duration,
        /// What went wrong last.
        #[source]
        last: Option<DialError>,
    },
    /// A template of a time that is no longer supported: it has to be built again.
    #[error("the guest speaks protocol {protocol}, and {PROTOCOL_OLDEST} is the oldest supported")]
    TooOld {
        /// The guest's number.
        protocol: u16,
    },
    /// The link was closed from this side meanwhile.
    #[error("the link to the guest was closed")]
    Closed,
    /// HTTP/2 did not start on a connection that had shaken hands.
    #[error("HTTP/2 to the guest did not start")]
    Channel(#[source] tonic::transport::Error),
}

/// Why one dial failed.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The VM's process is not there, or it went away.
    #[error("the VM's serial socket failed")]
    Socket(#[from] io::Error),
    /// Nothing came back in time.
    #[error("no reply to HELLO")]
    NoReply,
}

/// Where one session of a link dials.
#[derive(Debug)]
pub(super) struct Dialer {
    pub(super) socket: PathBuf,
    pub(super) token: Token,
    /// Cancelled when the link goes on to another session.
    pub(super) closed: CancellationToken,
}

impl Dialer {
    /// Dials until the guest has replied.
    pub(super) async fn dial(
        &self,
        arrival: Arrival,
        deadline: Instant,
    ) -> Result<GuestStream, Error> {
        let started = Instant::now();
        let mut last = None;
        let dials = async {
            loop {
                let (reply, stream) = match self.once(arrival).await {
                    Ok(answered) => answered,
                    Err(error) => {
                        last = Some(error);
                        sleep(REDIAL_AFTER).await;
                        continue;
                    }
                };
                if reply.protocol < PROTOCOL_OLDEST {
                    return Err(Error::TooOld { protocol: reply.protocol });
                }
                return Ok(stream);
            }
        };
        let ended = tokio::select! {
            ended = timeout_at(deadline, dials) => ended,
            () = self.closed.cancelled() => return Err(Error::Closed),
        };
        match ended {
            Ok(result) => result,
            Err(_) => Err(Error::NotAnswered { waited: started.elapsed(), last }),
        }
    }

    async fn once(&self, arrival: Arrival) -> Result<(Reply, GuestStream), DialError> {
        let mut socket = timeout(REPLY_WITHIN, UnixStream::connect(&self.socket))
            .await
            .map_err(|_| DialError::NoReply)??;
        let hello = Hello {
            protocol: PROTOCOL,
            arrival,
            nonce: rand::random(),
            unix_nanos: unix_nanos(),
            entropy: rand::random(),
        };
        socket.write_all(&hello.encode(&self.token)).await?;
        timeout(REPLY_WITHIN, self.reply(hello.nonce, socket))
            .await
            .map_err(|_| DialError::NoReply)?
    }

    /// Reads up to the reply to this nonce, and keeps what came after it: the guest's HTTP/2 begins
    /// at once.
    async fn reply(
        &self,
        nonce: [u8; 16],
        mut socket: UnixStream,
    ) -> Result<(Reply, GuestStream), DialError> {
        let mut received = BytesMut::with_capacity(4096);
        let mut stale = 0;
        loop {
            if socket.read_buf(&mut received).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            match Reply::search(&nonce, &received) {
                Search::Found { frame, end } => {
                    received.advance(end);
                    let rest = received.freeze();
                    return Ok((frame, GuestStream::new(socket, rest, self.closed.clone())));
                }
                Search::More { discard } => {
                    received.advance(discard);
                    stale += discard;
                }
            }
            if stale > STALE_MAX {
                return Err(DialError::NoReply);
            }
        }
    }
}

/// The wall clock as the guest is told it.
pub(crate) fn unix_nanos() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    const TOKEN: Token = Token::new([9; 16]);

    fn dialer(folder: &tempfile::TempDir) -> (Dialer, UnixListener) {
        let socket = folder.path().join("guest.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        (Dialer { socket, token: TOKEN, closed: CancellationToken::new() }, listener)
    }

    async fn read_hello(peer: &mut UnixStream) -> Hello {
        let mut bytes = Vec::new();
        loop {
            peer.read_buf(&mut bytes).await.unwrap();
            if let Search::Found { frame, .. } = Hello::search(&TOKEN, &bytes) {
                return frame;
            }
        }
    }

    fn soon(seconds: u64) -> Instant {
        Instant::now() + Duration::from_secs(seconds)
    }

    #[tokio::test]
    async fn reply_is_found_behind_stale_bytes_and_what_follows_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (dialer, listener) = dialer(&folder);
        let guest = async {
            let (mut peer, _) = listener.accept().await.unwrap();
            let nonce = read_hello(&mut peer).await.nonce;
            let reply = Reply { protocol: PROTOCOL, nonce, boot_id: [1; 16] }.encode();
            let sent = [&[7; 5000][..], &reply, b"after"].concat();
            peer.write_all(&sent).await.unwrap();
            peer
        };
        let (stream, _peer) = tokio::join!(dialer.dial(Arrival::Running, soon(10)), guest);
        let mut after = [0; 5];
        stream.unwrap().read_exact(&mut after).await.unwrap();
        assert_eq!(&after, b"after");
    }

    #[tokio::test]
    async fn guest_that_misses_the_first_hello_is_dialled_again() {
        let folder = tempfile::tempdir().unwrap();
        let (dialer, listener) = dialer(&folder);
        let guest = async {
            let (first, _) = listener.accept().await.unwrap();
            let (mut second, _) = listener.accept().await.unwrap();
            drop(first);
            let nonce = read_hello(&mut second).await.nonce;
            let reply = Reply { protocol: PROTOCOL, nonce, boot_id: [1; 16] };
            second.write_all(&reply.encode()).await.unwrap();
            second
        };
        let (stream, _peer) = tokio::join!(dialer.dial(Arrival::Running, soon(10)), guest);
        stream.unwrap();
    }

    #[tokio::test]
    async fn silent_guest_is_given_up_at_the_deadline_with_the_last_reason() {
        let folder = tempfile::tempdir().unwrap();
        let (dialer, _listener) = dialer(&folder);
        let deadline = Instant::now() + Duration::from_millis(400);
        let error = dialer.dial(Arrival::Running, deadline).await.unwrap_err();
        assert!(
            matches!(error, Error::NotAnswered { last: Some(DialError::NoReply), .. }),
            "{error:?}"
        );
    }

    #[tokio::test]
    async fn guest_below_the_oldest_protocol_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (dialer, listener) = dialer(&folder);
        let guest = async {
            let (mut peer, _) = listener.accept().await.unwrap();
            let nonce = read_hello(&mut peer).await.nonce;
            let reply = Reply { protocol: 0, nonce, boot_id: [1; 16] };
            peer.write_all(&reply.encode()).await.unwrap();
            peer
        };
        let (stream, _peer) = tokio::join!(dialer.dial(Arrival::Running, soon(10)), guest);
        assert!(matches!(stream, Err(Error::TooOld { protocol: 0 })));
    }

    #[tokio::test]
    async fn closing_the_link_ends_a_dial_and_a_stream() {
        let folder = tempfile::tempdir().unwrap();
        let (dialer, listener) = dialer(&folder);
        let guest = async {
            let (mut peer, _) = listener.accept().await.unwrap();
            let nonce = read_hello(&mut peer).await.nonce;
            let reply = Reply { protocol: PROTOCOL, nonce, boot_id: [1; 16] };
            peer.write_all(&reply.encode()).await.unwrap();
            peer
        };
        let (stream, _peer) = tokio::join!(dialer.dial(Arrival::Running, soon(10)), guest);
        dialer.closed.cancel();
        let read = stream.unwrap().read_u8().await.unwrap_err();
        assert_eq!(read.kind(), io::ErrorKind::ConnectionAborted);
        assert!(matches!(dialer.dial(Arrival::Running, soon(10)).await, Err(Error::Closed)));
    }
}
