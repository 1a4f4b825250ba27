//! The whole agent on a host whose disks are dm snapshots: in a VM, since many kernels have no device-mapper.
//!
//! The VM's first process is this very program. Its disk holds what an agent's host has: QEMU, the agent, the guest's
//! kernel and initramfs, a template. So a microVM boots in a microVM, both of them emulated, which takes minutes:
//! `cargo dev test --all` runs it.

#![allow(clippy::unwrap_used)] // in helpers of tests, as in tests

mod inside;
mod outside;
#[path = "../agent/support.rs"]
#[allow(dead_code)]
mod support;
#[path = "../../host/tests/vm/mod.rs"]
mod vm;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    if std::process::id() == 1 {
        return inside::run();
    }
    let trial = Trial::test("agent_with_dm_snapshots_creates_flattens_and_destroys", || {
        outside::boot().map_err(|error| error.to_string().into())
    })
    .with_ignored_flag(std::env::var_os("OVENBIRD_TEST_ALL").is_none());
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit_code()
}
