//! QEMU's control socket: one command at a time, each with a deadline, and the one event that matters.
//!
//! The other side is not trusted: lines are bounded, and what is not understood is passed over.

use std::{io, path::Path, time::Duration};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Mutex, mpsc, watch},
    task::JoinHandle,
    time::{Instant, timeout_at},
};

/// The longest line that is read, in bytes: the whole console in base64 fits.
const LINE_MAX: u64 = 256 * 1024;

/// A command did not succeed.
#[derive(Debug)]
pub(super) enum Error {
    Refused(String),
    Late(Duration),
    Closed,
}

impl From<io::Error> for Error {
    /// A socket that fails and one that is closed mean the same: QEMU is gone, and its log says why.
    fn from(_: io::Error) -> Self {
        Self::Closed
    }
}

/// One line of QEMU's.
#[derive(Debug, Deserialize)]
struct Line {
    #[serde(rename = "return")]
    returned: Option<Value>,
    error: Option<Refusal>,
    event: Option<String>,
    id: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    desc: String,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Qmp {
    commands: Mutex<Commands>,
    shut_down: watch::Sender<bool>,
    reader: JoinHandle<()>,
}

#[derive(Debug)]
struct Commands {
    socket: OwnedWriteHalf,
    answers: mpsc::Receiver<Line>,
    last_id: u64,
}

impl Qmp {
    /// Connects and leaves negotiation mode.
    pub(super) async fn connect(path: &Path, patience: Duration) -> Result<Self, Error> {
        let (read, socket) = UnixStream::connect(path).await?.into_split();
        let (answer, answers) = mpsc::channel(4);
        let shut_down = watch::Sender::new(false);
        let reader = tokio::spawn(read_lines(read, answer, shut_down.clone()));
        let commands = Mutex::new(Commands { socket, answers, last_id: 0 });
        let qmp = Self { commands, shut_down, reader };
        qmp.execute("qmp_capabilities", json!({}), patience).await?;
        Ok(qmp)
    }

    /// Runs one command and returns what it answers.
    pub(super) async fn execute(
        &self,
        command: &str,
        arguments: Value,
        patience: Duration,
    ) -> Result<Value, Error> {
        let deadline = Instant::now() + patience;
        let run = async {
            let mut commands = self.commands.lock().await;
            commands.last_id += 1;
            let id = commands.last_id;
            let line = json!({ "execute": command, "arguments": arguments, "id": id });
            commands.socket.write_all(format!("{line}\n").as_bytes()).await?;
            loop {
                let line = commands.answers.recv().await.ok_or(Error::Closed)?;
                // An answer to a command that was given up on comes late.
                if line.id != Some(id) {
                    continue;
                }
                return match line.error {
                    Some(refusal) => Err(Error::Refused(refusal.desc)),
                    None => Ok(line.returned.unwrap_or_default()),
                };
            }
        };
        timeout_at(deadline, run).await.unwrap_or(Err(Error::Late(patience)))
    }

    /// Waits until the guest has turned itself off. Never returns when QEMU ends first.
    pub(super) async fn shut_down(&self) {
        // The sender is this one's own, so it cannot be gone.
        let _ = self.shut_down.subscribe().wait_for(|down| *down).await;
    }

    /// Notes that the guest had turned itself off before this connection was made.
    pub(super) fn note_shut_down(&self) {
        self.shut_down.send_replace(true);
    }
}

impl Drop for Qmp {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Ends at the end of the socket, which comes with that of QEMU, or when [`Qmp`] is dropped.
async fn read_lines(
    socket: OwnedReadHalf,
    answers: mpsc::Sender<Line>,
    shut_down: watch::Sender<bool>,
) {
    let mut socket = BufReader::new(socket);
    let mut text = Vec::new();
    loop {
        text.clear();
        match (&mut socket).take(LINE_MAX).read_until(b'\n', &mut text).await {
            Ok(1..) if text.ends_with(b"\n") => {}
            _ => return,
        }
        let Ok(line) = serde_json::from_slice::<Line>(&text) else { continue };
        if line.event.as_deref() == Some("SHUTDOWN") {
            shut_down.send_replace(true);
        }
        if line.id.is_some() && answers.send(line).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    /// Answers each command with the next of `answers`, after the greeting.
    async fn connected(answers: &'static [&'static str]) -> (Qmp, JoinHandle<()>) {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("qmp.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let other_side = tokio::spawn(async move {
            let (socket, _) = listener.accept().await.unwrap();
            let (read, mut write) = socket.into_split();
            write.write_all(b"{\"QMP\": {\"version\": {}}}\n").await.unwrap();
            let mut lines = BufReader::new(read).lines();
            lines.next_line().await.unwrap();
            write.write_all(b"{\"return\": {}, \"id\": 1}\n").await.unwrap();
            for answer in answers {
                lines.next_line().await.unwrap();
                write.write_all(answer.as_bytes()).await.unwrap();
            }
            let _ = lines.next_line().await;
        });
        let qmp = Qmp::connect(&path, PATIENCE).await.unwrap();
        (qmp, other_side)
    }

    #[tokio::test]
    async fn late_answers_noise_and_events_are_told_from_the_answer() {
        let (qmp, _other) = connected(&["{\"event\": \"STOP\"}\nnoise\n\
             {\"return\": 1, \"id\": 1}\n{\"return\": 7, \"id\": 2}\n{\"event\": \"SHUTDOWN\"}\n"])
        .await;
        let answer = qmp.execute("stop", json!({}), PATIENCE).await.unwrap();
        assert_eq!(answer, json!(7));
        tokio::time::timeout(PATIENCE, qmp.shut_down()).await.unwrap();
    }

    #[tokio::test]
    async fn refusal_carries_the_words() {
        let (qmp, _other) =
            connected(&["{\"error\": {\"class\": \"X\", \"desc\": \"no\"}, \"id\": 2}\n"]).await;
        let error = qmp.execute("migrate", json!({}), PATIENCE).await.unwrap_err();
        assert!(matches!(error, Error::Refused(text) if text == "no"));
    }

    #[tokio::test]
    async fn silence_ends_at_the_deadline_and_a_hang_up_at_once() {
        let (qmp, other) = connected(&[""]).await;
        let error = qmp.execute("stop", json!({}), Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(error, Error::Late(_)));
        other.abort();
        let error = qmp.execute("stop", json!({}), PATIENCE).await.unwrap_err();
        assert!(matches!(error, Error::Closed), "{error:?}");
    }
}
