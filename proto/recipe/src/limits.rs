//! The bounds of the recipe language. Each number has its reason beside it.
//!
//! Bounds that need a host's capacity (memory, disks) are not here: they are the api's and the desk's.

/// Longest recipe, in steps.
pub const STEPS_MAX: usize = 200;
/// Longest line in bytes: as submitted, after its continuations are joined, and as printed. Far below the
/// 128 KiB that Linux allows for one argument of a program, and a step's command is one argument.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// Diagnostics of one submission; the rest is left out, and the last diagnostic says so.
pub const DIAGNOSTICS_MAX: usize = 500;
/// Default time of one try of `RUN`, in milliseconds.
pub const RUN_TIMEOUT_DEFAULT_MS: u64 = 10 * 60 * 1000;
/// Longest time of one try of `RUN`, in milliseconds.
pub const RUN_TIMEOUT_MAX_MS: u64 = 60 * 60 * 1000;
/// Most retries of `RUN` (tries after the first).
pub const RUN_RETRIES_MAX: u32 = 10;
/// Most secrets of one `RUN`.
pub const RUN_SECRETS_MAX: usize = 16;
/// Shortest pause between two attempts of a healthcheck, in milliseconds: less than this is a busy loop.
pub const HEALTH_INTERVAL_MIN_MS: u64 = 100;
/// Shortest time of one attempt of a healthcheck, in milliseconds: less than this is less than it takes
/// to start a shell in a busy guest.
pub const HEALTH_TIMEOUT_MIN_MS: u64 = 100;
/// Longest interval and longest time of one attempt, in milliseconds.
pub const HEALTH_ATTEMPT_MAX_MS: u64 = 10 * 60 * 1000;
/// Most attempts of a healthcheck after the start period.
pub const HEALTH_RETRIES_MAX: u32 = 1000;
/// Longest overall deadline of a healthcheck, in milliseconds.
pub const HEALTH_DEADLINE_MAX_MS: u64 = 60 * 60 * 1000;
/// Longest path in bytes (`PATH_MAX` of Linux, its end included).
pub const PATH_BYTES_MAX: usize = 4095;
/// Longest name of a user or group in bytes, as `useradd` has it.
pub const USER_NAME_MAX: usize = 32;
/// Longest name of a secret, in bytes.
pub const SECRET_NAME_MAX: usize = 64;
/// Longest text after expansion in bytes: `B=$A$A`, `C=$B$B` and so on double with each step.
pub const EXPANDED_BYTES_MAX: usize = 64 * 1024;
/// Largest environment after expansion in bytes, names included: Linux allows 2 MiB for arguments and
/// environment of a program together.
pub const ENVIRONMENT_BYTES_MAX: usize = 1024 * 1024;
