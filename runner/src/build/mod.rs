//! One attempt of a build, from the first microVM to the template on the host.
//!
//! What comes next is decided in [`state`], which is pure; everything else here does it: sandboxes, steps,
//! the healthcheck, the template. When [`run`] returns its tasks have ended, and its sandbox is destroyed, unless
//! another runner may go on with it. A successful attempt leaves exactly the template.
//!
//! Not here: lease, claim and finish (see [`crate::attempt`]), and the terminal log record (the desk's).

mod away;
mod cancel;
mod check;
mod copy;
mod create;
mod driver;
mod follow;
mod health;
mod resume;
mod scripts;
mod span;
mod start;
pub mod state;
mod step;
mod template;

pub use driver::{Done, Ending, Setup, run};
