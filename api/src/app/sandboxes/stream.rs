//! A command in a sandbox, followed as it writes.
//!
//! One task per follower reads the host's stream, and one bounded queue holds what the client did not take yet. A
//! client whose queue stays full is cut off: its command is killed, as if it had hung up, and nobody else's waits.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use ovenbird_agent_client::{CallEvent, CallEvents, Error as AgentError, OutputStream};
use ovenbird_contract::id::SandboxId;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::{
    InUse, Text,
    exec::{Ran, cut_short},
    text::Pieces,
};
use crate::app::{App, Error, keys::Caller, places::Place};

/// What a follower gets.
#[derive(Debug)]
pub enum Item {
    /// It runs, under this process id.
    Started(u32),
    /// It wrote to its standard output.
    Stdout(Text),
    /// It wrote to its standard error.
    Stderr(Text),
    /// It ended; nothing follows.
    Ended {
        /// 128 + signal when a signal ended it; absent when its time was over.
        exit_code: Option<i32>,
        /// It was killed with its children because its time was over.
        timed_out: bool,
        /// Why it could not be started, or which limit it ran into.
        error: Option<String>,
    },
    /// Its sandbox or host did not let it end; nothing follows.
    Failed(Error),
    /// Nothing more comes, because the client took too long; the command is killed.
    CutOff,
    /// Nothing more comes, because this process stops; the command is killed.
    Stopping,
}

/// The receiving end. The command is killed when it is dropped.
#[derive(Debug)]
pub struct Output {
    items: mpsc::Receiver<Item>,
    is_cut_off: Arc<OnceLock<()>>,
    ended: bool,
    task: JoinHandle<()>,
}

impl Output {
    /// The next item; `None` after the last one.
    pub async fn next(&mut self) -> Option<Item> {
        if self.ended {
            return None;
        }
        if let Some(item) = self.items.recv().await {
            self.ended = matches!(item, Item::Ended { .. } | Item::Failed(_));
            return Some(item);
        }
        self.ended = true;
        Some(if self.is_cut_off.get().is_some() { Item::CutOff } else { Item::Stopping })
    }
}

impl Drop for Output {
    /// The task has nothing to undo: the host kills a command that nobody follows.
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl App {
    /// Runs a command and follows it.
    ///
    /// # Errors
    /// [`Error::TooManyStreams`]; as for a command that is waited for. Later ones come with the items.
    pub async fn sandbox_exec_stream(
        &self,
        caller: &Caller,
        id: SandboxId,
        ran: Ran,
    ) -> Result<Output, Error> {
        let place = self.sandboxes.streams.take(caller.key).ok_or(Error::TooManyStreams)?;
        let (sandbox, events) = self.exec_begin(caller, id, &ran).await?;
        let (out, items) = mpsc::channel(self.sandboxes.limits.queue_events);
        let is_cut_off = Arc::new(OnceLock::new());
        let task = Task {
            sandbox,
            events,
            out,
            is_cut_off: Arc::clone(&is_cut_off),
            patience: self.sandboxes.slow_client_timeout,
            stopping: self.sandboxes.stopping.clone(),
            _place: place,
        };
        let span = tracing::info_span!("command", sandbox.id = %id);
        let task = tokio::spawn(task.run().instrument(span));
        Ok(Output { items, is_cut_off, ended: false, task })
    }
}

struct Task {
    sandbox: InUse,
    events: CallEvents,
    out: mpsc::Sender<Item>,
    is_cut_off: Arc<OnceLock<()>>,
    patience: Duration,
    stopping: CancellationToken,
    _place: Place,
}

/// The task sends no more.
struct Stop;

impl Task {
    async fn run(mut self) {
        let (stopping, out) = (self.stopping.clone(), self.out.clone());
        tokio::select! {
            () = stopping.cancelled() => {}
            () = out.closed() => {}
            _ = self.follow() => {}
        }
    }

    async fn follow(&mut self) -> Result<(), Stop> {
        let (mut stdout, mut stderr) = (Pieces::default(), Pieces::default());
        let last = loop {
            match self.events.next().await {
                Some(Ok(CallEvent::Started { pid })) => self.send(Item::Started(pid)).await?,
                Some(Ok(CallEvent::Output { stream, data })) => {
                    let item = match stream {
                        OutputStream::Stdout => stdout.next(data).map(Item::Stdout),
                        OutputStream::Stderr => stderr.next(data).map(Item::Stderr),
                    };
                    if let Some(item) = item {
                        self.send(item).await?;
                    }
                }
                Some(Ok(CallEvent::End { exit_code, error })) => {
                    break Item::Ended { exit_code: Some(exit_code), timed_out: false, error };
                }
                Some(Err(AgentError::DeadlineExceeded { message })) => {
                    break Item::Ended { exit_code: None, timed_out: true, error: Some(message) };
                }
                Some(Err(error)) => {
                    break Item::Failed(self.sandbox.explain(error, "the command").await);
                }
                None => break Item::Failed(cut_short()),
            }
        };
        let rest = [stdout.rest().map(Item::Stdout), stderr.rest().map(Item::Stderr), Some(last)];
        for item in rest.into_iter().flatten() {
            self.send(item).await?;
        }
        Ok(())
    }

    /// Hands an item over, at the client's pace but not slower than allowed.
    async fn send(&self, item: Item) -> Result<(), Stop> {
        match self.out.send_timeout(item, self.patience).await {
            Ok(()) => Ok(()),
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(Stop),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                tracing::info!("a client reads too slowly and is cut off");
                // Set once, here: the task ends with it.
                let _ = self.is_cut_off.set(());
                Err(Stop)
            }
        }
    }
}
