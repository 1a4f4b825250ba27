//! What holds for the whole workspace: who may depend on whom, and the whole way of a build on real microVMs.

#![allow(clippy::unwrap_used)]

mod asyncapi;
mod caps;
mod contexts;
mod dashboard;
mod failures;
mod faults;
mod faults_of_others;
mod handover;
mod logs;
mod platform;
mod rules;
mod sandboxes;
mod sdk;
mod templates;
