//! Progress events of a build, CloudEvents-shaped, on `events.build.<id>`.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    build::Status,
    id::BuildId,
    step::{Phase, StepLog},
};

/// One event: the CloudEvents attributes that matter here, and what happened in `data`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// `1.0`.
    pub specversion: String,
    /// `<build id>/<attempt>/<n>`: unique, and the `Nats-Msg-Id`.
    pub id: String,
    /// `/builds/<build id>`.
    pub source: String,
    /// When.
    pub time: DateTime<Utc>,
    /// The build.
    pub build_id: BuildId,
    /// The attempt that says so; a lower one than the build's is ignored.
    pub attempt: u32,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", content = "data")]
pub enum What {
    /// The build changed its state.
    #[serde(rename = "build.state")]
    State {
        /// The new state.
        status: Status,
    },
    /// A sandbox was made for the build.
    #[serde(rename = "build.sandbox")]
    Sandbox {
        /// Its id on the host.
        sandbox_id: String,
    },
    /// A step begins.
    #[serde(rename = "step.started")]
    StepStarted {
        /// The user's step number, 0 outside of the recipe.
        step: u32,
        /// The part of the build.
        phase: Phase,
        /// What runs.
        cmd: String,
    },
    /// A step ended.
    #[serde(rename = "step.finished")]
    StepFinished(StepLog),
}

impl Event {
    /// The `n`-th event of an attempt.
    pub fn new(build_id: BuildId, attempt: u32, n: u64, time: DateTime<Utc>, what: What) -> Self {
        Self {
            specversion: "1.0".into(),
            id: format!("{build_id}/{attempt}/{n}"),
            source: format!("/builds/{build_id}"),
            time,
            build_id,
            attempt,
            what,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_has_the_documented_json() {
        let id: BuildId = "bld_01h455vb4pex5vsknk084sn02q".parse().expect("valid");
        let event = Event::new(
            id,
            1,
            4,
            DateTime::UNIX_EPOCH,
            What::StepStarted { step: 2, phase: Phase::Step, cmd: "RUN make".into() },
        );
        insta::assert_json_snapshot!(event);
        let text = serde_json::to_string(&event).expect("serializes");
        assert_eq!(serde_json::from_str::<Event>(&text).expect("parses"), event);
    }
}
