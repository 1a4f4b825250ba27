//! As much of QEMU's monitor as saving and restoring a machine needs.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

const WITHIN: Duration = Duration::from_secs(30);

struct Monitor {
    lines: BufReader<UnixStream>,
}

impl Monitor {
    fn open(folder: &Path) -> Self {
        let deadline = Instant::now() + WITHIN;
        let stream = loop {
            match UnixStream::connect(folder.join("qmp.sock")) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "no monitor: {error}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        stream.set_read_timeout(Some(WITHIN)).unwrap();
        let mut monitor = Self { lines: BufReader::new(stream) };
        monitor.ask(r#"{"execute":"qmp_capabilities"}"#);
        monitor.ask(
            r#"{"execute":"migrate-set-capabilities","arguments":{"capabilities":[{"capability":"x-ignore-shared","state":true}]}}"#,
        );
        monitor
    }

    fn ask(&mut self, command: &str) -> String {
        writeln!(self.lines.get_mut(), "{command}").unwrap();
        loop {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "the monitor is gone");
            assert!(!line.contains("\"error\""), "{command}: {line}");
            if line.starts_with("{\"return\"") {
                return line;
            }
        }
    }

    fn ask_until(&mut self, command: &str, done: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + WITHIN;
        loop {
            let answer = self.ask(command);
            if done(&answer) {
                return;
            }
            assert!(Instant::now() < deadline, "{command}: still {answer}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Stops the machine for good and writes its state beside its memory and disk.
pub(crate) fn save(folder: &Path) {
    let mut monitor = Monitor::open(folder);
    monitor.ask(r#"{"execute":"stop"}"#);
    let state = folder.join("state");
    monitor.ask(&format!(
        r#"{{"execute":"migrate","arguments":{{"uri":"file:{}"}}}}"#,
        state.display()
    ));
    monitor.ask_until(r#"{"execute":"query-migrate"}"#, |answer| answer.contains("completed"));
}

/// Loads a state into a machine that waits for one, and lets it run.
pub(crate) fn restore(folder: &Path, state: &Path) {
    let mut monitor = Monitor::open(folder);
    monitor.ask(&format!(
        r#"{{"execute":"migrate-incoming","arguments":{{"uri":"file:{}"}}}}"#,
        state.display()
    ));
    monitor.ask_until(r#"{"execute":"query-status"}"#, |answer| !answer.contains("inmigrate"));
    monitor.ask(r#"{"execute":"cont"}"#);
}

/// Stops and continues.
pub(crate) fn pause_for(folder: &Path, time: Duration) {
    let mut monitor = Monitor::open(folder);
    monitor.ask(r#"{"execute":"stop"}"#);
    std::thread::sleep(time);
    monitor.ask(r#"{"execute":"cont"}"#);
}
