//! What the agent measures: each sandbox for its owner, and itself for whoever runs it.

pub mod exposed;
pub mod rings;

/// The names of all metrics in Prometheus, with their types and labels, sorted.
pub const NAMES: &str = include_str!("names.txt");
