//! The guest kernel: Debian's own for clouds, unpacked but never installed (that would rebuild the host's
//! initrd).

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::Context;
use fs_err as fs;
use tokio::process::Command;

use crate::{cache::Cache, program, progress::Ui};

const PACKAGE: &str = "linux-image-cloud-amd64";
/// In the order in which the guest loads them. What a kernel has built in is left out.
const MODULES: &[&str] = &[
    "virtio_ring",
    "virtio",
    "virtio_mmio",
    "virtio_blk",
    "virtio_console",
    "failover",
    "net_failover",
    "virtio_net",
    "virtio_balloon",
    "rng-core",
    "virtio-rng",
];

/// What this kernel needs as a *host* in a test VM: its disk, and what the agent uses. The order follows from
/// what they depend on.
const HOST_MODULES: &[&str] = &[
    "virtio_mmio",
    "virtio_blk",
    "loop",
    "dm-snapshot",
    "dm-zero",
    "tun",
    "veth",
    "nf_tables",
    "nft_chain_nat",
    "nft_ct",
    "nft_fib_ipv4",
    "nft_masq",
    "nft_nat",
    "nft_reject_ipv4",
    "sch_tbf",
];

/// An unpacked kernel in the cache.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    folder: PathBuf,
}

impl Kernel {
    /// The kernel itself, an ELF file.
    pub(super) fn vmlinux(&self) -> PathBuf {
        self.folder.join("vmlinux")
    }

    /// The folder of its modules for a test VM that is a host itself, named in load order.
    pub(super) fn host_modules(&self) -> PathBuf {
        self.folder.join("host-modules")
    }

    fn has_host_modules(&self) -> bool {
        fs::read(self.folder.join("host-modules.list")).is_ok_and(|list| list == host_list())
    }

    /// Its modules for the initramfs, named in load order.
    pub(super) fn modules(&self) -> anyhow::Result<Vec<PathBuf>> {
        let mut files: Vec<PathBuf> = fs::read_dir(self.folder.join("modules"))?
            .map(|entry| Ok(entry?.path()))
            .collect::<anyhow::Result<_>>()?;
        files.sort();
        Ok(files)
    }
}

fn host_list() -> Vec<u8> {
    HOST_MODULES.join("\n").into_bytes()
}

/// The kernel in the cache, fetched if there is none or if a newer one is asked for.
pub(super) async fn ensure(ui: &Ui, cache: &Cache, newest: bool) -> anyhow::Result<Kernel> {
    let found = cache.newest("kernel").map(|folder| Kernel { folder });
    // One that an older set-up made may lack some.
    if let Some(kernel) = found.filter(|kernel| !newest && kernel.has_host_modules()) {
        return Ok(kernel);
    }
    let step = ui.step("fetch the guest kernel");
    let package = versioned(PACKAGE).await.context(
        "apt knows no guest kernel; if its lists are empty, run `apt-get update` (this set-up knows Debian 12 and 13)",
    )?;
    let bench = cache.workbench()?;
    let mut command = Command::new("apt-get");
    command.args(["download", "-o", "APT::Sandbox::User=root", &package]).current_dir(bench.path());
    program::run(&step, command).await?;
    let archive = only_file_ending(bench.path(), ".deb")?;
    let name = archive.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let version =
        name.split('_').nth(1).context("a package without a version")?.replace("%3a", ".");

    step.message("unpack");
    let unpacked = bench.path().join("unpacked");
    let mut command = Command::new("dpkg");
    command.arg("-x").arg(&archive).arg(&unpacked);
    program::run(&step, command).await?;
    let entry = bench.path().join("entry");
    fs::create_dir(&entry)?;
    let compressed = first_with_prefix(&unpacked.join("boot"), "vmlinuz-")?;
    vmlinux(&compressed, &entry.join("vmlinux")).await?;
    modules(&unpacked, &entry).await?;
    let folder = cache.put("kernel", &version, &entry)?;
    step.done(&version);
    Ok(Kernel { folder })
}

/// The package of one version that the versionless one stands for.
async fn versioned(package: &str) -> anyhow::Result<String> {
    let mut command = Command::new("apt-cache");
    command.args(["depends", "--no-recommends", "--no-suggests", package]).env("LC_ALL", "C");
    let text = program::output(command).await?;
    let found = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-") && name.contains("cloud"));
    found.map(str::to_owned).with_context(|| format!("{package} depends on no kernel"))
}

fn only_file_ending(folder: &Path, ending: &str) -> anyhow::Result<PathBuf> {
    let mut files = fs::read_dir(folder)?.flatten().map(|entry| entry.path());
    files
        .find(|file| file.to_string_lossy().ends_with(ending))
        .with_context(|| format!("no {ending} in {}", folder.display()))
}

fn first_with_prefix(folder: &Path, prefix: &str) -> anyhow::Result<PathBuf> {
    let mut entries = fs::read_dir(folder)?.flatten();
    entries
        .find(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .with_context(|| format!("no {prefix}… in {}", folder.display()))
}

/// Takes the ELF kernel out of a bzImage: it boots some 0.3 CPU seconds sooner, and PVH needs it.
async fn vmlinux(image: &Path, target: &Path) -> anyhow::Result<()> {
    let (offset, length) = payload(&mut fs::File::open(image)?.into())
        .with_context(|| format!("{} is no bzImage", image.display()))?;
    let mut bytes = vec![0; length];
    let mut file = fs::File::open(image)?;
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(&mut bytes)?;
    let unpack: &[&str] = match bytes.get(..4) {
        Some([0x02, 0x21, 0x4c, 0x18]) => &["lz4", "-dc"],
        Some([0xfd, b'7', b'z', b'X']) => &["xz", "-dc"],
        Some([0x28, 0xb5, 0x2f, 0xfd]) => &["zstd", "-dc"],
        Some([0x1f, 0x8b, ..]) => &["gzip", "-dc"],
        other => anyhow::bail!("the kernel is packed in an unknown way: {other:02x?}"),
    };
    let packed = tempfile::NamedTempFile::new()?;
    fs::write(packed.path(), &bytes)?;
    // The kernel's own size stands behind the packed bytes, and the program takes that for rubbish: what
    // counts is whether an ELF file of that size came out.
    Command::new(unpack[0])
        .args(&unpack[1..])
        .stdin(File::open(packed.path())?)
        .stdout(File::create(target)?)
        .stderr(Stdio::null())
        .status()
        .await
        .with_context(|| format!("start {}", unpack[0]))?;
    let size = bytes.last_chunk::<4>().map_or(0, |size| u64::from(u32::from_le_bytes(*size)));
    let mut magic = [0; 4];
    fs::File::open(target)?.read_exact(&mut magic)?;
    let got = fs::metadata(target)?.len();
    anyhow::ensure!(&magic == b"\x7fELF" && got == size, "unpacking gave {got} bytes of {size}");
    Ok(())
}

/// Where the packed kernel lies in a bzImage, by its boot protocol header.
fn payload(file: &mut File) -> anyhow::Result<(u64, usize)> {
    let mut header = [0; 0x250];
    file.read_exact(&mut header)?;
    anyhow::ensure!(&header[0x202..0x206] == b"HdrS", "no boot protocol header");
    let word = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let sectors = match header[0x1f1] {
        0 => 4,
        sectors => u64::from(sectors),
    };
    Ok(((sectors + 1) * 512 + u64::from(word(0x248)), word(0x24c) as usize))
}

/// Copies both lists of modules.
async fn modules(unpacked: &Path, entry: &Path) -> anyhow::Result<()> {
    let folders = ["lib/modules", "usr/lib/modules"].map(|folder| unpacked.join(folder));
    let folder =
        folders.iter().find(|folder| folder.is_dir()).context("a kernel without modules")?;
    let library = Library::read(&first_with_prefix(folder, "")?)?;
    library.copy(MODULES, &entry.join("modules")).await?;
    // Debian's package leaves this to its installation.
    let version = library.root.file_name().context("a kernel without a version")?;
    if !unpacked.join("lib").exists() {
        std::os::unix::fs::symlink("usr/lib", unpacked.join("lib"))?;
    }
    let mut command = Command::new("depmod");
    command.arg("-b").arg(unpacked).arg(version);
    program::output(command).await?;
    let needed = library.with_dependencies(HOST_MODULES)?;
    let needed: Vec<&str> = needed.iter().map(String::as_str).collect();
    library.copy(&needed, &entry.join("host-modules")).await?;
    Ok(fs::write(entry.join("host-modules.list"), host_list())?)
}

/// The modules of one kernel.
struct Library {
    root: PathBuf,
    files: Vec<PathBuf>,
    built_in: Vec<String>,
}

impl Library {
    fn read(root: &Path) -> anyhow::Result<Self> {
        let built_in = fs::read_to_string(root.join("modules.builtin"))?;
        let built_in =
            built_in.lines().map(|line| plain(line.rsplit('/').next().unwrap_or(line))).collect();
        let mut files = Vec::new();
        walk(&root.join("kernel"), &mut files)?;
        Ok(Self { root: root.to_owned(), files, built_in })
    }

    /// These modules and what they need, each after what it needs, by `modules.dep`.
    fn with_dependencies(&self, names: &[&str]) -> anyhow::Result<Vec<String>> {
        let text = fs::read_to_string(self.root.join("modules.dep"))?;
        let file = |path: &str| plain(path.rsplit('/').next().unwrap_or(path));
        let mut ordered: Vec<String> = Vec::new();
        for name in names {
            let line = text
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(module, _)| file(module) == plain(name));
            let needs = line.map_or("", |(_, needs)| needs).split_whitespace().rev().map(file);
            for module in needs.chain([plain(name)]) {
                if !ordered.contains(&module) {
                    ordered.push(module);
                }
            }
        }
        Ok(ordered)
    }

    /// Copies modules, unpacked, as `NN-name.ko` in the order given.
    async fn copy(&self, names: &[&str], target: &Path) -> anyhow::Result<()> {
        fs::create_dir(target)?;
        for (at, name) in names.iter().enumerate() {
            let wanted = plain(name);
            let file = self.files.iter().find(|file| {
                plain(&file.file_name().unwrap_or_default().to_string_lossy()) == wanted
            });
            let Some(file) = file else {
                let is_built_in = self.built_in.contains(&wanted);
                anyhow::ensure!(is_built_in, "the guest kernel has no module {name}");
                continue;
            };
            let copy = target.join(format!("{at:02}-{name}.ko"));
            if file.extension().is_some_and(|ending| ending == "xz") {
                let mut command = Command::new("xz");
                command.arg("-dc").arg(file).stdout(File::create(&copy)?);
                let status = command.status().await.context("start xz")?;
                anyhow::ensure!(status.success(), "unpack {}: {status}", file.display());
            } else {
                fs::copy(file, &copy)?;
            }
        }
        Ok(())
    }
}

/// A module's name from its file's: `virtio-rng.ko.xz` is `virtio_rng`.
fn plain(file: &str) -> String {
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() { walk(&path, files)? } else { files.push(path) }
    }
    Ok(())
}
