//! What of a platform can fail, and how a fault script makes it fail and brings it back.

use std::time::Duration;

use anyhow::Context;
use fs_err as fs;
use nix::sys::signal::Signal;
use ovenbird_testkit::{Process, wait_for};
use tokio::net::TcpStream;

use super::{
    Platform,
    member::{Kind, Member},
};

/// An agent takes over its sandboxes before it listens.
const REVIVAL: Duration = Duration::from_secs(60);

/// One process of a platform, or one service with its children.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The `usize`-th of its kind, from 0.
    Member(Kind, usize),
    /// Postgres.
    Postgres,
    /// Redis.
    Redis,
    /// NATS.
    Nats,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Member(kind @ (Kind::Api | Kind::Bridge), _) => f.write_str(kind.as_str()),
            Self::Member(kind, at) => write!(f, "{}-{}", kind.as_str(), at + 1),
            Self::Postgres => f.write_str("postgres"),
            Self::Redis => f.write_str("redis"),
            Self::Nats => f.write_str("nats"),
        }
    }
}

impl Platform {
    /// Everything that can fail.
    pub fn parts(&self) -> Vec<Part> {
        let mut parts = vec![Part::Postgres, Part::Redis, Part::Nats];
        for kind in [Kind::Api, Kind::Bridge, Kind::Runner, Kind::Agent] {
            let count = self.members.iter().filter(|member| member.kind == kind).count();
            parts.extend((0..count).map(|at| Part::Member(kind, at)));
        }
        parts
    }

    /// Kills it as `kill -9` does.
    ///
    /// # Errors
    /// When there is no such part.
    pub fn kill(&mut self, part: Part) -> anyhow::Result<()> {
        match part {
            Part::Postgres => self.postgres.kill9(),
            Part::Redis => self.redis.kill9(),
            Part::Nats => self.nats.kill9(),
            Part::Member(..) => self.member_at(part)?.process().kill(),
        }
        Ok(())
    }

    /// Stops its processors' time, or lets it go on: what others see of a link that is cut.
    ///
    /// # Errors
    /// When there is no such part.
    pub fn freeze(&mut self, part: Part, frozen: bool) -> anyhow::Result<()> {
        let signal = if frozen { Signal::SIGSTOP } else { Signal::SIGCONT };
        self.process(part)?.signal_all(signal);
        Ok(())
    }

    /// Removes the data of a service that was killed.
    ///
    /// # Errors
    /// When there is none that may be lost, or it cannot be removed.
    pub fn lose_data(&mut self, part: Part) -> anyhow::Result<()> {
        let data = match part {
            Part::Redis => self.path().join("redis/appendonlydir"),
            Part::Nats => self.path().join("nats/jetstream"),
            _ => anyhow::bail!("{part} has no data that a platform survives the loss of"),
        };
        if data.exists() {
            fs::remove_dir_all(data)?;
        }
        Ok(())
    }

    /// Starts it again after it was killed. A service answers when this returns.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_again(&mut self, part: Part) -> anyhow::Result<()> {
        match part {
            Part::Postgres => self.postgres.restart().await,
            Part::Redis => self.redis.restart().await,
            Part::Nats => self.nats.restart().await,
            Part::Member(..) => self.member_at(part)?.start_again(),
        }
        .with_context(|| format!("start {part} again"))
    }

    /// Those of `parts` that have ended.
    pub fn ended(&mut self, parts: &[Part]) -> Vec<Part> {
        let gone = |part: &&Part| self.process(**part).is_ok_and(|it| it.ended().is_some());
        parts.iter().filter(gone).copied().collect()
    }

    /// Asks it to end, as an operator does, and waits.
    ///
    /// # Errors
    /// When it had to be killed.
    pub async fn terminate(&mut self, part: Part, patience: Duration) -> anyhow::Result<()> {
        self.process(part)?.stop(patience).await
    }

    /// Runs statements in the platform's database; columns are separated by `|`.
    ///
    /// # Errors
    /// With what `psql` says.
    pub async fn sql(&self, statements: &str) -> anyhow::Result<String> {
        self.postgres.sql("ovenbird", statements).await
    }

    /// Lets agents that are dead or stand still run again: only they can remove what they have on this machine.
    pub(super) async fn revive_agents(&mut self) -> anyhow::Result<()> {
        for at in 0..self.agents.len() {
            let part = Part::Member(Kind::Agent, at);
            let Ok(process) = self.process(part) else { continue };
            process.signal_all(Signal::SIGCONT);
            if process.ended().is_some() {
                self.start_again(part).await?;
                let address = self.agents[at].address();
                wait_for("an agent that was dead to listen", REVIVAL, || async {
                    TcpStream::connect(&address).await.ok()
                })
                .await?;
            }
        }
        Ok(())
    }

    fn process(&mut self, part: Part) -> anyhow::Result<&mut Process> {
        Ok(match part {
            Part::Postgres => self.postgres.process(),
            Part::Redis => self.redis.process(),
            Part::Nats => self.nats.servers()[0].process(),
            Part::Member(..) => self.member_at(part)?.process(),
        })
    }

    fn member_at(&mut self, part: Part) -> anyhow::Result<&mut Member> {
        let Part::Member(kind, at) = part else { anyhow::bail!("{part} is a service") };
        self.members
            .iter_mut()
            .filter(|member| member.kind == kind)
            .nth(at)
            .with_context(|| format!("there is no {part}"))
    }
}
