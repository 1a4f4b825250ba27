//! What this process itself uses, under the names that Prometheus's own libraries give it.

use std::{fmt, fs, time::Duration};

use nix::sys::resource::{UsageWho, getrusage};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};

/// Looks when it is asked. To be registered without a prefix.
#[derive(Debug)]
pub struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let cpu = ConstCounter::new(processor_time().as_secs_f64());
        let help = "Processor time of this process, in its own name and in the kernel's";
        cpu.encode(encoder.encode_descriptor(
            "process_cpu_seconds",
            help,
            None,
            cpu.metric_type(),
        )?)?;
        let memory = ConstGauge::new(resident_bytes());
        let (name, help) = ("process_resident_memory_bytes", "Memory of this process");
        memory.encode(encoder.encode_descriptor(name, help, None, memory.metric_type())?)
    }
}

fn processor_time() -> Duration {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return Duration::ZERO };
    let micros = [usage.user_time(), usage.system_time()]
        .map(|time| time.tv_sec().saturating_mul(1_000_000).saturating_add(time.tv_usec()));
    Duration::from_micros(micros.iter().sum::<i64>().try_into().unwrap_or(0))
}

fn resident_bytes() -> i64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<i64>().ok());
    kib.unwrap_or(0) * 1024
}
