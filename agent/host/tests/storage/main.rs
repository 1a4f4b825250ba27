//! One suite of what a driver of disks does, run against each of them.
//!
//! ```text
//!  copy::<behaviour>          on the file system of the temporary folder
//!  reflink::<behaviour>       on an XFS that is made for it
//!  dm_snapshot::in_a_vm       the whole suite and more, in a test VM: many kernels have no device-mapper
//! ```
//!
//! The VM's first process is this very program.

#![allow(clippy::unwrap_used)] // in helpers of tests, as in tests

mod contract;
mod dm;
mod in_a_vm;
mod stage;
#[path = "../vm/mod.rs"]
mod vm;
mod xfs;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use ovenbird_host::storage::Driver;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        return in_a_vm::run();
    }
    let mut trials = vec![Trial::test("dm_snapshot::in_a_vm", || {
        in_a_vm::boot().map_err(|error| error.to_string().into())
    })];
    for (number, (name, behaviour)) in contract::ALL.iter().enumerate() {
        trials.push(Trial::test(format!("copy::{name}"), move || {
            let folder = tempfile::tempdir()?;
            stage::run(Driver::Copy, folder.path(), number, behaviour);
            Ok(())
        }));
        trials.push(Trial::test(format!("reflink::{name}"), move || {
            let xfs = xfs::Mounted::new()?;
            stage::run(Driver::Reflink, &xfs.path(), number, behaviour);
            Ok(())
        }));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
