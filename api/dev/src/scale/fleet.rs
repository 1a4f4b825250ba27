//! The runners, as a Deployment has its pods: more are started, and when there are to be fewer, those of the lowest
//! deletion cost are sent away first, and of these the youngest.

use ovenbird_testkit::pods::{NAMESPACE, Pods};
use tokio::task::JoinSet;

use crate::platform::{Platform, member::Kind};

/// The annotation that runners write.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

#[derive(Debug)]
pub(super) struct Fleet {
    /// Where the runners tell their cost.
    pods: Pods,
    /// Names, the oldest first.
    runners: Vec<String>,
    started: usize,
    leaving: JoinSet<anyhow::Result<()>>,
    sent_away_busy: usize,
}

impl Fleet {
    pub(super) async fn new() -> anyhow::Result<Self> {
        let pods = Pods::start().await?;
        let (runners, leaving) = (Vec::new(), JoinSet::new());
        Ok(Self { pods, runners, started: 0, leaving, sent_away_busy: 0 })
    }

    /// Runners that are to stay.
    pub(super) fn size(&self) -> usize {
        self.runners.len()
    }

    /// Runners that were sent away and still run.
    pub(super) fn leaving(&self) -> usize {
        self.leaving.len()
    }

    /// How many had builds when they were sent away.
    pub(super) fn sent_away_busy(&self) -> usize {
        self.sent_away_busy
    }

    /// Starts runners until there are `wanted`.
    pub(super) fn grow(&mut self, platform: &mut Platform, wanted: usize) -> anyhow::Result<()> {
        while self.runners.len() < wanted {
            self.started += 1;
            let name = format!("{}-{}", Kind::Runner.as_str(), self.started);
            self.pods.create(&name);
            let texts = [
                ("NAME", name.clone()),
                ("NAMESPACE", NAMESPACE.to_owned()),
                ("API", self.pods.url().to_owned()),
                ("TOKEN", self.pods.token().display().to_string()),
                ("CA", self.pods.ca().display().to_string()),
                ("EVERY", "500ms".to_owned()),
            ];
            let variables =
                texts.map(|(key, value)| (format!("OVENBIRD_RUNNER__POD__{key}"), value));
            platform.runner_start(self.started, &variables)?;
            self.runners.push(name);
        }
        Ok(())
    }

    /// Sends runners away until there are `wanted`.
    pub(super) fn shrink(&mut self, platform: &mut Platform, wanted: usize) {
        while self.runners.len() > wanted {
            let costs: Vec<i64> = self.runners.iter().map(|name| self.cost(name)).collect();
            let at = cheapest(&costs);
            let name = self.runners.remove(at);
            self.sent_away_busy += usize::from(costs[at] > 0);
            if let Some(mut member) = platform.member_take(&name) {
                let patience = member.kind.patience();
                self.leaving.spawn(async move { member.process().stop(patience).await });
            }
            self.pods.delete(&name);
        }
    }

    /// Notices runners that have ended: those that were sent away, in order; of the others none may.
    pub(super) async fn reap(&mut self, platform: &mut Platform) -> anyhow::Result<()> {
        while let Some(ended) = self.leaving.try_join_next() {
            ended??;
        }
        for name in &self.runners {
            let ended = platform.member(name).and_then(|member| member.process().ended());
            anyhow::ensure!(ended.is_none(), "{name} ended by itself");
        }
        Ok(())
    }

    fn cost(&self, pod: &str) -> i64 {
        let cost = self.pods.annotation(pod, DELETION_COST);
        cost.and_then(|cost| cost.parse().ok()).unwrap_or_default()
    }
}

/// The place of the pod that goes first, given their costs, the oldest one's first.
fn cheapest(costs: &[i64]) -> usize {
    let lowest = costs.iter().min();
    costs.iter().rposition(|cost| Some(cost) == lowest).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::cheapest;

    #[test]
    fn idle_pods_go_first_and_of_these_the_youngest() {
        assert_eq!(cheapest(&[2, 0, 1, 0, 2]), 3);
        assert_eq!(cheapest(&[1, 1]), 1);
        assert_eq!(cheapest(&[2]), 0);
    }
}
