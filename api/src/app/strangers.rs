//! Look-ups for callers of whom nothing is known, when many of them come from one address.
//!
//! A key is looked up before it is known whether its caller has a valid one, so tokens alone would not keep a flood of
//! wrong keys from Postgres. Once the bucket of an address is empty, texts from there that were not valid lately are
//! looked up by so few at a time that everybody else's requests do not notice. Nobody is shut out for others behind the
//! same address: who was valid lately passes, and who was not needs some luck once.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use ovenbird_contract::id::KeyId;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::rate::network;

/// Look-ups at a time for strangers from addresses whose bucket is empty; far fewer than connections to Postgres.
const LOOK_UPS: usize = 2;
/// Whoever was valid passes for so long.
const VALID_FOR: Duration = Duration::from_secs(60 * 60);
/// An address whose bucket was empty counts as such for so long.
const EMPTY_FOR: Duration = Duration::from_secs(10);
/// Texts and addresses that are remembered at most; what is beyond is as if it had never come.
const REMEMBERED_MAX: usize = 16_384;

/// What is remembered of callers.
#[derive(Debug)]
pub struct Strangers {
    valid: Memory<[u8; 32], KeyId>,
    empty: Memory<IpAddr, ()>,
    look_ups: Semaphore,
}

/// There are too many strangers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

impl Default for Strangers {
    fn default() -> Self {
        Self {
            valid: Memory::new(VALID_FOR),
            empty: Memory::new(EMPTY_FOR),
            look_ups: Semaphore::new(LOOK_UPS),
        }
    }
}

impl Strangers {
    /// Whether `text` may be looked up for a caller at `address`; to be held until it was.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn look_up(
        &self,
        address: Option<IpAddr>,
        text: &str,
    ) -> Result<Option<SemaphorePermit<'_>>, TooMany> {
        let is_crowded = address.is_some_and(|address| self.empty.get(&network(address)).is_some());
        if !is_crowded || self.valid_lately(text).is_some() {
            return Ok(None);
        }
        self.look_ups.try_acquire().map(Some).map_err(|_| TooMany)
    }

    /// Notes that `text` was valid, for `key`.
    pub fn was_valid(&self, text: &str, key: KeyId) {
        self.valid.note(hash(text), key);
    }

    /// The key for which `text` was valid lately. It may be revoked since: this lets nobody in.
    pub fn valid_lately(&self, text: &str) -> Option<KeyId> {
        self.valid.get(&hash(text))
    }

    /// Notes that the bucket of `address` was empty.
    pub fn was_empty(&self, address: IpAddr) {
        self.empty.note(network(address), ());
    }
}

/// The text itself is not kept.
fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// What was noted lately.
#[derive(Debug)]
struct Memory<K, V> {
    lasts: Duration,
    noted: Mutex<HashMap<K, (V, Instant)>>,
}

impl<K: Eq + Hash, V: Copy> Memory<K, V> {
    fn new(lasts: Duration) -> Self {
        Self { lasts, noted: Mutex::default() }
    }

    fn get(&self, key: &K) -> Option<V> {
        let noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        noted.get(key).filter(|(_, at)| at.elapsed() < self.lasts).map(|(value, _)| *value)
    }

    fn note(&self, key: K, value: V) {
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.len() >= REMEMBERED_MAX && !noted.contains_key(&key) {
            noted.retain(|_, (_, at)| at.elapsed() < self.lasts);
            if noted.len() >= REMEMBERED_MAX {
                return;
            }
        }
        noted.insert(key, (value, Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_of_a_crowded_address_are_looked_up_by_a_few_and_others_at_once() {
        let (strangers, here) = (Strangers::default(), "192.0.2.1".parse().ok());
        strangers.was_valid("mine", KeyId::new());
        let quiet: Vec<_> = (0..10).map(|_| strangers.look_up(here, "wrong")).collect();
        assert!(quiet.iter().all(|it| matches!(it, Ok(None))), "while its bucket is not empty");
        strangers.was_empty(here.unwrap());
        let held: Vec<_> = (0..10).map(|_| strangers.look_up(here, "wrong")).collect();
        assert_eq!(held.iter().filter(|it| matches!(it, Ok(Some(_)))).count(), LOOK_UPS);
        assert!(held[9].is_err());
        assert!(matches!(strangers.look_up(here, "mine"), Ok(None)), "it was valid lately");
        let there = "192.0.2.2".parse().ok();
        assert!(matches!(strangers.look_up(there, "other"), Ok(None)), "another address");
        drop(held);
        assert!(matches!(strangers.look_up(here, "theirs"), Ok(Some(_))));
    }

    #[test]
    fn memory_is_bounded_and_makes_room_when_what_it_has_is_over() {
        let mut memory = Memory::new(Duration::from_secs(3600));
        (0..=REMEMBERED_MAX).for_each(|number| memory.note(number, number));
        assert_eq!((memory.get(&0), memory.get(&REMEMBERED_MAX)), (Some(0), None));
        memory.lasts = Duration::ZERO;
        assert_eq!(memory.get(&0), None);
        memory.note(REMEMBERED_MAX, 0);
        assert_eq!(memory.noted.lock().unwrap().len(), 1);
    }
}
