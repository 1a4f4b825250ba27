//! Build contexts: tar, tar.gz and zip archives, read with suspicion, and what `COPY` takes of them.
//!
//! ```text
//!  archive ── walk: tar | zip ──► entry, content ── check ──► Contents: paths, .ovenbirdignore
//!     │                                                           │ sources of a COPY
//!     │                                                           ▼
//!     └────────────── walk once more ───────────────────────► Selection ──► a plain tar, for the guest
//! ```
//!
//! The api checks an archive when it is uploaded, and a runner again before it uses one: nothing else is trusted. No
//! entry is held whole, and no more of an archive is remembered than the paths that [`limits`] allows. Nothing is ever
//! unpacked here.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod check;
mod contents;
mod entry;
mod error;
mod file;
pub mod limits;
mod meter;
mod pack;
mod select;
mod stop;
mod tarball;
mod walk;
mod zip;

pub use contents::{Contents, IGNORE_FILE};
pub use entry::Kind;
pub use error::{Code, Error, Refused};
pub use pack::{Packed, pack};
pub use select::{NoSelection, Selection, names_directory};
pub use stop::Stop;
