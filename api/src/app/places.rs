//! Places for what stays open: so many in all, and so many of one key, so that nobody takes them from the others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use ovenbird_contract::id::KeyId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places.
#[derive(Debug)]
pub struct Places {
    all: Arc<Semaphore>,
    count: usize,
    of_one_key: usize,
    /// Of each key that has some.
    taken: Arc<Mutex<HashMap<KeyId, usize>>>,
}

/// A place; free again when it is dropped.
#[derive(Debug)]
pub struct Place {
    key: KeyId,
    taken: Arc<Mutex<HashMap<KeyId, usize>>>,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    /// `all` places, `of_one_key` of them for a key at most.
    pub fn new(all: usize, of_one_key: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), count: all, of_one_key, taken: Arc::default() }
    }

    /// A place for `key`, if there is one.
    pub fn take(&self, key: KeyId) -> Option<Place> {
        let permit = Arc::clone(&self.all).try_acquire_owned().ok()?;
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.get(&key).copied().unwrap_or_default();
        if count >= self.of_one_key {
            return None;
        }
        taken.insert(key, count + 1);
        Some(Place { key, taken: Arc::clone(&self.taken), _permit: permit })
    }

    /// How many are taken now.
    pub fn taken(&self) -> usize {
        self.count.saturating_sub(self.all.available_permits())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                taken.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_has_so_many_places_and_takes_none_of_others() {
        let (places, mine, theirs) = (Places::new(3, 2), KeyId::new(), KeyId::new());
        let held: Vec<_> = (0..3).filter_map(|_| places.take(mine)).collect();
        assert_eq!(held.len(), 2);
        let other = places.take(theirs).expect("there is a third place");
        assert!(places.take(theirs).is_none(), "and no fourth");
        drop(held);
        assert!(places.take(theirs).is_some() && places.take(mine).is_some());
        drop(other);
        assert!(places.taken.lock().unwrap().is_empty(), "nothing is kept of who has none");
    }
}
