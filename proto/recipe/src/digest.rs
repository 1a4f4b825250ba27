//! Digests of a plan and of its steps, sha256 in hex.
//!
//! They are taken over canonical JSON (no white space, keys sorted at every depth, whatever features
//! `serde_json` is built with), so every process computes the same one.

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::plan::{Action, Plan};

/// What the first step's digest follows on. Changed when the meaning of a step changes, so that nothing
/// that was kept under the old meaning is found again.
const CHAIN_START: &str = "ovenbird recipe steps v1";

impl Plan {
    /// Digest of the whole plan, healthcheck included: 64 hex digits.
    pub fn digest(&self) -> String {
        sha256(&[&canonical(self)])
    }

    /// The digest of each step, chained: equal digests mean that the recipes are equal up to and including
    /// that step in all that changes its result. Time limits and retries do not, so they are left out; the
    /// base template is not in it either. `context` is the digest of what `COPY` takes from.
    pub fn step_digests(&self, context: Option<&str>) -> Vec<String> {
        let mut digests: Vec<String> = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let previous = digests.last().map_or(CHAIN_START, String::as_str);
            let counts = canonical(&what_counts(&step.action));
            digests.push(match (&step.action, context) {
                (Action::Copy { .. }, Some(context)) => {
                    sha256(&[previous, "\n", &counts, "\n", context])
                }
                _ => sha256(&[previous, "\n", &counts]),
            });
        }
        digests
    }

    /// The entry of [`Plan::step_digests`] for the step with this number (from 1).
    pub fn step_digest(&self, number: u32, context: Option<&str>) -> Option<String> {
        let index = self.steps.iter().position(|step| step.number == number)?;
        self.step_digests(context).into_iter().nth(index)
    }
}

fn what_counts(action: &Action) -> Action {
    match action.clone() {
        Action::Run { command, secrets, .. } => {
            Action::Run { command, timeout_ms: 0, retries: 0, secrets }
        }
        other => other,
    }
}

fn canonical<T: serde::Serialize>(value: &T) -> String {
    let value = serde_json::to_value(value).expect("plans hold string keys and whole numbers only");
    sorted(value).to_string()
}

fn sorted(value: Value) -> Value {
    match value {
        Value::Object(object) => {
            let mut fields: Vec<_> = object.into_iter().collect();
            fields.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(fields.into_iter().map(|(k, v)| (k, sorted(v))).collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        scalar => scalar,
    }
}

fn sha256(parts: &[&str]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.as_bytes());
    }
    hex::encode(hasher.finalize())
}
