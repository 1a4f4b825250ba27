//! The agent's settings. Their meaning stands in `default.toml`, which is embedded.

use std::{net::SocketAddr, ops::RangeInclusive, path::PathBuf, time::Duration};

use ovenbird_host::{
    Instance,
    cgroup::Mode,
    net::{self, Subnet},
    storage::Driver,
};
use ovenbird_kit::{telemetry, tls};
use serde::{Deserialize, Deserializer, de};

use crate::{registration, resolver::Resolver, sandbox::Shape};

/// The documented defaults.
pub const DEFAULTS: &str = include_str!("default.toml");
/// Prepared networks at most: each costs the kernel some memory, and the agent's start some time.
const POOL_MAX: u16 = 64;
/// How much of the host's processors can be promised, as a multiple of what there is.
const CPU_OVERCOMMIT: RangeInclusive<f64> = 0.1..=64.0;
/// Likewise for memory. Without swap, more than what there is is a promise that nobody can keep if all want it.
const MEMORY_OVERCOMMIT: RangeInclusive<f64> = 0.1..=4.0;
/// Variables that override a setting begin with this.
pub const ENV_PREFIX: &str = "OVENBIRD_AGENT";

/// See `default.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Config {
    pub listen: SocketAddr,
    #[serde(deserialize_with = "ovenbird_kit::config::address_or_none")]
    pub metrics_listen: Option<SocketAddr>,
    pub data_dir: PathBuf,
    pub kernel: PathBuf,
    pub initrd: PathBuf,
    pub hypervisor: Machines,
    pub qemu: String,
    #[serde(deserialize_with = "instance")]
    pub name: Instance,
    #[serde(deserialize_with = "parsed")]
    pub subnet: Subnet,
    pub uid_base: u32,
    pub network_pool: u16,
    pub egress_private: bool,
    #[serde(deserialize_with = "all_parsed")]
    pub egress_dns: Vec<Resolver>,
    pub bandwidth_kbit: u32,
    pub storage: Storage,
    pub cgroups: Mode,
    pub storage_reserve_mb: u32,
    #[serde(with = "humantime_serde")]
    pub ready_timeout: Duration,
    pub creates_at_once: usize,
    pub message_max_bytes: usize,
    #[serde(with = "humantime_serde")]
    pub file_idle_timeout: Duration,
    pub file_streams: usize,
    pub fences: usize,
    pub sandboxes_on_exit: OnExit,
    pub capacity: Capacity,
    #[serde(default)]
    pub tls: Option<tls::Files>,
    #[serde(default)]
    pub registration: Option<Registration>,
    pub telemetry: telemetry::Config,
}

/// How the agent comes to a certificate without files.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Registration {
    pub api: String,
    #[serde(default)]
    pub ca: Option<PathBuf>,
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    #[serde(default)]
    pub address: Option<String>,
}

/// How root disks are made.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Storage {
    Auto,
    Reflink,
    DmSnapshot,
    Copy,
}

impl Storage {
    /// The driver that is asked for; none: the best that the host can do.
    pub fn driver(self) -> Option<Driver> {
        match self {
            Self::Auto => None,
            Self::Reflink => Some(Driver::Reflink),
            Self::DmSnapshot => Some(Driver::DmSnapshot),
            Self::Copy => Some(Driver::Copy),
        }
    }
}

/// What becomes of sandboxes when the agent is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum OnExit {
    Keep,
    Destroy,
}

/// What sandboxes run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Machines {
    Qemu,
    Memory,
}

/// Bounds of the host and of one sandbox.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Capacity {
    pub sandboxes: u16,
    pub cpu_overcommit: f64,
    pub memory_overcommit: f64,
    pub vcpus: u32,
    pub memory_mb: u32,
    pub sandbox_vcpus: u32,
    pub sandbox_memory_mb: u32,
    pub sandbox_disk_mb: u32,
}

impl Capacity {
    fn check_overcommit(&self) -> Result<(), Error> {
        let factors = [
            ("capacity.cpu_overcommit", self.cpu_overcommit, CPU_OVERCOMMIT),
            ("capacity.memory_overcommit", self.memory_overcommit, MEMORY_OVERCOMMIT),
        ];
        match factors.into_iter().find(|(_, value, range)| !range.contains(value)) {
            Some((key, value, range)) => Err(Error::Overcommit { key, value, range }),
            None => Ok(()),
        }
    }

    /// What may be promised to all sandboxes of a host that has this.
    pub fn total(&self, host: Shape) -> Shape {
        let promised = |fixed: u32, there: u32, factor: f64| match fixed {
            0 => scaled(there, factor),
            fixed => fixed,
        };
        Shape {
            vcpus: promised(self.vcpus, host.vcpus, self.cpu_overcommit),
            memory_mb: promised(self.memory_mb, host.memory_mb, self.memory_overcommit),
        }
    }
}

/// At least 1: a host of one processor is not to be useless.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
fn scaled(there: u32, factor: f64) -> u32 {
    ((f64::from(there) * factor) as u32).max(1)
}

fn instance<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Instance, D::Error> {
    Instance::new(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}

fn all_parsed<'de, D: Deserializer<'de>, T: std::str::FromStr<Err: std::fmt::Display>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| text.parse().map_err(de::Error::custom)).collect()
}

fn parsed<'de, D: Deserializer<'de>, T: std::str::FromStr<Err: std::fmt::Display>>(
    deserializer: D,
) -> Result<T, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

/// The settings contradict each other or the host.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// More sandboxes than addresses.
    #[error("capacity.sandboxes is {sandboxes}, but subnet has addresses for {slots} only")]
    Subnet {
        /// As configured.
        sandboxes: u16,
        /// As the subnet allows.
        slots: u16,
    },
    /// A user id that belongs to somebody else.
    #[error("uid_base is {0}: it must be 1000 at least, with room for all sandboxes above it")]
    UidBase(u32),
    /// A bandwidth that no limit can have.
    #[error("bandwidth_kbit")]
    Bandwidth(#[source] net::Refused),
    /// More prepared networks than anybody needs.
    #[error("network_pool is {0}, at most {POOL_MAX} networks are prepared")]
    Pool(u16),
    /// An overcommit that no host could keep.
    #[error("{key} is {value}: it must be from {} to {}", range.start(), range.end())]
    Overcommit {
        /// Which.
        key: &'static str,
        /// As configured.
        value: f64,
        /// What is allowed.
        range: RangeInclusive<f64>,
    },
    /// Two ways to a certificate.
    #[error(
        "there are [tls] and [registration]: an agent with files does not register; leave one out"
    )]
    TwoIdentities,
    /// Nobody knows where the agent is reached.
    #[error("registration.address is missing, and listen is {0}, which nobody can connect to")]
    Address(SocketAddr),
    /// A bound of zero.
    #[error("{0} must be at least 1")]
    Zero(&'static str),
}

impl Config {
    /// Checks what one key alone cannot say.
    ///
    /// # Errors
    /// Names the key.
    pub fn check(&self) -> Result<(), Error> {
        let slots = self.subnet.slots();
        let sandboxes = self.capacity.sandboxes;
        if sandboxes > slots {
            return Err(Error::Subnet { sandboxes, slots });
        }
        let last = self.uid_base.checked_add(u32::from(sandboxes));
        if self.uid_base < 1000 || last.is_none_or(|last| last > i32::MAX.cast_unsigned()) {
            return Err(Error::UidBase(self.uid_base));
        }
        let bandwidth = net::Policy { bandwidth_kbit: self.bandwidth_kbit, ..Default::default() };
        bandwidth.check(false).map_err(Error::Bandwidth)?;
        if self.network_pool > POOL_MAX {
            return Err(Error::Pool(self.network_pool));
        }
        self.capacity.check_overcommit()?;
        self.check_registration()?;
        let bounds = [
            (usize::from(sandboxes), "capacity.sandboxes"),
            (self.fences, "fences"),
            (self.file_streams, "file_streams"),
            (usize::from(!self.file_idle_timeout.is_zero()), "file_idle_timeout"),
            (usize::try_from(self.storage_reserve_mb).unwrap_or(0), "storage_reserve_mb"),
            (self.message_max_bytes / (1024 * 1024), "message_max_bytes in MiB"),
        ];
        match bounds.iter().find(|(value, _)| *value == 0) {
            Some((_, name)) => Err(Error::Zero(name)),
            None => Ok(()),
        }
    }
}

impl Config {
    fn check_registration(&self) -> Result<(), Error> {
        let Some(registration) = &self.registration else { return Ok(()) };
        if self.tls.is_some() {
            return Err(Error::TwoIdentities);
        }
        if registration.address.is_none() && self.listen.ip().is_unspecified() {
            return Err(Error::Address(self.listen));
        }
        Ok(())
    }

    /// `[registration]`, with the address that follows from `listen` where none is set.
    pub fn registration_settings(&self) -> Option<registration::Settings> {
        let set = self.registration.clone()?;
        Some(registration::Settings {
            api: set.api,
            ca: set.ca,
            token_file: set.token_file,
            address: set.address.unwrap_or_else(|| self.listen.to_string()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn load(more: &str) -> Config {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(file, "{more}\n[tls]\nca = 'a'\ncert = 'b'\nkey = 'c'\n").unwrap();
        ovenbird_kit::config::load(DEFAULTS, Some(file.path()), "OVENBIRD_AGENT_TEST").unwrap()
    }

    #[test]
    fn defaults_hold_every_key_but_the_certificates() {
        let config = load("");
        config.check().unwrap();
        assert_eq!(config.name.to_string(), "main");
        assert_eq!(config.ready_timeout, Duration::from_secs(20));
        assert_eq!(config.sandboxes_on_exit, OnExit::Keep);
        assert_eq!(config.metrics_listen.map(|address| address.port()), Some(9464));
        assert_eq!(load("metrics_listen = ''").metrics_listen, None);
    }

    #[test]
    fn promise_is_a_multiple_of_what_there_is_unless_it_is_a_fixed_number() {
        let host = Shape { vcpus: 2, memory_mb: 1000 };
        assert_eq!(load("").capacity.total(host), Shape { vcpus: 8, memory_mb: 750 });
        let more = load("[capacity]\ncpu_overcommit = 1.5\nmemory_overcommit = 2").capacity;
        assert_eq!(more.total(host), Shape { vcpus: 3, memory_mb: 2000 });
        let fixed = load("[capacity]\nvcpus = 5\nmemory_mb = 300").capacity;
        assert_eq!(fixed.total(host), Shape { vcpus: 5, memory_mb: 300 });
        let least = load("[capacity]\ncpu_overcommit = 0.1").capacity;
        assert_eq!(least.total(Shape { vcpus: 1, memory_mb: 0 }), Shape { vcpus: 1, memory_mb: 1 });
    }

    #[test]
    fn registration_needs_an_address_that_can_be_reached_and_no_files() {
        let load = |text: &str| {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            write!(file, "{text}").unwrap();
            let loaded =
                ovenbird_kit::config::load(DEFAULTS, Some(file.path()), "OVENBIRD_AGENT_TEST");
            let loaded: Config = loaded.unwrap();
            loaded.check().map(|()| loaded.registration_settings().map(|set| set.address))
        };
        let section = "[registration]\napi = 'https://a'\n";
        assert_eq!(load("").unwrap(), None);
        assert_eq!(load(section).unwrap().as_deref(), Some("127.0.0.1:7443"));
        let everywhere = format!("listen = '0.0.0.0:7443'\n{section}");
        assert!(matches!(load(&everywhere), Err(Error::Address(_))));
        let reached = load(&format!("{everywhere}address = 'host-7:7443'\n")).unwrap();
        assert_eq!(reached.as_deref(), Some("host-7:7443"));
        let both = format!("{section}[tls]\nca = 'a'\ncert = 'b'\nkey = 'c'\n");
        assert!(matches!(load(&both), Err(Error::TwoIdentities)));
    }

    #[test]
    fn contradictions_are_named() {
        let subnet = load("subnet = '10.0.0.0/29'").check().unwrap_err();
        assert!(subnet.to_string().contains("subnet"), "{subnet}");
        let uid = load("uid_base = 0").check().unwrap_err();
        assert!(uid.to_string().contains("uid_base"), "{uid}");
        let pool = load("network_pool = 65").check().unwrap_err();
        assert!(pool.to_string().contains("network_pool"), "{pool}");
        let bandwidth = load("bandwidth_kbit = 63").check().unwrap_err();
        assert!(bandwidth.to_string().contains("bandwidth_kbit"), "{bandwidth}");
        for key in ["cpu_overcommit = 0.0", "memory_overcommit = 4.5", "cpu_overcommit = nan"] {
            let refused = load(&format!("[capacity]\n{key}")).check().unwrap_err();
            let name = key.split(' ').next().unwrap();
            assert!(refused.to_string().contains(name), "{refused}");
        }
        let idle = load("file_idle_timeout = '0s'").check().unwrap_err();
        assert!(idle.to_string().contains("file_idle_timeout"), "{idle}");
        let zero = load("fences = 0").check().unwrap_err();
        assert!(zero.to_string().contains("fences"), "{zero}");
    }
}
