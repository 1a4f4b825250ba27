//! What the agent measures: each sandbox for its owner, and itself for whoever runs it.

pub mod rings;
