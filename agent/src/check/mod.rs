//! `ovenbird-agent check`: whether this machine is fit to be a host in production, thing by thing, each with what to
//! do where it is not.
//!
//! What the agent would do is tried, by the same code, wherever that leaves nothing behind: a file is cloned, a network
//! with its rules is made and removed, a kernel is booted under KVM. The rest is read from `/proc`. Nothing is left
//! on the host but what any use of the kernel leaves: modules that load themselves, controllers of control groups that are
//! handed down. An agent that runs meanwhile is not touched, and what the agent sets by itself at its start is not asked
//! for.

mod limits;
mod tried;

use std::{
    fmt,
    path::{Path, PathBuf},
};

use ovenbird_kit::telemetry::chain;
use serde::Serialize;

use crate::{config::Config, registration};

/// One thing that a host needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// A stable word for it.
    pub name: &'static str,
    /// Whether it is there.
    pub ok: bool,
    /// What was found.
    pub found: String,
    /// What to do, where it is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    fn yes(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, ok: true, found: found.into(), remedy: None }
    }

    fn no(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, ok: false, found: found.into(), remedy: Some(remedy.into()) }
    }

    /// Yes with what was found, or no with the error and this remedy.
    fn of(
        name: &'static str,
        found: Result<impl Into<String>, impl Into<String>>,
        remedy: impl Into<String>,
    ) -> Self {
        match found {
            Ok(found) => Self::yes(name, found),
            Err(found) => Self::no(name, found, remedy),
        }
    }
}

/// Everything that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether all of it is there.
    pub fit: bool,
    /// Thing by thing.
    pub checks: Vec<Finding>,
}

impl Report {
    fn of(checks: Vec<Finding>) -> Self {
        Self { fit: checks.iter().all(|finding| finding.ok), checks }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { name, ok, found, remedy } in &self.checks {
            let word = if *ok { "yes" } else { "no" };
            writeln!(f, "{word:<4} {name:<12} {found}")?;
            if let Some(remedy) = remedy {
                writeln!(f, "     {:<12} -> {remedy}", "")?;
            }
        }
        let missing = self.checks.iter().filter(|finding| !finding.ok).count();
        match missing {
            0 => writeln!(f, "This host is fit for production."),
            1 => writeln!(f, "One thing is missing for production."),
            missing => writeln!(f, "{missing} things are missing for production."),
        }
    }
}

/// Looks at everything. Needs root: without it there is one finding, which says so.
pub async fn run(config: &Config) -> Report {
    if !rustix::process::geteuid().is_root() {
        let remedy = "run the agent, and this, as root (sudo)";
        return Report::of(vec![Finding::no("root", "this process is not root's", remedy)]);
    }
    let mut checks = vec![Finding::yes("root", "this process is root's"), keys(config)];
    checks.push(Finding::of(
        "identity",
        registration::look(config).map_err(|error| chain(&error)),
        "register this host, or give it certificates: see [registration] and [tls] of the configuration",
    ));
    checks.extend(tried::all(config).await);
    checks.extend(limits::all(config));
    Report::of(checks)
}

/// What `serve` refuses.
fn keys(config: &Config) -> Finding {
    let fine = config.check().map(|()| "its keys agree").map_err(|error| chain(&error));
    Finding::of("config", fine, "change the key that is named")
}

/// The nearest folder that is there: `data_dir` itself may not be made yet.
fn existing(path: &Path) -> PathBuf {
    let there = path.ancestors().find(|path| path.is_dir());
    there.map_or_else(|| PathBuf::from("/"), Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_is_fit_when_nothing_is_missing_and_each_no_has_a_remedy() {
        let fit = Report::of(vec![Finding::yes("kvm", "it boots")]);
        assert!(fit.fit && fit.to_string().contains("yes  kvm          it boots\n"));
        let checks = vec![Finding::yes("root", "yes"), Finding::no("kvm", "none", "buy one")];
        let unfit = Report::of(checks);
        let shown = unfit.to_string();
        assert!(!unfit.fit && shown.contains("-> buy one\nOne thing is missing"), "{shown}");
        let json = serde_json::to_value(&unfit).unwrap();
        assert_eq!(json["checks"][1]["remedy"], "buy one");
        assert!(json["checks"][0].get("remedy").is_none());
    }

    #[test]
    fn configuration_that_serve_refuses_is_not_fit() {
        let folder = tempfile::tempdir().unwrap();
        let load = |more: &str| -> Config {
            let file = folder.path().join("agent.toml");
            let data = folder.path().join("data");
            std::fs::write(&file, format!("data_dir = {data:?}\n{more}")).unwrap();
            ovenbird_kit::config::load(crate::config::DEFAULTS, Some(&file), "OVENBIRD_AGENT_TEST")
                .unwrap()
        };
        let tls = "[tls]\nca = '/no/ca'\ncert = '/no/cert'\nkey = '/no/key'\n";
        let both = load(&format!("{tls}[registration]\napi = 'https://api.example'\n"));
        assert!(!keys(&both).ok, "two identities");
        let token = folder.path().join("token");
        let registers = format!("[registration]\napi = 'https://a'\ntoken_file = {token:?}\n");
        for (more, ok) in [("", false), (tls, false), (&registers, false)] {
            assert!(keys(&load(more)).ok);
            assert_eq!(registration::look(&load(more)).is_ok(), ok, "{more}");
        }
        std::fs::write(&token, "a token").unwrap();
        registration::look(&load(&registers)).unwrap();
        assert!(!folder.path().join("data").exists(), "nothing is made");
    }

    #[test]
    fn folder_that_is_not_made_yet_is_looked_for_above() {
        assert_eq!(existing(Path::new("/proc/no/such/folder")), Path::new("/proc"));
    }
}
