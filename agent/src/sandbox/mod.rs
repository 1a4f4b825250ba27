//! Sandboxes: what is known about each, and who may do what with it when.
//!
//! [`Manager`] is the one door. Everything that takes time runs in tasks of its own, so that a caller who hangs up
//! leaves nothing half-done; the manager waits for them when it closes.

mod admit;
mod checkpoint;
mod confine;
mod create;
mod error;
pub mod idle;
mod journal;
mod manager;
pub mod meter;
mod pause;
mod recovery;
mod room;
mod save;
mod state;
mod take_over;

use std::{
    net::Ipv4Addr,
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use ovenbird_host::net;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use create::Means;
pub use error::Error;
pub use idle::InUse;
pub(crate) use journal::storage_of;
pub use manager::{Manager, Settings};
pub use room::{Limits, Shape};
pub use state::{Event, Refused, State};
pub use take_over::TakenOver;

pub use crate::name::SandboxId;
use crate::{guest_link::GuestClient, name::TemplateName};
use create::{Plan, Ready};
use idle::Usage;
use meter::Meter;
use pause::Asleep;

/// What a caller wants.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Its id.
    pub id: SandboxId,
    /// What it starts from.
    pub template: TemplateName,
    /// Its size; a fork has that of its snapshot.
    pub shape: Shape,
    /// At least this large a root disk, in MiB; 0: the template's.
    pub disk_mb: u32,
    /// Idle seconds until it is paused; 0: never.
    pub timeout_sec: i32,
    /// What its network lets through.
    pub policy: net::Policy,
    /// The build it belongs to, or nothing.
    pub build_id: String,
}

/// What is told about a sandbox.
#[derive(Debug, Clone)]
pub struct Info {
    /// Its id.
    pub id: SandboxId,
    /// Where it is in its life.
    pub state: State,
    /// What it was started from.
    pub template: TemplateName,
    /// Its size.
    pub shape: Shape,
    /// Where the host reaches it.
    pub host_ip: Ipv4Addr,
    /// When it was asked for.
    pub created_at_unix: i64,
    /// When it was last used.
    pub last_active_at_unix: i64,
    /// As asked for.
    pub timeout_sec: i32,
    /// The build it belongs to, or nothing.
    pub build_id: String,
}

/// One sandbox, known from the moment it is asked for until nothing of it is left.
#[derive(Debug)]
struct Sandbox {
    plan: Plan,
    wish: Wish,
    host_ip: Ipv4Addr,
    created_at_unix: i64,
    usage: Usage,
    meter: Meter,
    state: watch::Sender<State>,
    /// Why it stopped, for messages.
    detail: Mutex<Option<String>>,
    /// The client that calls get; there is one while the state is running.
    guest: Mutex<Option<GuestClient>>,
    /// Held by whoever changes what the sandbox consists of.
    parts: tokio::sync::Mutex<Option<Body>>,
}

/// What a sandbox consists of, once it is made.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one per sandbox")]
enum Body {
    /// With a machine, which may have ended by itself.
    Awake(Ready),
    /// Without one.
    Asleep(Asleep),
}

impl Body {
    async fn undo(self, means: &Means) -> Result<(), Error> {
        match self {
            Self::Awake(ready) => ready.undo(means).await,
            Self::Asleep(asleep) => asleep.undo(means).await,
        }
    }
}

/// Seconds since 1970.
fn unix_now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

impl Sandbox {
    fn new(plan: Plan, wish: Wish, host_ip: Ipv4Addr) -> Self {
        let usage = Usage::new(wish.timeout_sec);
        Self {
            wish,
            host_ip,
            created_at_unix: plan.journal.record().created_at_unix,
            plan,
            usage,
            meter: Meter::default(),
            state: watch::Sender::new(State::Creating),
            detail: Mutex::new(None),
            guest: Mutex::new(None),
            parts: tokio::sync::Mutex::new(None),
        }
    }

    fn state(&self) -> State {
        *self.state.borrow()
    }

    /// Applies an event; nothing changes when it is refused.
    fn apply(&self, event: Event) -> Result<State, Refused> {
        self.apply_if(event, || true)
    }

    /// The same, if the condition holds at the very moment of the change.
    fn apply_if(&self, event: Event, condition: impl Fn() -> bool) -> Result<State, Refused> {
        let mut result = Err(Refused(State::Gone));
        self.state.send_if_modified(|state| {
            result = if condition() { state.after(event) } else { Err(Refused(*state)) };
            match result {
                Ok(next) => {
                    tracing::debug!(sandbox.id = %self.wish.id, from = %state, to = %next, "state");
                    *state = next;
                    true
                }
                Err(_) => false,
            }
        });
        result
    }

    /// Waits for a state that does not pass by itself.
    async fn settled(&self) -> State {
        let mut states = self.state.subscribe();
        // The sender is this sandbox's own, so it cannot be gone.
        states.wait_for(|state| !state.passes()).await.map_or(State::Gone, |state| *state)
    }

    fn wrong_state(&self, state: State) -> Error {
        let detail = match state {
            State::Paused => Some(": resume it first".to_owned()),
            _ => self.detail.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        };
        Error::WrongState { id: self.wish.id.clone(), state, detail }
    }

    /// Sets another idle limit, counted from now.
    fn set_timeout(&self, timeout_sec: i32) {
        self.usage.set_timeout(timeout_sec);
        self.plan.try_note(|record| record.timeout_sec = timeout_sec);
    }

    fn set_detail(&self, detail: &str) {
        *self.detail.lock().unwrap_or_else(PoisonError::into_inner) = Some(detail.to_owned());
    }

    fn set_guest(&self, guest: Option<GuestClient>) {
        *self.guest.lock().unwrap_or_else(PoisonError::into_inner) = guest;
    }

    fn guest(&self) -> Result<GuestClient, Error> {
        let guest = self.guest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match (self.state(), guest) {
            (State::Running, Some(guest)) => Ok(guest),
            (state, _) => Err(self.wrong_state(state)),
        }
    }

    fn cancelled(&self) -> &CancellationToken {
        &self.plan.cancelled
    }

    fn info(&self) -> Info {
        Info {
            id: self.wish.id.clone(),
            state: self.state(),
            template: self.wish.template.clone(),
            shape: self.plan.shape,
            host_ip: self.host_ip,
            created_at_unix: self.created_at_unix,
            last_active_at_unix: self.usage.last_active_at_unix(),
            timeout_sec: self.usage.timeout_sec(),
            build_id: self.wish.build_id.clone(),
        }
    }
}
