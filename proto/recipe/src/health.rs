//! The healthcheck string: `[--interval=3s] [--timeout=10s] [--start-period=0s] [--retries=20] <sh command>`.

use crate::{
    diagnostic::Code,
    duration,
    flags::{self, Known},
    limits::{
        HEALTH_ATTEMPT_MAX_MS, HEALTH_DEADLINE_MAX_MS, HEALTH_INTERVAL_MIN_MS, HEALTH_RETRIES_MAX,
        HEALTH_TIMEOUT_MIN_MS, LINE_BYTES_MAX,
    },
    lines::{Line, dangling, ends_in_backslash, is_blank, nul, too_long},
    plan::Healthcheck,
    sink::Sink,
};

const KNOWN: &[Known] = &[
    Known::value("interval", INTERVAL.text),
    Known::value("timeout", TIMEOUT.text),
    Known::value("start-period", START_PERIOD.text),
    Known::value("retries", "20"),
];

struct Duration {
    text: &'static str,
    /// Least, default, most.
    bounds: (u64, u64, u64),
}

const INTERVAL: Duration =
    Duration { text: "3s", bounds: (HEALTH_INTERVAL_MIN_MS, 3_000, HEALTH_ATTEMPT_MAX_MS) };
const TIMEOUT: Duration =
    Duration { text: "10s", bounds: (HEALTH_TIMEOUT_MIN_MS, 10_000, HEALTH_ATTEMPT_MAX_MS) };
const START_PERIOD: Duration = Duration { text: "0s", bounds: (0, 0, HEALTH_DEADLINE_MAX_MS) };
const RETRIES: (u32, u32, u32) = (1, 20, HEALTH_RETRIES_MAX);

/// Reads a healthcheck. Line ends are part of its command.
pub(crate) fn read(text: &str, sink: &mut Sink) -> Healthcheck {
    let line = Line::with_line_ends(text);
    let start = line.at(line.skip_blanks(0));
    if text.len() > LINE_BYTES_MAX {
        too_long(&start, text.len(), sink);
    }
    if let Some(byte) = text.find('\0') {
        nul(&line.at(byte), sink);
    }
    let (found, byte) = flags::read(&line, 0);
    let command = text[byte..].trim_end_matches(is_blank);
    if command.is_empty() {
        let hint = "write `[--interval=3s] [--timeout=10s] [--start-period=0s] [--retries=20] \
                    <sh command>`, or leave the healthcheck out";
        let message = "the healthcheck has no command";
        sink.error(Code::MissingArgument, &line.at(byte), message, hint);
    }
    if ends_in_backslash(command) {
        dangling(&line.at(byte + command.len() - 1), sink);
    }
    let mut flags = flags::check(found, KNOWN, "the healthcheck", sink);
    let mut check = Healthcheck {
        command: command.to_owned(),
        interval_ms: flags.duration_ms("interval", INTERVAL.bounds, sink),
        timeout_ms: flags.duration_ms("timeout", TIMEOUT.bounds, sink),
        start_period_ms: flags.duration_ms("start-period", START_PERIOD.bounds, sink),
        retries: flags.number("retries", RETRIES, sink),
        deadline_ms: 0,
    };
    check.deadline_ms =
        check.start_period_ms + u64::from(check.retries) * (check.timeout_ms + check.interval_ms);
    if check.deadline_ms > HEALTH_DEADLINE_MAX_MS {
        let message = format!(
            "the healthcheck may take {}: start period + retries × (timeout + interval)",
            duration::print(check.deadline_ms)
        );
        let most = duration::print(HEALTH_DEADLINE_MAX_MS);
        let hint = format!("make one of them smaller; {most} in all is the most");
        sink.error(Code::DurationOutOfBounds, &start, message, hint);
    }
    let printed = check.to_string().len();
    if printed > LINE_BYTES_MAX && text.len() <= LINE_BYTES_MAX {
        too_long(&start, printed, sink);
    }
    check
}

/// The healthcheck in its canonical form, which reads back as the same one; what is default is left out.
impl std::fmt::Display for Healthcheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, ms, Duration { bounds: (_, default, _), .. }) in [
            ("interval", self.interval_ms, INTERVAL),
            ("timeout", self.timeout_ms, TIMEOUT),
            ("start-period", self.start_period_ms, START_PERIOD),
        ] {
            if ms != default {
                write!(f, "--{name}={} ", duration::print(ms))?;
            }
        }
        if self.retries != RETRIES.1 {
            write!(f, "--retries={} ", self.retries)?;
        }
        f.write_str(&self.command)
    }
}
