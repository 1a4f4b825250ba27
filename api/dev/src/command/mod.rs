//! The subcommands that are more than one call.

pub mod demo;
pub mod test;
pub mod up;
