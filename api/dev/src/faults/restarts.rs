//! Why builds began again from the first step, as their logs tell. Pure.
//!
//! A build whose sandbox is ready goes on in it, whatever dies, unless the log that says so is lost, or its host is. No
//! host of the suite is away for long enough to be lost, so a restart for any other reason was not needed.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::Value;

/// How builds fared between their beginning and their end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restarts {
    /// Restarts of builds whose microVM was not ready.
    pub before_ready: usize,
    /// Restarts of builds whose log was lost with the data of NATS.
    pub log_lost: usize,
    /// Restarts although the host lived, and the sandbox: the name of the build, and what its log says of it.
    pub needless: Vec<String>,
    /// The most counted attempts that one build lost in a row, without a step between them.
    pub lost_in_a_row: u32,
}

impl Restarts {
    /// Adds those of a build. `log_lost_at` is when NATS lost its data, if it has.
    pub(super) fn add(
        &mut self,
        name: &str,
        records: &[Value],
        log_lost_at: Option<DateTime<Utc>>,
    ) {
        let mut ready_at: Option<DateTime<Utc>> = None;
        for record in records.iter().filter(|record| record["stream"] == "system") {
            let text = record["text"].as_str().unwrap_or_default();
            let at = record["ts"].as_str().and_then(|ts| ts.parse().ok());
            if text.starts_with("microVM ready after ") {
                ready_at = at;
            }
            if !text.starts_with("Attempt ") {
                continue;
            }
            self.lost_in_a_row = self.lost_in_a_row.max(lost_in_a_row(text));
            if !text.contains("begins from the first step") {
                continue;
            }
            match ready_at.take() {
                None => self.before_ready += 1,
                Some(ready)
                    if log_lost_at.is_some_and(|lost| ready <= lost && Some(lost) <= at) =>
                {
                    self.log_lost += 1;
                }
                Some(_) => self.needless.push(format!("{name}: {text}")),
            }
        }
    }

    /// For people.
    pub(super) fn summary(&self) -> BTreeMap<String, usize> {
        BTreeMap::from([
            ("before the microVM was ready".to_owned(), self.before_ready),
            ("with a lost log".to_owned(), self.log_lost),
            ("without need".to_owned(), self.needless.len()),
        ])
    }
}

/// The `2` of "(2 of 6 attempts lost)".
fn lost_in_a_row(text: &str) -> u32 {
    let counted = text.rsplit_once('(').and_then(|(_, rest)| rest.split_once(" of "));
    counted.and_then(|(count, _)| count.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn log(lines: &[(u32, &str)]) -> Vec<Value> {
        let line = |(second, text): &(u32, &str)| json!({ "stream": "system", "ts": format!("2026-01-01T00:00:{second:02}Z"), "text": text });
        lines.iter().map(line).collect()
    }

    #[test]
    fn only_a_restart_that_nothing_explains_is_needless() {
        let lost = "Attempt 2 ended because its runner was not heard of in time; the build is queued \
                    again (2 of 6 attempts lost).";
        let records = log(&[
            (1, "attempt 1: starting a microVM from minimal (1 vCPU, 256 MiB)"),
            (2, "Attempt 2 begins from the first step."),
            (3, "microVM ready after 1.00 s"),
            (5, &format!("Attempt 3 begins from the first step. {lost}")),
            (6, "microVM ready after 1.00 s"),
            (7, "Attempt 4 goes on in step 1."),
            (8, "Attempt 5 begins from the first step."),
        ]);
        let mut restarts = Restarts::default();
        restarts.add("web", &records, Some("2026-01-01T00:00:04Z".parse().unwrap()));
        assert_eq!((restarts.before_ready, restarts.log_lost), (1, 1));
        assert_eq!(restarts.needless, ["web: Attempt 5 begins from the first step."]);
        assert_eq!(restarts.lost_in_a_row, 2);
    }
}
