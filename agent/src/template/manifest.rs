//! `manifest.json` of a snapshot: what it was made with, and so what it can be restored on.
//!
//! A fork checks the lengths of all files, and the digest of the state, which is short. The digests of memory and disk
//! are for whoever brings a snapshot to another host.
//!
//! It contains the guest link's token, which is also in the snapshot's memory: the file is root's alone.

use std::{collections::BTreeMap, fs::File, path::Path};

use ovenbird_guest_protocol::Token;
use ovenbird_host::vm::{Platform, file};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::FileDigest;

/// The manifest of this build. Fields are only ever added: since 2 the files' digests and the counter's rate.
pub const VERSION: u32 = 2;
/// How far two hosts' time stamp counters may differ in their rates, as a part of it: a guest keeps the rate that it
/// booted with.
const RATE_TOLERANCE: u64 = 200;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`VERSION`] of whoever wrote it.
    pub version: u32,
    /// Hypervisor, accelerator, processor and devices.
    pub platform: Platform,
    /// The guest kernel's digest.
    pub kernel: String,
    /// Processors.
    pub vcpus: u32,
    /// Memory in MiB.
    pub memory_mb: u32,
    /// Length of the root disk.
    pub disk_bytes: u64,
    /// The guest link's token.
    #[serde(serialize_with = "hex", deserialize_with = "unhex")]
    pub token: Token,
    /// When it was made.
    pub created_at_unix: i64,
    /// The files beside the manifest; none of version 1.
    #[serde(default)]
    pub files: BTreeMap<String, FileDigest>,
}

/// For `serialize_with`: a token in hexadecimal.
pub(crate) fn hex<S: Serializer>(token: &Token, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&token.to_hex())
}

/// For `deserialize_with`.
pub(crate) fn unhex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Token, D::Error> {
    Token::from_hex(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}

impl Manifest {
    /// Why the snapshot cannot be restored by this agent, or nothing.
    pub fn refusal(&self, platform: &Platform) -> Option<String> {
        if self.version > VERSION {
            return Some(format!(
                "its manifest has version {}, newer than this agent",
                self.version
            ));
        }
        difference(&self.platform, platform)
    }

    /// Why the snapshot's own files cannot be the ones that were published, or nothing. Blocking, but short.
    pub fn damage(&self, dir: &Path) -> Option<String> {
        self.files.iter().find_map(|(name, made)| {
            let look = || {
                let file = File::open(dir.join(name))?;
                match name.as_str() {
                    file::STATE => FileDigest::of(&file).map(|now| now == *made),
                    _ => Ok(file.metadata()?.len() == made.bytes),
                }
            };
            match look() {
                Ok(true) => None,
                Ok(false) => Some(format!("its {name} is damaged")),
                // The template was deleted meanwhile: who links its files finds out.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                Err(error) => Some(format!("its {name} cannot be read ({error})")),
            }
        })
    }
}

/// Why what was saved on one platform cannot be loaded on another, or nothing.
pub(crate) fn difference(saved: &Platform, platform: &Platform) -> Option<String> {
    let pairs = [
        ("hypervisor", &saved.hypervisor, &platform.hypervisor),
        ("processor", &saved.cpu, &platform.cpu),
        ("devices", &saved.devices, &platform.devices),
    ];
    if let Some((what, made_with, here)) = pairs.into_iter().find(|(_, a, b)| a != b) {
        return Some(format!("its {what} was {made_with:?}, here it is {here:?}"));
    }
    if saved.accelerator != platform.accelerator {
        let (made_with, here) = (saved.accelerator, platform.accelerator);
        return Some(format!("it was made with {}, here is {}", made_with.name(), here.name()));
    }
    let (made_with, here) = (saved.tsc_khz, platform.tsc_khz);
    (made_with > 0 && made_with.abs_diff(here) > here / RATE_TOLERANCE).then(|| {
        format!("its processor's time stamp counter ran at {made_with} kHz, here at {here} kHz")
    })
}

#[cfg(test)]
pub(super) mod tests {
    use ovenbird_host::vm::Accelerator;

    use super::*;

    pub(in crate::template) fn manifest() -> Manifest {
        Manifest {
            version: VERSION,
            platform: Platform {
                hypervisor: "qemu 10.0.2".into(),
                accelerator: Accelerator::Tcg,
                cpu: "max".into(),
                devices: "microvm-1".into(),
                tsc_khz: 2_000_000,
            },
            kernel: "00".into(),
            vcpus: 1,
            memory_mb: 256,
            disk_bytes: 1 << 30,
            token: Token::new([7; 16]),
            created_at_unix: 1,
            files: BTreeMap::new(),
        }
    }

    #[test]
    fn manifest_survives_json_and_later_fields() {
        let mut json = serde_json::to_value(manifest()).unwrap();
        json["something_new"] = serde_json::json!(1);
        let read: Manifest = serde_json::from_value(json).unwrap();
        assert_eq!(read, manifest());
    }

    #[test]
    fn every_difference_of_the_platform_is_a_refusal_that_names_it() {
        let here = manifest().platform;
        assert_eq!(manifest().refusal(&here), None);
        let others = [
            Platform { hypervisor: "qemu 9.0.0".into(), ..here.clone() },
            Platform { cpu: "host: x".into(), ..here.clone() },
            Platform { devices: "microvm-2".into(), ..here.clone() },
            Platform { accelerator: Accelerator::Kvm, ..here.clone() },
            Platform { tsc_khz: 2_500_000, ..here.clone() },
        ];
        for other in others {
            assert!(manifest().refusal(&other).is_some(), "{other:?}");
        }
        // Two measurements of one counter differ by a little.
        assert_eq!(manifest().refusal(&Platform { tsc_khz: 2_000_100, ..here.clone() }), None);
        let newer = Manifest { version: VERSION + 1, ..manifest() };
        assert!(newer.refusal(&here).is_some());
    }
}
