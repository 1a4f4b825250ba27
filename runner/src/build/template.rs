//! Writes the template, once, whoever asks for it how often.
//!
//! The host goes on writing when nobody waits, and a name is written once. So a call whose answer was lost, or that
//! a runner before had made, is found out about by asking the host whether it holds the template.
//!
//! ```text
//! held? ─yes─► done
//!   │ no
//!   ▼
//! write ─┬─ written ─► done
//!        ├─ the name is taken, or the host is away ─► a moment later, from the top
//!        └─ no such sandbox, or anything else, and still not held ─► failed
//! ```

use ovenbird_agent_client::Error as AgentError;
use ovenbird_contract::desk::TemplateKind;
use tokio::time::{Duration, Instant, sleep};

use super::driver::Driver;

/// A template that is being written is waited for this long.
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
        let mut away_since = None;
        let mut look = self.goes_on;
        loop {
            if look && let Some(bytes) = self.held(name).await? {
                return Ok(bytes);
            }
            let written = match kind {
                TemplateKind::Snapshot => self.agent.create_snapshot(sandbox_id, name).await,
                TemplateKind::Image => self.agent.flatten_rootfs(sandbox_id, name).await,
            };
            let error = match written {
                Ok(bytes) => return Ok(bytes),
                Err(error @ AgentError::StaleFence { .. }) => return Err(error),
                Err(error) => error,
            };
            if let Ok(Some(bytes)) = self.held(name).await {
                return Ok(bytes);
            }
            let may_pass = match &error {
                AgentError::AlreadyExists { .. } => {
                    away_since = None;
                    begun.elapsed() < WRITTEN_MAX
                }
                AgentError::Unreachable { .. } | AgentError::Unavailable { .. } => {
                    away_since.get_or_insert_with(Instant::now).elapsed() < self.away_max
                }
                _ => false,
            };
            if !may_pass {
                return Err(error);
            }
            tracing::info!(template.id = name, %error, "asking again for the template");
            sleep(AGAIN).await;
            // A host that is away answers neither; the write finds out whether it is back.
            look = away_since.is_none();
        }
    }

    async fn held(&self, name: &str) -> Result<Option<u64>, AgentError> {
        let host = self.agent.get_host().await?;
        let held = host.templates.into_iter().find(|held| held.name == name);
        Ok(held.map(|held| held.size_bytes))
    }
}
