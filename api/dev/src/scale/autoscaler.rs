//! How many runners there are to be: what KEDA and the horizontal pod autoscaler of Kubernetes make of a lag. Pure, but
//! for the reading of the ScaledObject.
//!
//! KEDA adds up the lags of its triggers (the formula of the ScaledObject) and gives the sum to the autoscaler, with a
//! target for each replica. The autoscaler wants `ceil(lag / target)`, but lets a tenth too much or too little pass; it
//! goes up at once, and down only to the most that it wanted within the stabilisation window.
//!
//! Whoever drives this decides every `pollingInterval`. In a cluster that is how often KEDA itself looks, which decides
//! between none and one; between one and many the autoscaler asks KEDA in its own time, every 15 s unless the cluster says
//! otherwise, so there everything is up to three times as slow. Of `behavior` the window is read, and no `policies`: those
//! of `.deploy` let all replicas come or go at once.

use std::{collections::VecDeque, time::Duration};

use anyhow::Context;
use fs_err as fs;
use serde_json::Value;

use crate::tree;

/// What a replica may have too much or too little of before anything changes: the autoscaler's own default.
const TOLERANCE: f64 = 0.1;

/// What a ScaledObject says.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Replicas at least.
    pub min: usize,
    /// Replicas at most.
    pub max: usize,
    /// How often KEDA looks, and here the autoscaler, too.
    pub polling: Duration,
    /// How long the most that was wanted counts.
    pub window: Duration,
    /// Jobs for each replica.
    pub target: f64,
    /// What is added up.
    pub triggers: Vec<Trigger>,
}

/// A consumer whose lag counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trigger {
    /// The account of NATS.
    pub account: String,
    /// The stream.
    pub stream: String,
    /// The durable consumer.
    pub consumer: String,
}

impl Rule {
    /// That of `.deploy/k8s/base`.
    ///
    /// # Errors
    /// When it is not there, or says what is not understood here.
    pub fn of_deploy() -> anyhow::Result<Self> {
        let file = tree::root().join(".deploy/k8s/base/runner-autoscaling.yaml");
        let object: Value = serde_saphyr::from_str(&fs::read_to_string(&file)?)
            .with_context(|| file.display().to_string())?;
        Self::read(&object["spec"]).with_context(|| file.display().to_string())
    }

    fn read(spec: &Value) -> anyhow::Result<Self> {
        let number = |value: &Value, what: &str| {
            value.as_u64().with_context(|| format!("{what} is no number"))
        };
        let text = |value: &Value, what: &str| {
            value.as_str().map(str::to_owned).with_context(|| format!("{what} is no text"))
        };
        let advanced = &spec["advanced"];
        let behavior = &advanced["horizontalPodAutoscalerConfig"]["behavior"];
        let window = &behavior["scaleDown"]["stabilizationWindowSeconds"];
        let mut triggers = Vec::new();
        let mut names = Vec::new();
        for trigger in spec["triggers"].as_array().context("no triggers")? {
            let metadata = &trigger["metadata"];
            names.push(text(&trigger["name"], "a trigger's name")?);
            triggers.push(Trigger {
                account: text(&metadata["account"], "account")?,
                stream: text(&metadata["stream"], "stream")?,
                consumer: text(&metadata["consumer"], "consumer")?,
            });
        }
        let formula = text(&advanced["scalingModifiers"]["formula"], "formula")?;
        anyhow::ensure!(formula == names.join(" + "), "the formula is no sum of all triggers");
        let target = text(&advanced["scalingModifiers"]["target"], "target")?;
        Ok(Self {
            min: usize::try_from(number(&spec["minReplicaCount"], "minReplicaCount")?)?,
            max: usize::try_from(number(&spec["maxReplicaCount"], "maxReplicaCount")?)?,
            polling: Duration::from_secs(number(&spec["pollingInterval"], "pollingInterval")?),
            window: Duration::from_secs(number(window, "stabilizationWindowSeconds")?),
            target: target.parse().context("target is no number")?,
            triggers,
        })
    }
}

/// Decides, and remembers what it wanted.
#[derive(Debug)]
pub struct Autoscaler {
    rule: Rule,
    /// When, and how many.
    wanted: VecDeque<(Duration, usize)>,
}

impl Autoscaler {
    /// One that has wanted nothing yet.
    pub fn new(rule: Rule) -> Self {
        Self { rule, wanted: VecDeque::new() }
    }

    /// How many replicas there are to be `at` a time since some beginning, with a `lag` and `current` replicas.
    pub fn wanted(&mut self, at: Duration, lag: u64, current: usize) -> usize {
        let now = self.rule.replicas(lag, current);
        self.wanted.retain(|(then, _)| at.saturating_sub(*then) < self.rule.window);
        self.wanted.push_back((at, now));
        if now >= current {
            return now;
        }
        let most = self.wanted.iter().map(|(_, wanted)| *wanted).max().unwrap_or(now);
        most.min(current)
    }
}

impl Rule {
    fn replicas(&self, lag: u64, current: usize) -> usize {
        let needed = lag as f64 / self.target;
        let ratio = needed / (current.max(1) as f64);
        let wanted = if current > 0 && (ratio - 1.0).abs() <= TOLERANCE {
            current
        } else {
            needed.ceil() as usize
        };
        wanted.clamp(self.min, self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> Rule {
        Rule { window: Duration::from_secs(30), ..Rule::of_deploy().unwrap() }
    }

    #[test]
    fn rule_of_the_manifests_is_one_to_six_with_two_jobs_each_over_both_lanes() {
        let rule = rule();
        assert_eq!((rule.min, rule.max, rule.target), (1, 6, 2.0));
        assert_eq!(rule.polling, Duration::from_secs(5));
        let consumers: Vec<&str> = rule.triggers.iter().map(|it| it.consumer.as_str()).collect();
        assert_eq!(consumers, ["runners", "runners-high"]);
        assert!(rule.triggers.iter().all(|it| (&*it.account, &*it.stream) == ("APP", "BUILDS")));
    }

    #[test]
    fn replicas_are_the_lag_by_the_target_within_bounds_and_tolerance() {
        let rule = rule();
        let of = |lag, current| rule.replicas(lag, current);
        assert_eq!([of(0, 1), of(1, 1), of(2, 1), of(3, 1), of(4, 1)], [1, 1, 1, 2, 2]);
        assert_eq!([of(11, 1), of(12, 1), of(13, 6), of(500, 6)], [6, 6, 6, 6]);
        assert_eq!(of(0, 6), 1);
        let wide = Rule { max: 100, ..rule };
        // 41 jobs for 20 replicas are 2.5 % too much, 45 are 12.5 %.
        assert_eq!(
            [wide.replicas(41, 20), wide.replicas(45, 20), wide.replicas(37, 20)],
            [20, 23, 20]
        );
    }

    #[test]
    fn up_at_once_and_down_only_after_the_window() {
        let mut autoscaler = Autoscaler::new(rule());
        let mut at =
            |seconds, lag, current| autoscaler.wanted(Duration::from_secs(seconds), lag, current);
        assert_eq!(at(0, 12, 1), 6);
        assert_eq!(at(5, 6, 6), 6, "six were wanted five seconds ago");
        assert_eq!(at(29, 2, 6), 6);
        assert_eq!(at(31, 2, 6), 3, "three were wanted 26 seconds ago");
        assert_eq!(at(36, 9, 3), 5, "up again");
        assert_eq!(at(70, 0, 5), 1);
    }
}
