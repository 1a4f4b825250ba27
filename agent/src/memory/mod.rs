//! Sandboxes without machines, for benches of the pipeline and nothing else: the guest is a task of the agent, its
//! network is nothing, and a command is what [`script`] understands. What the agent does around them is the real thing.
//!
//! They are fast and many, and hold nothing that is worth keeping: they end with the agent.

mod guest;
mod machine;
mod networks;
mod script;

pub use machine::MemoryHypervisor;
pub use networks::MemoryNetworks;
