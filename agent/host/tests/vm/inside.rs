//! In the machine: its first process.

use std::{fs::File, panic::UnwindSafe, path::Path, process::ExitCode};

use nix::{
    kmod::{ModuleInitFlags, finit_module},
    mount::{MsFlags, mount},
};

use super::{EXIT_PORT, FAILED, MODULES, PASSED};

/// Makes the machine usable with the modules whose names contain one of `parts`, and ends it with whether `test`
/// passes. Never returns: a kernel whose first process ends panics.
pub(crate) fn run(parts: &[&str], test: impl FnOnce() -> bool + UnwindSafe) -> ExitCode {
    let outcome = std::panic::catch_unwind(|| {
        prepare(parts);
        test()
    });
    end(if outcome.is_ok_and(|passed| passed) { PASSED } else { FAILED });
    println!("the machine cannot be ended");
    loop {
        std::thread::park();
    }
}

fn prepare(parts: &[&str]) {
    for (kind, place) in
        [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys"), ("tmpfs", "/tmp")]
    {
        mount(Some(kind), place, Some(kind), MsFlags::empty(), None::<&str>).unwrap();
    }
    let mut modules: Vec<_> =
        std::fs::read_dir(MODULES).unwrap().map(|entry| entry.unwrap().path()).collect();
    modules.sort();
    let is_needed = |module: &Path| {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        parts.iter().any(|part| name.contains(part))
    };
    for module in modules.iter().filter(|module| is_needed(module)) {
        finit_module(File::open(module).unwrap(), c"", ModuleInitFlags::empty())
            .unwrap_or_else(|error| panic!("{}: {error}", module.display()));
    }
    mount(Some("/dev/vda"), "/data", Some("ext4"), MsFlags::empty(), None::<&str>).unwrap();
}

#[allow(unsafe_code)]
fn end(code: u8) {
    // SAFETY: the first process of a machine of its own asks for this port, and what is written to it ends the
    // machine; no memory is touched.
    unsafe {
        if nix::libc::ioperm(u64::from(EXIT_PORT), 1, 1) == 0 {
            std::arch::asm!("out dx, al", in("dx") EXIT_PORT, in("al") code, options(nomem, nostack));
        }
    }
}
