//! Writes the template, once, whoever asks for it how often.
//!
//! The host goes on writing when nobody waits, and a name is written once. So a call whose answer was lost, or that
//! a runner before had made, is found out about by asking the host whether it holds the template.
//!
//! ```text
//! held? ─┬─ yes ─► done
//!   ▲    └─ no ──► write ─┬─ written ─► done
//!   │                     ├─ no such sandbox, or anything else, and still not held ─► failed
//!   └── a moment later ───┴─ the name is taken, the host is away, or the sandbox sleeps
//! ```
//!
//! An agent that was killed while it saved the sandbox leaves it paused: it is resumed, and saved again.

use ovenbird_agent_client::Error as AgentError;
use ovenbird_contract::desk::TemplateKind;
use tokio::time::{Duration, Instant, sleep};

use super::{away::Away, driver::Driver};

/// A template that is being written is waited for this long, however often its host is away meanwhile.
const WRITTEN_MAX: Duration = Duration::from_secs(15 * 60);
const AGAIN: Duration = Duration::from_millis(250);

impl Driver {
    /// Size of the template on the host, which it writes unless it is there.
    pub(super) async fn ensure_template(
        &self,
        kind: TemplateKind,
        sandbox_id: &str,
        name: &str,
    ) -> Result<u64, AgentError> {
        let begun = Instant::now();
        let mut away = Away::new(self.away_max);
        let (mut broke_off, mut was_cut) = (false, self.goes_on);
        let (mut look, mut may_sleep) = (self.goes_on, self.goes_on);
        loop {
            let held = if look { self.held(name).await } else { Ok(None) };
            let failed = match held {
                Ok(Some(bytes)) => return Ok(bytes),
                Ok(None) => {
                    // An agent that is there and cannot is another matter.
                    if look && std::mem::take(&mut broke_off) {
                        away.answered();
                    }
                    match self.write(kind, sandbox_id, name).await {
                        Ok(bytes) => return Ok(bytes),
                        Err(error) => error,
                    }
                }
                Err(error) => error,
            };
            broke_off |= failed.is_unreachable();
            was_cut |= broke_off;
            may_sleep |= failed.is_unreachable();
            let may_pass = match &failed {
                AgentError::AlreadyExists { .. } => {
                    away.answered();
                    true
                }
                AgentError::Unreachable { .. } | AgentError::Unavailable { .. } => {
                    !away.is_lost(Instant::now())
                }
                AgentError::FailedPrecondition { .. } if std::mem::take(&mut may_sleep) => {
                    self.awaken(sandbox_id).await
                }
                AgentError::StaleFence { .. } => return Err(failed),
                _ => false,
            };
            if !may_pass || begun.elapsed() >= WRITTEN_MAX {
                // Perhaps only the answer was lost, and the sandbox has become the template.
                return match (self.held(name).await, failed) {
                    (Ok(Some(bytes)), _) => Ok(bytes),
                    // Its agent was killed in the middle of it, and the sandbox does not go on.
                    (_, AgentError::FailedPrecondition { message }) if was_cut => {
                        Err(AgentError::SandboxLost { message })
                    }
                    (_, failed) => Err(failed),
                };
            }
            tracing::info!(template.id = name, error = %failed, "asking again for the template");
            sleep(AGAIN).await;
            look = true;
        }
    }

    async fn write(
        &self,
        kind: TemplateKind,
        sandbox_id: &str,
        name: &str,
    ) -> Result<u64, AgentError> {
        match kind {
            TemplateKind::Snapshot => self.agent.create_snapshot(sandbox_id, name).await,
            TemplateKind::Image => self.agent.flatten_rootfs(sandbox_id, name).await,
        }
    }

    /// Whether it goes on now. Only the end of its agent puts a build's sandbox to sleep.
    async fn awaken(&self, sandbox_id: &str) -> bool {
        let resumed = self.agent.resume_sandbox(sandbox_id, 0).await;
        tracing::info!(sandbox.id = sandbox_id, ?resumed, "sandbox resumed, to be saved again");
        resumed.is_ok()
    }

    async fn held(&self, name: &str) -> Result<Option<u64>, AgentError> {
        let host = self.agent.get_host().await?;
        let held = host.templates.into_iter().find(|held| held.name == name);
        Ok(held.map(|held| held.size_bytes))
    }
}
