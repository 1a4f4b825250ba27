//! What a command of a memory guest does: nothing, unless it says `bench-lines <count> <per second>`. Pure.

use std::time::Duration;

/// The lines that a command writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Script {
    /// How many.
    pub(super) lines: u32,
    /// From the start to each of them: its number times this.
    pub(super) pause: Duration,
}

impl Script {
    /// Reads a command's arguments.
    pub(super) fn parse(args: &[String]) -> Self {
        let mut words = args.iter().flat_map(|arg| arg.split_whitespace());
        let found = words.any(|word| word == "bench-lines");
        let mut number = || words.next()?.parse::<u32>().ok();
        match (found, number(), number()) {
            (true, Some(lines), Some(per_second)) => {
                Self { lines, pause: Duration::from_secs(1) / per_second.max(1) }
            }
            _ => Self { lines: 0, pause: Duration::ZERO },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_in_what_the_shell_would_get_and_everything_else_does_nothing() {
        let args = |text: &str| vec!["-c".to_owned(), text.to_owned()];
        let script = Script::parse(&args("cd / && bench-lines 100 1000"));
        assert_eq!(script, Script { lines: 100, pause: Duration::from_millis(1) });
        for nothing in ["true", "bench-lines", "bench-lines ten 5", ""] {
            assert_eq!(Script::parse(&args(nothing)).lines, 0, "{nothing}");
        }
    }
}
