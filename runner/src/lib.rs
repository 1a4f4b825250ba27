//! The runner: takes build jobs and drives host agents step by step.

pub mod publish;
