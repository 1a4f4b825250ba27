//! The sandbox of a build that was cancelled, or whose time is over: destroyed for certain, or said not to be.

use std::time::Duration;

use ovenbird_agent_client::Error as AgentError;
use tokio::time::Instant;

use super::driver::Driver;

/// As long as its host answers, such a build waits this long for its sandbox's end: one that is just being
/// saved is destroyed after that. Then the sweep does it.
const CANCEL_MAX: Duration = Duration::from_secs(5 * 60);
const CANCEL_PAUSE: Duration = Duration::from_secs(1);

impl Driver {
    /// Destroys the sandbox of a build that has no further attempt: the higher fence keeps a call of
    /// this attempt that is still on its way from making another one.
    pub(super) async fn destroy_for_good(&mut self) {
        let Some(sandbox_id) = self.sandbox.take() else { return };
        let build = self.claim.build_id.to_string();
        // For the template's removal, too: from now on the host refuses the attempt's own fence.
        self.agent = self.agent.clone().fenced(build, self.claim.attempt.saturating_add(1));
        let until = Instant::now() + CANCEL_MAX;
        while let Err(error) = self.agent.destroy_sandbox(&sandbox_id).await {
            let over = Instant::now() >= until
                || self.stop.lost.is_cancelled()
                || self.stop.drain.is_cancelled();
            let final_answer =
                matches!(error, AgentError::Unreachable { .. } | AgentError::StaleFence { .. });
            if over || final_answer {
                self.sandbox_left = true;
                tracing::warn!(sandbox.id = sandbox_id, %error, "sandbox left to the sweep");
                return;
            }
            tracing::info!(sandbox.id = sandbox_id, %error, "sandbox not destroyed yet");
            tokio::time::sleep(CANCEL_PAUSE).await;
        }
    }
}
