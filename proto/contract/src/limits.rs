//! Bounds that more than one process keeps. A number here has its reason beside it.

/// Text of one log record, in bytes; a longer line goes out in parts (`cont`).
pub const LOG_RECORD_TEXT_MAX: usize = 16 * 1024;
/// A batch of log records leaves at this many bytes of text.
pub const LOG_BATCH_BYTES: usize = 16 * 1024;
/// As much of a command as stands in an event, a log line or a reason, in bytes: escaped as JSON it still
/// fits in the stream's messages. The whole command is in the recipe.
pub const COMMAND_SHOWN_MAX: usize = 2 * 1024;
/// A line that waits for its end goes out in parts after this long, in milliseconds.
pub const LOG_PARTIAL_LINE_MS: u64 = 1_000;
/// How much of a step's stdout, and of its stderr, stands in the build row: this much of its head and
/// this much of its tail, in bytes. The whole output is in the log.
pub const STEP_OUTPUT_KEPT: usize = 4 * 1024;
/// Attempts that may be lost without a step's progress before a build ends as failed.
pub const ATTEMPTS_MAX: u32 = 3;
