//! A VM that is a host itself: for what needs a kernel of its own.
//!
//! Its first process is the test's own program, which tells by that where it is. The machine ends with the outcome
//! as its exit code.

pub(crate) mod inside;
pub(crate) mod outside;

/// Where the kernel's modules lie, named in load order.
const MODULES: &str = "/modules";
/// What the machine ends with when all is well, and when it is not.
const PASSED: u8 = 21;
const FAILED: u8 = 22;
/// The port of QEMU's `isa-debug-exit`.
const EXIT_PORT: u16 = 0xf4;
