//! What holds for the whole workspace: who may depend on whom, and the whole way of a build on real microVMs.

#![allow(clippy::unwrap_used)]

mod asyncapi;
mod caps;
mod cluster;
mod collector;
mod contexts;
mod dashboard;
mod deploy;
mod failures;
mod faults;
mod faults_of_others;
mod handover;
mod hosts;
mod logs;
mod metrics;
mod platform;
mod rules;
mod sandboxes;
mod scale;
mod sdk;
mod telemetry;
mod templates;
