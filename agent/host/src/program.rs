//! Runs a small helper program (`ip`, `nft`) to its end, within a deadline.
//!
//! Blocking: call it from a thread of its own. Nothing long-lived is started this way.

use std::{
    io::{Read, Write},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// A helper program did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It could not be started or talked to.
    #[error("{program} cannot be run: is it installed?")]
    Run {
        /// The program.
        program: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It ended with an error.
    #[error("{program} failed: {message}")]
    Failed {
        /// The program.
        program: &'static str,
        /// What it wrote to its standard error.
        message: String,
    },
    /// It did not end in time and was killed.
    #[error("{program} did not end within {seconds} s")]
    Late {
        /// The program.
        program: &'static str,
        /// The deadline.
        seconds: u64,
    },
}

/// As much of a program's standard error as goes into a message.
const MESSAGE_MAX: usize = 2048;
const DEADLINE: Duration = Duration::from_secs(10);

/// Gives `input` to `program` and returns its standard output.
pub(crate) fn run(program: &'static str, args: &[&str], input: &str) -> Result<String, Error> {
    let run = |source| Error::Run { program, source };
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(run)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ended early says why on its standard error; the broken pipe says nothing.
        let _ = stdin.write_all(input.as_bytes());
    }
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().map_err(run)? {
            break status;
        }
        if started.elapsed() > DEADLINE {
            child.kill().map_err(run)?;
            child.wait().map_err(run)?;
            return Err(Error::Late { program, seconds: DEADLINE.as_secs() });
        }
        std::thread::sleep(Duration::from_micros(300));
    };
    let mut text = String::new();
    if status.success() {
        if let Some(mut stdout) = child.stdout.take() {
            stdout.read_to_string(&mut text).map_err(run)?;
        }
        return Ok(text);
    }
    if let Some(stderr) = child.stderr.take() {
        stderr.take(MESSAGE_MAX as u64).read_to_string(&mut text).map_err(run)?;
    }
    Err(Error::Failed { program, message: text.trim().to_owned() })
}
