//! Cursors of lists that are sorted by creation, newest first.
//!
//! A cursor names the last row that was seen, so a page is never shifted by rows that come or go. Clients
//! take it as opaque; a check sum tells a damaged one from a place in the list.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use ovenbird_db::store::build_admin::After;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{Error, Problem};

/// Rows of a page when the client names no number.
pub const LIMIT_DEFAULT: u32 = 50;
/// Most rows of a page.
pub const LIMIT_MAX: u32 = 200;

/// No row is older.
pub const FIRST: DateTime<Utc> = DateTime::UNIX_EPOCH;
/// No row is newer; in the year 9999. A cursor with a later date is not ours, and Postgres could not say it.
pub const LAST: DateTime<Utc> =
    DateTime::from_timestamp(253_402_300_799, 0).expect("the end of 9999 is a time");

/// A page and where the next one begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Where the next page begins; absent on the last one.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// A page of at most `limit` of `rows`, which hold one more when there is a next page.
    pub fn of(mut rows: Vec<T>, limit: u32, place: impl Fn(&T) -> After) -> Self {
        let limit = limit as usize;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|row| encode(place(row)));
        Self { items: rows, next }
    }
}

/// The text of a place.
pub fn encode(after: After) -> String {
    let mut bytes = Vec::with_capacity(28);
    bytes.extend_from_slice(&after.created_at.timestamp_micros().to_be_bytes());
    bytes.extend_from_slice(after.id.as_bytes());
    let sum = Sha256::digest(&bytes);
    bytes.extend_from_slice(&sum[..4]);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The place that a cursor names.
///
/// # Errors
/// [`Error::Parameter`] for a text that is no cursor of ours.
pub fn decode(cursor: &str) -> Result<After, Error> {
    read(cursor).ok_or_else(|| {
        let problem = Problem::new("cursor", "bad_cursor", "is no cursor of this list");
        Error::Parameter(problem.hint("take next_cursor of the page before, unchanged"))
    })
}

fn read(cursor: &str) -> Option<After> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let (body, sum) = bytes.split_at_checked(24)?;
    if sum != &Sha256::digest(body)[..4] {
        return None;
    }
    let (micros, id) = body.split_at_checked(8)?;
    let created_at =
        DateTime::<Utc>::from_timestamp_micros(i64::from_be_bytes(micros.try_into().ok()?))?;
    let is_ours = (FIRST..=LAST).contains(&created_at);
    is_ours.then_some(After { created_at, id: Uuid::from_slice(id).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursor_reads_back_and_a_damaged_one_is_refused() {
        let after = After {
            created_at: DateTime::from_timestamp_micros(1_700_000_000_123_456).unwrap(),
            id: Uuid::now_v7(),
        };
        let text = encode(after);
        assert_eq!(decode(&text).unwrap(), after);
        for place in 0..text.len() {
            let mut damaged = text.clone().into_bytes();
            damaged[place] = if damaged[place] == b'A' { b'B' } else { b'A' };
            assert!(decode(std::str::from_utf8(&damaged).unwrap()).is_err(), "{place}");
        }
        for forged in [FIRST - chrono::TimeDelta::days(1), LAST + chrono::TimeDelta::days(1)] {
            assert!(decode(&encode(After { created_at: forged, ..after })).is_err(), "{forged}");
        }
        assert!(decode("").is_err() && decode("é").is_err() && decode(&text[1..]).is_err());
    }

    #[test]
    fn last_page_has_no_cursor() {
        let place = |_: &u32| After { created_at: DateTime::UNIX_EPOCH, id: Uuid::nil() };
        assert!(Page::of(vec![1, 2], 2, place).next.is_none());
        let page = Page::of(vec![1, 2, 3], 2, place);
        assert_eq!((page.items, page.next.is_some()), (vec![1, 2], true));
    }
}
