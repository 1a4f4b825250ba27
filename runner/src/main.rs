//! The runner's process: reads its configuration and runs the service until it is told to stop.

fn main() {}
