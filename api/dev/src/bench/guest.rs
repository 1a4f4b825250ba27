//! The guest's port without an agent in between: HELLO, then gRPC, straight over the machine's socket.
//!
//! This is the channel of the benchmark's floor. It does what the agent's own link does and nothing besides:
//! no reconnecting, no supervision.

use std::{
    fs::File,
    io::{self, Cursor},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use hyper_util::rt::TokioIo;
use ovenbird_guest_protocol::{
    Arrival, CONNECTION_WINDOW, Hello, MESSAGE_MAX, PROTOCOL, Reply, STREAM_WINDOW, Search, Token,
    WRITE_CHUNK_MAX,
    v1::{
        self as guest, attach_exec_response::Event, guest_service_client::GuestServiceClient,
        read_file_response, write_file_request::Content,
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::UnixStream,
    time::{Instant, sleep, timeout},
};
use tonic::transport::{Channel, Endpoint};

/// One HELLO waits as long as the agent's.
const REPLY_WITHIN: Duration = Duration::from_millis(250);
/// Between two dials, likewise.
const REDIAL_AFTER: Duration = Duration::from_millis(20);
/// For a guest to answer at all.
const READY: Duration = Duration::from_secs(180);
/// For it to end its processes, as the agent grants it.
const SHUTDOWN_GRACE_MS: u64 = 2_000;

/// A folder's path that is short enough for a socket's address, valid as long as this value.
#[derive(Debug)]
pub(super) struct ShortPath(File);

impl ShortPath {
    pub(super) fn of(dir: &Path) -> io::Result<Self> {
        Ok(Self(File::open(dir)?))
    }

    pub(super) fn join(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd()))
    }
}

/// A guest that answered.
#[derive(Debug, Clone)]
pub(super) struct Guest {
    client: GuestServiceClient<Channel>,
}

impl Guest {
    /// Dials until the guest has replied to HELLO and answered a first call.
    pub(super) async fn connect(
        socket: &Path,
        token: Token,
        arrival: Arrival,
    ) -> anyhow::Result<Self> {
        let deadline = Instant::now() + READY;
        let stream = loop {
            match shake_hands(socket, token, arrival).await {
                Ok(stream) => break stream,
                Err(error) if Instant::now() > deadline => {
                    return Err(error.context("a bare guest does not answer"));
                }
                Err(_) => sleep(REDIAL_AFTER).await,
            }
        };
        let client = GuestServiceClient::new(channel(stream).await?)
            .max_decoding_message_size(MESSAGE_MAX)
            .max_encoding_message_size(MESSAGE_MAX);
        let guest = Self { client };
        guest.client.clone().info(guest::InfoRequest {}).await?;
        Ok(guest)
    }

    /// Runs a program to its end.
    pub(super) async fn exec(&self, cmd: &str, args: &[&str]) -> anyhow::Result<()> {
        let exec_id = format!("bench.{:x}", rand::random::<u64>());
        let mut client = self.client.clone();
        let request = guest::StartExecRequest {
            exec_id: exec_id.clone(),
            cmd: cmd.to_owned(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            context: None,
            timeout_ms: 30_000,
        };
        client.start_exec(request).await?;
        let request = guest::AttachExecRequest { exec_id, from_offset: 0, auto_ack: true };
        let mut events = client.attach_exec(request).await?.into_inner();
        while let Some(event) = events.message().await? {
            if let Some(Event::End(end)) = event.event {
                anyhow::ensure!(end.exit_code == 0, "{cmd} ended with {}", end.exit_code);
                return Ok(());
            }
        }
        anyhow::bail!("{cmd} did not end")
    }

    /// Writes a file of `bytes`.
    pub(super) async fn write(&self, path: &str, bytes: usize) -> anyhow::Result<()> {
        let meta = guest::WriteFileMeta {
            path: path.to_owned(),
            mode: 0,
            user: String::new(),
            make_parents: false,
            sync: false,
            keep_owner: false,
            unpack: None,
        };
        let chunk = bytes::Bytes::from(super::noise(WRITE_CHUNK_MAX));
        let chunks = super::chunks(bytes, WRITE_CHUNK_MAX)
            .map(move |length| Content::Chunk(chunk.slice(..length)));
        let messages = std::iter::once(Content::Meta(meta))
            .chain(chunks)
            .map(|content| guest::WriteFileRequest { content: Some(content) });
        let answer = self.client.clone().write_file(tokio_stream::iter(messages)).await?;
        anyhow::ensure!(answer.into_inner().size == bytes as u64, "{path} was written in part");
        Ok(())
    }

    /// Reads a file of `bytes`.
    pub(super) async fn read(&self, path: &str, bytes: usize) -> anyhow::Result<()> {
        let request =
            guest::ReadFileRequest { path: path.to_owned(), max_bytes: 0, ..Default::default() };
        let mut messages = self.client.clone().read_file(request).await?.into_inner();
        let mut read = 0;
        while let Some(message) = messages.message().await? {
            if let Some(read_file_response::Content::Chunk(chunk)) = message.content {
                read += chunk.len();
            }
        }
        anyhow::ensure!(read == bytes, "{path} was read in part: {read} bytes");
        Ok(())
    }

    /// Lets it write what is dirty.
    pub(super) async fn sync(&self) -> anyhow::Result<()> {
        self.client.clone().sync(guest::SyncRequest {}).await?;
        Ok(())
    }

    /// Lets it turn itself off.
    pub(super) async fn shut_down(&self) {
        let request = guest::ShutdownRequest { grace_ms: SHUTDOWN_GRACE_MS };
        // Its answer can be lost in its end, which is what counts.
        let _ = self.client.clone().shutdown(request).await;
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn shake_hands(
    socket: &Path,
    token: Token,
    arrival: Arrival,
) -> anyhow::Result<Box<dyn Stream>> {
    let mut stream = UnixStream::connect(socket).await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let hello = Hello {
        protocol: PROTOCOL,
        arrival,
        nonce: rand::random(),
        unix_nanos: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
        entropy: rand::random(),
    };
    stream.write_all(&hello.encode(&token)).await?;
    timeout(REPLY_WITHIN, reply(hello.nonce, stream)).await.context("no reply to HELLO")?
}

async fn reply(nonce: [u8; 16], mut stream: UnixStream) -> anyhow::Result<Box<dyn Stream>> {
    let mut received = Vec::with_capacity(4096);
    loop {
        anyhow::ensure!(stream.read_buf(&mut received).await? > 0, "the guest's port was closed");
        match Reply::search(&nonce, &received) {
            Search::Found { end, .. } => {
                // The guest's HTTP/2 begins right behind its reply.
                let rest = Cursor::new(received.split_off(end));
                let (read, write) = stream.into_split();
                return Ok(Box::new(tokio::io::join(rest.chain(read), write)));
            }
            Search::More { discard } => drop(received.drain(..discard)),
        }
    }
}

/// A channel over this one connection.
async fn channel(stream: Box<dyn Stream>) -> anyhow::Result<Channel> {
    let stream = Mutex::new(Some(stream));
    let connector = tower::service_fn(move |_| {
        let stream = stream.lock().ok().and_then(|mut stream| stream.take());
        async move {
            stream.map(TokioIo::new).ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))
        }
    });
    // The name is never looked up: the connector has the connection.
    let channel = Endpoint::from_static("http://guest.invalid")
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_adaptive_window(false)
        .connect_with_connector(connector)
        .await?;
    Ok(channel)
}
