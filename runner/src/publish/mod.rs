//! What a build tells the world while it runs: log records and events.
//!
//! ```text
//! attach stream ─► Output (lines, marks) ─► Cap ─► Log (bounded) ─► Writer ─► LOGS     one publish in flight
//!                                            │       ▲                └──► durable offset ─┬─► AckExec
//!                                            │ system lines                               │
//!                                            └─ what is cut ──────────────────────────────┘
//! ```
//!
//! Within the caps everything is held back rather than dropped: while a publish is not acknowledged the buffer fills,
//! the attach stream is not read, the guest's buffer fills, and the command waits. What is over them is cut, and
//! costs neither the command nor the log any time.

mod batch;
mod cap;
mod event;
mod excerpt;
mod log;
mod output;
mod progress;
mod split;
mod standing;

pub use cap::{Budget, Cap, Capped};
pub use event::{Events, GaveUp};
pub use excerpt::{Excerpt, Tail};
pub use log::{Closed, Log, WriteError, Writer, WriterConfig};
pub use output::{Marks, Output, OutputLine};
pub use progress::Progress;
pub use split::{Part, Splitter};
pub use standing::Note;
