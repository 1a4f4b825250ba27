//! One attempt of a build, from the first microVM to the template on the host.
//!
//! What comes next is decided in [`state`], which is pure; everything else here does it: sandboxes, steps,
//! the healthcheck, the template. Whatever way an attempt ends, its sandbox is destroyed and its tasks
//! have ended when [`run`] returns. A successful one leaves exactly the template.
//!
//! Not here: lease, claim and finish (see [`crate::attempt`]), and the terminal log record (the desk's).

mod cancel;
mod check;
mod driver;
mod follow;
mod health;
mod scripts;
mod start;
pub mod state;
mod step;

pub use driver::{Done, Ending, Setup, run};
