//! How far one command's output is in the log: told by the writer, heard by who tells the guest what to forget.

use std::sync::Arc;

use ovenbird_contract::log::Resume;
use tokio::sync::watch;

use super::output::Marks;

/// How much of one detached command's output is durable.
#[derive(Debug, Clone)]
pub struct Progress {
    shared: Arc<(String, watch::Sender<u64>)>,
    background: bool,
}

impl Progress {
    /// Nothing below `from` has to be acknowledged any more.
    pub fn new(exec_id: impl Into<String>, from: u64) -> Self {
        Self { shared: Arc::new((exec_id.into(), watch::Sender::new(from))), background: false }
    }

    /// The command runs beside those after it.
    #[must_use]
    pub fn in_background(mut self) -> Self {
        self.background = true;
        self
    }

    /// Whether it does.
    pub fn is_background(&self) -> bool {
        self.background
    }

    /// The command.
    pub fn exec_id(&self) -> &str {
        &self.shared.0
    }

    /// The offset below which everything is in the log, or cut.
    pub fn durable(&self) -> watch::Receiver<u64> {
        self.shared.1.subscribe()
    }

    /// What is cut below `upto` need not be told of before the guest may forget it. All that is to be in the log
    /// must be there.
    pub fn forget(&self, upto: u64) {
        self.shared.1.send_if_modified(|durable| {
            let is_more = *durable < upto;
            *durable = upto.max(*durable);
            is_more
        });
    }

    pub(super) fn advance(&self, marks: Marks) {
        self.forget(marks.low());
    }

    /// Where another runner goes on.
    pub(super) fn resume(&self, step: u32, marks: Marks) -> Resume {
        Resume {
            exec_id: self.exec_id().to_owned(),
            stdout: marks.stdout,
            stderr: marks.stderr,
            stdout_open: marks.stdout_open,
            stderr_open: marks.stderr_open,
            step,
            background: self.background,
            logged: marks.logged,
            cut: marks.cut,
        }
    }
}
