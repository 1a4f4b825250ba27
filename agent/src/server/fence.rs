//! Fences: the highest attempt seen of each build. A runner that was given up on can change nothing any more; a
//! higher attempt may use the sandboxes and templates of the lower ones.
//!
//! Kept in memory only: after a restart of the agent no sandbox of a former attempt exists. The register is
//! bounded; the build that was seen longest ago is forgotten first.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
};

/// A newer attempt has called before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("attempt {attempt} of build {build_id} is over: attempt {highest} has called since")]
pub(super) struct Stale {
    build_id: String,
    attempt: u32,
    highest: u32,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Fences {
    max: usize,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    clock: u64,
    attempts: HashMap<String, (u32, u64)>,
    by_age: BTreeMap<u64, String>,
}

impl Fences {
    pub(super) fn new(max: usize) -> Self {
        Self { max, seen: Mutex::default() }
    }

    /// Lets a call of this attempt through unless a higher one has called.
    pub(super) fn pass(&self, build_id: &str, attempt: u32) -> Result<(), Stale> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let known = seen.attempts.get(build_id).copied();
        if let Some((highest, _)) = known
            && attempt < highest
        {
            return Err(Stale { build_id: build_id.to_owned(), attempt, highest });
        }
        if let Some((_, age)) = known {
            seen.by_age.remove(&age);
        }
        seen.clock += 1;
        let now = seen.clock;
        seen.attempts.insert(build_id.to_owned(), (attempt, now));
        seen.by_age.insert(now, build_id.to_owned());
        if seen.attempts.len() > self.max
            && let Some((_, oldest)) = seen.by_age.pop_first()
        {
            seen.attempts.remove(&oldest);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lower_attempt_is_refused_and_equal_or_higher_pass() {
        let fences = Fences::new(10);
        fences.pass("a", 2).unwrap();
        fences.pass("a", 2).unwrap();
        assert!(fences.pass("a", 1).is_err());
        fences.pass("b", 1).unwrap();
        fences.pass("a", 3).unwrap();
        assert!(fences.pass("a", 2).unwrap_err().to_string().contains("attempt 3"));
    }

    #[test]
    fn build_seen_longest_ago_is_forgotten_first() {
        let fences = Fences::new(2);
        fences.pass("a", 5).unwrap();
        fences.pass("b", 5).unwrap();
        fences.pass("a", 5).unwrap();
        fences.pass("c", 5).unwrap();
        assert!(fences.pass("a", 4).is_err());
        assert!(fences.pass("c", 4).is_err());
        fences.pass("b", 4).unwrap();
    }
}
