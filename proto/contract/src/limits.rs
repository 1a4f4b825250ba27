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
/// this much of its tail, in bytes. More of it is in the log.
pub const STEP_OUTPUT_KEPT: usize = 4 * 1024;
/// Head of one step's output that goes into the log, in bytes, where the bridge does not say otherwise. Some 100 000
/// lines: more than anybody reads, and as much as a viewer can still load whole.
pub const LOG_STEP_BYTES: u64 = 8 * 1024 * 1024;
/// Heads of all steps of a build together, in the same way: what one build may cost the log's stream and Postgres.
pub const LOG_BUILD_BYTES: u64 = 64 * 1024 * 1024;
/// Each command has a head of this much, in bytes, however much was logged before it: enough to see what it is.
pub const LOG_HEAD_BYTES_MIN: u64 = 16 * 1024;
/// The end of a command's output that goes into the log behind its head, in bytes. It waits for the command's end in
/// the guest, whose buffer holds four times as much, so that another runner can read it there.
pub const LOG_TAIL_BYTES: usize = 64 * 1024;
/// Head of one line that goes into the log, in bytes: 16 records. Viewers and terminals choke on longer ones.
pub const LOG_LINE_BYTES: u64 = 256 * 1024;
/// A build that runs for longer, all its attempts and what lies between them together, ends as failed, where the
/// bridge does not say otherwise, in seconds: twice what one step may take.
pub const BUILD_SECONDS_MAX: u64 = 2 * 60 * 60;
/// Attempts that may be lost without a step's progress before a build ends as failed.
pub const ATTEMPTS_MAX: u32 = 3;
