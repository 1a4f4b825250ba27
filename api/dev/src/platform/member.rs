//! One process of ours in a platform, and when it is started again after it died.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use ovenbird_testkit::{Process, process::Program};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// After this long it counts as healthy, and the next pause is the first one again.
const HEALTHY: Duration = Duration::from_secs(30);

/// What a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The REST API.
    Api,
    /// The bridge.
    Bridge,
    /// A runner.
    Runner,
    /// A host agent.
    Agent,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Api, Self::Bridge, Self::Runner, Self::Agent];

    /// The word in `up.json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Bridge => "bridge",
            Self::Runner => "runner",
            Self::Agent => "agent",
        }
    }

    /// How long it may take to end in order: an agent destroys its microVMs, a runner gives back its builds.
    pub fn patience(self) -> Duration {
        match self {
            Self::Api | Self::Bridge => Duration::from_secs(15),
            Self::Runner => Duration::from_secs(25),
            Self::Agent => Duration::from_secs(40),
        }
    }
}

/// A process of a platform.
#[derive(Debug)]
pub struct Member {
    /// What it is.
    pub kind: Kind,
    program: Program,
    process: Process,
    started: Instant,
    pause: Duration,
    again_at: Option<Instant>,
}

impl Member {
    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(kind: Kind, mut program: Program) -> anyhow::Result<Self> {
        // If this process is killed, the kernel asks it to end in order: agents then destroy their microVMs.
        program.death_signal = Signal::SIGTERM;
        let process = Process::start(program.clone())?;
        let started = Instant::now();
        Ok(Self { kind, program, process, started, pause: FIRST_PAUSE, again_at: None })
    }

    /// Its name: `runner-2`.
    pub fn name(&self) -> &str {
        &self.program.name
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Starts it again at once; it is killed first when it still runs.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        self.process.kill();
        self.process = Process::start(self.program.clone())?;
        self.started = Instant::now();
        self.again_at = None;
        Ok(())
    }

    /// Starts it again when it has died and its pause is over; says what happened.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn look_after(&mut self) -> anyhow::Result<Option<String>> {
        let Some(status) = self.process.ended() else { return Ok(None) };
        let now = Instant::now();
        match self.again_at {
            None => {
                if self.started.elapsed() > HEALTHY {
                    self.pause = FIRST_PAUSE;
                }
                self.again_at = Some(now + self.pause);
                let pause = self.pause;
                self.pause = LONGEST_PAUSE.min(pause * 2);
                Ok(Some(format!("{} ended ({status}); it starts again in {pause:?}", self.name())))
            }
            Some(at) if now >= at => {
                self.start_again()?;
                Ok(Some(format!("{} started again", self.name())))
            }
            Some(_) => Ok(None),
        }
    }
}
