//! The guest agent: the static program that is PID 1 of every microVM.
//!
//! ```text
//!  kernel ─► boot: mounts, timer check, modules, root disk, network ─► serve ─► Shutdown ─► power off
//!              │ anything fails: say why on the console, power off       ▲
//!              └─────────────────────────────────────────────────────    └─ HELLO, HTTP/2, gRPC
//! ```
//!
//! It runs commands and moves files for the host agent, and reaps what the sandbox leaves behind. It
//! deliberately decides nothing: no policy, no retries, no state on disk, and no limit that guards the
//! host is kept here, since whoever is root in the guest could take it away; commands are limited only so
//! that this program goes on answering. It panics rather than going on
//! half-alive: the kernel then panics too, and the host sees the VM end.

mod boot;
mod clock;
mod console;
mod error;
mod exec;
mod files;
mod freeze;
mod link;
mod power;
mod random;
mod service;
mod users;

use std::{process::ExitCode, sync::Arc, time::Duration};

use console::say;
use exec::Execs;
use link::Link;
use power::Power;
use service::Service;

/// Threads for file calls. More would only queue at the one disk.
const FILE_THREADS: usize = 4;

fn main() -> ExitCode {
    if std::process::id() != 1 {
        say!("this program is PID 1 of a microVM and does nothing elsewhere");
        return ExitCode::FAILURE;
    }
    let booted = match boot::run() {
        Ok(booted) => booted,
        Err(error) => {
            say!("could not boot: {}", console::Chain(&error));
            power::off();
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(FILE_THREADS)
        .thread_keep_alive(Duration::from_secs(1))
        .build()
        .expect("a runtime starts in an empty machine");
    if let Err(error) = runtime.block_on(serve(booted)) {
        say!("stopped serving: {}", console::Chain(&error));
    }
    power::off();
}

/// Serves until a Shutdown call is over.
async fn serve(booted: boot::Booted) -> Result<(), link::Error> {
    let execs = Arc::new(Execs::new(booted.cgroups));
    let power = Arc::new(Power::new());
    let service = Service::new(execs.clone(), power.clone(), booted.facts);
    let mut link = Link::open(booted.token, booted.facts.boot_id)?;
    tokio::select! {
        ended = link.serve(service) => ended,
        never = execs.reap() => match never {},
        () = power.wait_off() => Ok(()),
    }
}
