//! Fences: the highest attempt seen of each build. A runner that was given up on can change nothing any more, also
//! after a restart of the agent, which its sandboxes outlive; a higher attempt may use the sandboxes and templates of
//! the lower ones.
//!
//! The register is bounded; the build that was seen longest ago is forgotten first. What rises is written to a file
//! before the call goes on; most calls change nothing, and write nothing.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::Path,
    sync::{Mutex, PoisonError},
};

use super::fence_file::{FenceFile, Line};

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
pub struct Fences {
    max: usize,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    clock: u64,
    attempts: HashMap<String, (u32, u64)>,
    by_age: BTreeMap<u64, String>,
    file: FenceFile,
}

impl Fences {
    /// The fences of a file, which is made when there is none; at most `max` of them.
    ///
    /// # Errors
    /// When it cannot be read or made.
    pub fn open(max: usize, path: &Path) -> io::Result<Self> {
        let (file, lines) = FenceFile::open(path)?;
        let (attempts, by_age) = (HashMap::new(), BTreeMap::new());
        let mut seen = Seen { clock: 0, attempts, by_age, file };
        for Line { build_id, attempt } in lines {
            let highest = seen.attempts.get(&build_id).map_or(attempt, |seen| seen.0.max(attempt));
            seen.touch(&build_id, highest, max);
        }
        seen.shorten()?;
        Ok(Self { max, seen: Mutex::new(seen) })
    }

    /// Lets a call of this attempt through unless a higher one has called.
    pub(super) fn pass(&self, build_id: &str, attempt: u32) -> Result<(), Stale> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let known = seen.attempts.get(build_id).map(|(highest, _)| *highest);
        if let Some(highest) = known
            && attempt < highest
        {
            return Err(Stale { build_id: build_id.to_owned(), attempt, highest });
        }
        seen.touch(build_id, attempt, self.max);
        if known != Some(attempt)
            && let Err(error) = seen.note(build_id, attempt, self.max)
        {
            // The call goes on: a fence that only this agent knows is better than no calls on a full disk.
            tracing::error!(%error, build.id = build_id, attempt, "a fence would not survive a restart");
        }
        Ok(())
    }
}

impl Seen {
    fn touch(&mut self, build_id: &str, attempt: u32, max: usize) {
        self.clock += 1;
        let now = self.clock;
        if let Some((_, age)) = self.attempts.insert(build_id.to_owned(), (attempt, now)) {
            self.by_age.remove(&age);
        }
        self.by_age.insert(now, build_id.to_owned());
        if self.attempts.len() > max
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.attempts.remove(&oldest);
        }
    }

    fn note(&mut self, build_id: &str, attempt: u32, max: usize) -> io::Result<()> {
        if self.file.is_behind() || self.file.lines() >= 2 * max.max(1000) {
            return self.shorten();
        }
        self.file.append(&Line { build_id: build_id.to_owned(), attempt })
    }

    /// Leaves what counts in the file.
    fn shorten(&mut self) -> io::Result<()> {
        let lines = self.by_age.values().filter_map(|build_id| {
            let (attempt, _) = self.attempts.get(build_id)?;
            Some(Line { build_id: build_id.clone(), attempt: *attempt })
        });
        self.file.replace(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fence_that_could_not_be_written_is_written_with_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fences");
        let fences = Fences::open(10, &path).unwrap();
        fences.seen.lock().unwrap().file.refuse_lines();
        fences.pass("a", 2).unwrap();
        fences.pass("b", 3).unwrap();
        drop(fences);
        let fences = Fences::open(10, &path).unwrap();
        assert!(fences.pass("a", 1).is_err() && fences.pass("b", 2).is_err());
    }

    fn fences(dir: &tempfile::TempDir, max: usize) -> Fences {
        Fences::open(max, &dir.path().join("fences")).unwrap()
    }

    #[test]
    fn lower_attempt_is_refused_and_equal_or_higher_pass() {
        let dir = tempfile::tempdir().unwrap();
        let fences = fences(&dir, 10);
        fences.pass("a", 2).unwrap();
        fences.pass("a", 2).unwrap();
        assert!(fences.pass("a", 1).is_err());
        fences.pass("b", 1).unwrap();
        fences.pass("a", 3).unwrap();
        assert!(fences.pass("a", 2).unwrap_err().to_string().contains("attempt 3"));
    }

    #[test]
    fn build_seen_longest_ago_is_forgotten_first() {
        let dir = tempfile::tempdir().unwrap();
        let fences = fences(&dir, 2);
        fences.pass("a", 5).unwrap();
        fences.pass("b", 5).unwrap();
        fences.pass("a", 5).unwrap();
        fences.pass("c", 5).unwrap();
        assert!(fences.pass("a", 4).is_err());
        assert!(fences.pass("c", 4).is_err());
        fences.pass("b", 4).unwrap();
    }

    #[test]
    fn next_agent_knows_the_highest_attempts_and_no_more_than_it_may() {
        let dir = tempfile::tempdir().unwrap();
        let first = fences(&dir, 10);
        for (build_id, attempt) in [("a", 1), ("b\n", 7), ("a", 3), ("c", 2)] {
            first.pass(build_id, attempt).unwrap();
        }
        drop(first);
        let next = fences(&dir, 2);
        assert!(next.pass("a", 2).is_err());
        assert!(next.pass("c", 1).is_err());
        next.pass("b\n", 1).unwrap();
        drop(next);
        let last = fences(&dir, 10);
        assert!(last.pass("c", 1).is_err());
        assert!(last.pass("b\n", 0).is_err());
    }

    #[test]
    fn file_stays_short_however_many_builds_call() {
        let dir = tempfile::tempdir().unwrap();
        let fences = fences(&dir, 2);
        for n in 0..5000 {
            fences.pass(&format!("bld_{n}"), 1).unwrap();
        }
        let text = std::fs::read_to_string(dir.path().join("fences")).unwrap();
        assert!(text.lines().count() <= 2000, "{}", text.lines().count());
        assert!(text.contains("bld_4999"));
    }
}
