//! Makes the sandbox, whatever its host's agent does meanwhile.
//!
//! ```text
//! create ─┬─ ready, not ready, refused ─► that is the answer
//!         ├─ no room                    ─► a moment later, again
//!         ├─ the agent is ending        ─► a moment later, again: nothing was begun
//!         └─ broken off                 ─► destroy, until the host says that nothing is there ─► again
//! ```
//!
//! An agent that is started again is away for seconds, and an attempt that is given up for that is missing
//! when a host is lost in earnest. A call that broke off may have made the sandbox all the same, so it is destroyed
//! before it is made again, under the one id that the world has been told.

use ovenbird_agent_client::{Error as AgentError, NewSandbox};
use tokio::time::{Duration, Instant, sleep};

use super::{
    away::Away,
    driver::{Driver, Halt},
};

/// A host that is full may have room in a moment: another sandbox is just being destroyed. One that could not be
/// destroyed goes when the sweep finds it, which takes minutes: a few attempts that wait this long (30 s) last until then.
const ROOM_TRIES: u32 = 16;
const ROOM_PAUSE: Duration = Duration::from_secs(2);
/// Agents start again in a second or two.
const AGAIN: Duration = Duration::from_millis(500);
/// Calls that break off although the host answers in between. It may be this very sandbox that breaks its agent.
const BROKEN_MAX: u32 = 5;

impl Driver {
    /// Makes the sandbox and waits until its guest is ready, or until its host is lost.
    pub(super) async fn create(
        &mut self,
        sandbox_id: &str,
    ) -> Result<Result<(), AgentError>, Halt> {
        let new = NewSandbox {
            sandbox_id: sandbox_id.to_owned(),
            template: self.claim.base.host_name.clone(),
            vcpus: self.claim.vcpus,
            memory_mb: self.claim.memory_mb,
            disk_mb: self.claim.disk_mb,
            idle_timeout_sec: None,
        };
        let mut away = Away::new(self.away_max);
        let (mut full, mut broken) = (1, 0);
        let mut is_closing = false;
        loop {
            let Err(error) = self.stop.guard(self.agent.create_sandbox(&new)).await? else {
                return Ok(Ok(()));
            };
            let was_closing = std::mem::replace(&mut is_closing, error.is_closing());
            let pause = match &error {
                AgentError::NoRoom { message } if full < ROOM_TRIES => {
                    full += 1;
                    away.answered();
                    self.log.system(0, &format!("the host has no room yet: {message}")).await?;
                    ROOM_PAUSE
                }
                _ if is_closing && !away.is_lost(Instant::now()) => {
                    if !was_closing {
                        self.log
                            .system(0, "the host's agent is ending, waiting for the next one")
                            .await?;
                    }
                    AGAIN
                }
                // The second is a call of before that has arrived after all.
                AgentError::Unreachable { .. } | AgentError::AlreadyExists { .. }
                    if broken < BROKEN_MAX && (broken > 0 || error.is_unreachable()) =>
                {
                    broken += 1;
                    if error.is_unreachable() {
                        let why = error.message();
                        let line = format!("the host cannot be reached ({why}), waiting for it");
                        self.log.system(0, &line).await?;
                    }
                    if let Err(error) = self.until_gone(sandbox_id, error, &mut away).await? {
                        return Ok(Err(error));
                    }
                    self.log.system(0, "the host answers again").await?;
                    Duration::ZERO
                }
                _ => return Ok(Err(error)),
            };
            self.stop.guard(sleep(pause)).await?;
        }
    }

    /// Waits until the host says that there is no such sandbox; `error` is why it may be there.
    async fn until_gone(
        &mut self,
        sandbox_id: &str,
        mut error: AgentError,
        away: &mut Away,
    ) -> Result<Result<(), AgentError>, Halt> {
        while !away.is_lost(Instant::now()) {
            self.stop.guard(sleep(AGAIN)).await?;
            match self.stop.guard(self.agent.destroy_sandbox(sandbox_id)).await? {
                Ok(()) => {
                    away.answered();
                    return Ok(Ok(()));
                }
                Err(failed) if failed.is_unreachable() => error = failed,
                Err(failed) => return Ok(Err(failed)),
            }
        }
        Ok(Err(error))
    }
}
