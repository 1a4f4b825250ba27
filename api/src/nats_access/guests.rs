//! Which customers are connected, as far as this process knows: counted for the bound on connections of one key,
//! and looked up when a key ends.
//!
//! A client counts from the moment it is let in, before the server has told that it is there. What the server's
//! messages miss is put right by the list of connections that the sweep fetches.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use ovenbird_contract::id::KeyId;

/// A client that was let in and is in no list after this long did not come.
const ARRIVES_WITHIN: Duration = Duration::from_secs(5);
/// A key that ended is refused for this long, whatever Postgres said a moment before: far longer than a question
/// may take.
const ENDED_FOR: Duration = Duration::from_secs(10);

/// One connection: the server's id and its number there.
pub(super) type Connection = (String, u64);

/// Who is there.
#[derive(Debug)]
pub(super) struct Guests {
    connections_max: usize,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// When each was last known to come or to be there.
    by_key: HashMap<KeyId, HashMap<Connection, Instant>>,
    ended: HashMap<KeyId, Instant>,
}

/// Why a key gets no further connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// It has as many as it may have.
    TooMany,
    /// It has just ended.
    Ended,
}

impl Guests {
    /// A key may have up to `connections_max` connections.
    pub(super) fn new(connections_max: usize) -> Self {
        Self { connections_max, known: Mutex::default() }
    }

    /// Nothing panics while it is held; if something did, the lists would still be whole.
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a client of `key` in, unless the key has all its connections.
    pub(super) fn admit(&self, key: KeyId, connection: Connection) -> Result<(), Refused> {
        let mut known = self.known();
        if known.ended.contains_key(&key) {
            return Err(Refused::Ended);
        }
        let connections = known.by_key.entry(key).or_default();
        if connections.len() >= self.connections_max && !connections.contains_key(&connection) {
            return Err(Refused::TooMany);
        }
        connections.insert(connection, Instant::now());
        Ok(())
    }

    /// A client of `key` is there. Answers `false` when it must not be: its key has just ended.
    pub(super) fn came(&self, key: KeyId, connection: Connection) -> bool {
        let mut known = self.known();
        if known.ended.contains_key(&key) {
            return false;
        }
        known.by_key.entry(key).or_default().insert(connection, Instant::now());
        true
    }

    /// A client of `key` is gone.
    pub(super) fn left(&self, key: KeyId, connection: &Connection) {
        let mut known = self.known();
        if let Some(connections) = known.by_key.get_mut(&key) {
            connections.remove(connection);
            if connections.is_empty() {
                known.by_key.remove(&key);
            }
        }
    }

    /// `key` has ended: nobody comes in with it any more. Answers who is there with it.
    pub(super) fn end(&self, key: KeyId) -> Vec<Connection> {
        let mut known = self.known();
        known.ended.insert(key, Instant::now());
        let connections = known.by_key.remove(&key).unwrap_or_default();
        connections.into_keys().collect()
    }

    /// Forgets keys that ended long ago: Postgres refuses them.
    pub(super) fn forget(&self) {
        self.known().ended.retain(|_, at| at.elapsed() < ENDED_FOR);
    }

    /// What the servers say is there, of all keys.
    pub(super) fn set(&self, listed: Vec<(KeyId, Connection)>) {
        let now = Instant::now();
        let mut known = self.known();
        known.by_key.retain(|_, connections| {
            connections.retain(|_, at| now.duration_since(*at) < ARRIVES_WITHIN);
            !connections.is_empty()
        });
        for (key, connection) in listed {
            known.by_key.entry(key).or_default().entry(connection).or_insert(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: u64) -> Connection {
        ("N".into(), number)
    }

    #[test]
    fn key_has_no_more_connections_than_it_may_have_until_one_leaves() {
        let (guests, key, other) = (Guests::new(2), KeyId::new(), KeyId::new());
        guests.admit(key, at(1)).unwrap();
        guests.admit(key, at(2)).unwrap();
        guests.admit(key, at(2)).unwrap();
        assert!(guests.came(key, at(2)));
        assert_eq!(guests.admit(key, at(3)), Err(Refused::TooMany));
        guests.admit(other, at(4)).unwrap();
        guests.left(key, &at(1));
        guests.admit(key, at(3)).unwrap();
    }

    #[test]
    fn key_that_ended_comes_in_no_more_even_when_it_was_let_in_before() {
        let (guests, key) = (Guests::new(2), KeyId::new());
        guests.admit(key, at(1)).unwrap();
        assert_eq!(guests.end(key), [at(1)]);
        assert!(!guests.came(key, at(1)));
        assert_eq!(guests.admit(key, at(2)), Err(Refused::Ended));
    }

    #[test]
    fn list_of_the_servers_adds_what_was_not_told_and_keeps_who_is_about_to_come() {
        let (guests, key) = (Guests::new(2), KeyId::new());
        guests.admit(key, at(1)).unwrap();
        guests.set(vec![(key, at(2))]);
        assert_eq!(guests.admit(key, at(3)), Err(Refused::TooMany));
    }
}
