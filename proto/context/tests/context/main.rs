//! Archives of every form, and everything that is refused of them.

#![allow(clippy::unwrap_used)] // in helpers of tests, as in tests

mod archives;
mod bombs;
mod selections;
