//! Runners that come and go while the platform runs.

use fs_err as fs;

use super::{
    Platform,
    member::{Kind, Member},
};

impl Platform {
    /// The monitoring endpoint of NATS, `http://127.0.0.1:<port>`.
    pub fn nats_monitor_url(&self) -> String {
        self.nats.first().monitor_url()
    }

    /// Starts another runner, `runner-<number>`, with the configuration of the others and `variables` over it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn runner_start(
        &mut self,
        number: usize,
        variables: &[(String, String)],
    ) -> anyhow::Result<()> {
        let config = self.place.path().join("runner.toml");
        self.launch_with(Kind::Runner, Some(number), &config, variables)
    }

    /// Gives a process away, to be ended by whoever gets it.
    pub fn member_take(&mut self, name: &str) -> Option<Member> {
        let at = self.members.iter().position(|member| member.name() == name)?;
        Some(self.members.remove(at))
    }

    /// Lines of level ERROR in the logs of our own processes, those included that have ended.
    pub fn errors_logged(&self) -> Vec<String> {
        let logs = fs::read_dir(self.logs()).into_iter().flatten().flatten();
        let texts = logs.filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let ours = Kind::ALL.iter().any(|kind| name.starts_with(kind.as_str()));
            Some((ours.then_some(name)?, fs::read_to_string(entry.path()).ok()?))
        });
        let errors = texts.flat_map(|(name, text)| {
            let lines = text.lines().filter(|line| line.contains(" ERROR "));
            lines.map(|line| format!("{name}: {line}")).collect::<Vec<_>>()
        });
        errors.collect()
    }
}
