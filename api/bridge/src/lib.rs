//! The bridge: the only meeting point of Postgres and Redis with NATS. Any number of bridges may run.
//!
//! ```text
//!  Redis list ──► relay ──► BUILDS ──► runners
//!     ▲                                 │ claim, renew, finish, release
//!     └── sweep ──► Postgres ◄── desk ◄─┤
//!                       ▲               │ logs, events
//!             hosts ────┴──── ledger ◄──┘
//! ```
//!
//! Each duty is a service of its own: [`streams`], [`relay`], [`desk`], [`ledger`], [`sweep`], [`hosts`].
//! None holds state that another one needs: what they share stands in Postgres, and every one of them
//! may be killed between any two of its steps. No recipe is read here and no sandbox is driven.

pub mod bridge;
pub mod config;
pub mod desk;
pub mod hosts;
pub mod ledger;
pub mod log;
pub mod metrics;
mod pace;
pub mod queue;
pub mod relay;
pub mod state;
pub mod streams;
pub mod sweep;

pub use bridge::Bridge;
pub use config::Config;
