//! A platform for one test, from the programs that `cargo dev test` has built.

use std::path::PathBuf;

use ovenbird_dev::{
    api::Api,
    cache::{Artifacts, Cache},
    host::Host,
    platform::{Options, Platform},
    progress::Ui,
};

/// A platform with a client of its API and of its only agent.
pub(crate) struct Stage {
    ui: Ui,
    pub(crate) platform: Platform,
    pub(crate) api: Api,
    pub(crate) host: Host,
    pub(crate) nats: String,
    /// A key of scope `admin`.
    pub(crate) key: String,
}

impl Stage {
    pub(crate) async fn set() -> Self {
        Self::set_with(Options::default()).await
    }

    /// With what else than numbers stands in `options`: two runners of one slot, and an agent unless it says more.
    pub(crate) async fn set_with(options: Options) -> Self {
        let ui = Ui::new();
        let artifacts = Artifacts::locate(&Cache::open().unwrap()).unwrap();
        let agents = options.agents.max(1);
        let options = Options { kind: "test", runners: 2, slots: 1, agents, ..options };
        let mut platform = Platform::start(&ui, &artifacts, options).await.unwrap();
        let record = platform.record();
        let (api, host) =
            (platform.api().unwrap(), Host::connect(&record.agents[0]).await.unwrap());
        Self { ui, platform, api, host, nats: record.nats, key: record.admin_key }
    }

    /// The processes of a kind.
    pub(crate) fn pids(&mut self, kind: &str) -> Vec<u32> {
        self.platform.record().pids[kind].clone()
    }

    /// Ends everything; nothing may be left, of the build's microVMs in particular.
    pub(crate) async fn strike(self) {
        let left = self.host.sandboxes().await.unwrap();
        assert!(left.is_empty(), "sandboxes are left: {left:?}");
        let violations = refused_to_ours(&self.platform.logs());
        assert!(violations.is_empty(), "NATS refused our own processes: {violations:#?}");
        let folder = self.platform.path().to_owned();
        self.platform.stop(&self.ui).await.unwrap();
        assert!(!folder.exists());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&*folder.to_string_lossy()), "{mounts}");
        assert_eq!(working_in(&folder), Vec::<PathBuf>::new());
    }
}

/// What NATS says that it refused to whoever has an nkey: a list of permissions is too narrow.
fn refused_to_ours(logs: &std::path::Path) -> Vec<String> {
    let ours = |line: &&str| line.contains("/nkey:") && line.contains("Violation");
    let files = std::fs::read_dir(logs).unwrap().map(|entry| entry.unwrap());
    let files = files.filter(|file| file.file_name().to_string_lossy().starts_with("nats"));
    let text = files.map(|file| std::fs::read_to_string(file.path()).unwrap());
    text.flat_map(|text| text.lines().filter(ours).map(String::from).collect::<Vec<_>>()).collect()
}

/// Processes that still work in a folder that is gone.
fn working_in(folder: &std::path::Path) -> Vec<PathBuf> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let inside = |process: &PathBuf| {
        std::fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder))
    };
    processes.filter(inside).collect()
}
