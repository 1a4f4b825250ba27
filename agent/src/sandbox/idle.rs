//! Who uses a sandbox, since when nobody does, and the reaper that pauses those that nobody used for long enough.
//!
//! A call holds its [`InUse`] as long as it lasts, so a command that runs for an hour is an hour of use. Idle time
//! is counted on the monotonic clock: a host whose wall clock jumps pauses nothing.
//!
//! The reaper has no input of its own: it looks at all sandboxes once a second, and what it did before does not
//! matter.

use std::{
    collections::VecDeque,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::StreamExt;
use ovenbird_kit::telemetry;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Error, Manager, Sandbox, SandboxId, State, unix_now};
use crate::guest_link::GuestClient;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Sandboxes that the reaper pauses at the same time: each writes its memory to the disk.
const PAUSES_AT_ONCE: usize = 2;
/// Ids that wait to be told. A caller who asks for none of them for so long has lost the oldest.
const TOLD_MAX: usize = 10_000;
/// For calls to end when their sandbox is about to be paused.
const LEAVE_PATIENCE: Duration = Duration::from_secs(5);

/// The use of one sandbox.
#[derive(Debug)]
pub(super) struct Usage {
    /// Calls that run.
    calls: watch::Sender<usize>,
    last: Mutex<Last>,
}

#[derive(Debug)]
struct Last {
    used: Instant,
    /// The same on the wall clock, for people.
    unix: i64,
    /// Idle time after which it is paused; `None`: never.
    limit: Option<Duration>,
    /// Cancelled when calls have to end, because the sandbox will not go on at once.
    leave: CancellationToken,
    /// Whether no call begins any more.
    is_over: bool,
}

/// The idle limit of a call's `timeout_sec`; 0 means none.
fn limit(timeout_sec: i32) -> Option<Duration> {
    u64::try_from(timeout_sec).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

impl Usage {
    pub(super) fn new(timeout_sec: i32) -> Self {
        let last = Last {
            used: Instant::now(),
            unix: unix_now(),
            limit: limit(timeout_sec),
            leave: CancellationToken::new(),
            is_over: false,
        };
        Self { calls: watch::Sender::new(0), last: Mutex::new(last) }
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts as use.
    pub(super) fn touch(&self) {
        let mut last = self.last();
        last.used = Instant::now();
        last.unix = unix_now();
    }

    /// Says when it was last used before this agent. Idle time counts from now all the same.
    pub(super) fn was_used_at(&self, unix: i64) {
        self.last().unix = unix;
    }

    /// Sets another idle limit, counted from now.
    pub(super) fn set_timeout(&self, timeout_sec: i32) {
        self.last().limit = limit(timeout_sec);
        self.touch();
    }

    /// The idle limit as calls have it.
    pub(super) fn timeout_sec(&self) -> i32 {
        let limit = self.last().limit.unwrap_or_default();
        i32::try_from(limit.as_secs()).unwrap_or(i32::MAX)
    }

    /// When it was last used; now, while a call runs.
    pub(super) fn last_active_at_unix(&self) -> i64 {
        if *self.calls.borrow() > 0 { unix_now() } else { self.last().unix }
    }

    /// Whether nobody has used it for its limit.
    pub(super) fn is_idle(&self) -> bool {
        let last = self.last();
        let over = last.limit.is_some_and(|limit| last.used.elapsed() >= limit);
        over && *self.calls.borrow() == 0
    }

    /// Tries to pause it no sooner than after its limit again.
    fn put_off(&self) {
        self.last().used = Instant::now();
    }

    /// Ends the calls that run, and waits until they have ended what they did in the guest.
    pub(super) async fn leave(&self) {
        self.last().leave.cancel();
        let mut calls = self.calls.subscribe();
        // A call that does not end loses its connection next: the guest ends what belongs to it.
        let _ = timeout(LEAVE_PATIENCE, calls.wait_for(|calls| *calls == 0)).await;
    }

    /// Lets calls begin again, unless the agent ends.
    pub(super) fn stay(&self) {
        let mut last = self.last();
        if !last.is_over {
            last.leave = CancellationToken::new();
        }
    }

    /// [`Usage::leave`] for good, because the agent ends.
    pub(super) async fn end(&self) {
        self.last().is_over = true;
        self.leave().await;
    }
}

/// A call's hold on a running sandbox, with a client of its guest.
#[derive(Debug)]
pub struct InUse {
    sandbox: Arc<Sandbox>,
    guest: GuestClient,
    leave: CancellationToken,
}

impl InUse {
    /// Begins a call.
    pub(super) fn begin(sandbox: Arc<Sandbox>) -> Result<Self, Error> {
        // Counted before the state is looked at: whoever pauses looks at them the other way round.
        sandbox.usage.calls.send_modify(|calls| *calls += 1);
        let leave = sandbox.usage.last().leave.clone();
        match sandbox.guest() {
            Ok(guest) => Ok(Self { sandbox, guest, leave }),
            Err(error) => {
                sandbox.usage.calls.send_modify(|calls| *calls -= 1);
                Err(error)
            }
        }
    }

    /// What a call is answered that has to leave.
    pub fn left(&self) -> Error {
        match self.sandbox.state() {
            // It goes on, and it is the agent that ends.
            State::Running => Error::Closing,
            state => self.sandbox.wrong_state(state),
        }
    }

    /// Waits until the call has to end, because the sandbox is being paused or put back, or the agent ends.
    pub fn has_to_leave(&self) -> impl Future<Output = ()> + Send + use<> {
        self.leave.clone().cancelled_owned()
    }

    /// Waits until the sandbox is being destroyed. Calls of its guest fail then by themselves; this is for whoever
    /// waits for something else.
    pub fn is_over(&self) -> impl Future<Output = ()> + Send + use<> {
        self.sandbox.cancelled().clone().cancelled_owned()
    }
}

impl Clone for InUse {
    fn clone(&self) -> Self {
        self.sandbox.usage.calls.send_modify(|calls| *calls += 1);
        let (sandbox, guest) = (self.sandbox.clone(), self.guest.clone());
        Self { sandbox, guest, leave: self.leave.clone() }
    }
}

impl Deref for InUse {
    type Target = GuestClient;

    fn deref(&self) -> &GuestClient {
        &self.guest
    }
}

impl DerefMut for InUse {
    fn deref_mut(&mut self) -> &mut GuestClient {
        &mut self.guest
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.sandbox.usage.touch();
        self.sandbox.usage.calls.send_modify(|calls| *calls -= 1);
    }
}

/// Ids of sandboxes that the reaper paused, until somebody asks.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<VecDeque<SandboxId>>);

impl Told {
    fn ids(&self) -> MutexGuard<'_, VecDeque<SandboxId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, id: SandboxId) {
        let mut ids = self.ids();
        if !ids.contains(&id) {
            ids.push_back(id);
        }
        if ids.len() > TOLD_MAX {
            ids.pop_front();
        }
    }

    /// Takes them all.
    pub(super) fn drain(&self) -> Vec<SandboxId> {
        self.ids().drain(..).collect()
    }
}

/// Pauses sandboxes that are idle, until `shutdown` is cancelled.
pub async fn run(manager: Manager, shutdown: CancellationToken) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            () = shutdown.cancelled() => return,
        }
        let idle: Vec<_> = manager.sandboxes().into_iter().filter(|s| s.usage.is_idle()).collect();
        let reaped = futures::stream::iter(idle)
            .for_each_concurrent(PAUSES_AT_ONCE, |sandbox| reap(&manager, sandbox));
        tokio::select! {
            () = reaped => {}
            // What was begun is done to the end all the same; the next agent tells it.
            () = shutdown.cancelled() => return,
        }
    }
}

async fn reap(manager: &Manager, sandbox: Arc<Sandbox>) {
    let id = sandbox.wish.id.clone();
    match manager.pause_when_idle(&sandbox).await {
        Ok(true) => {
            let seconds = sandbox.usage.timeout_sec();
            tracing::info!(sandbox.id = %id, seconds, "sandbox was idle and is paused");
            manager.told().add(id);
        }
        // Used, paused or destroyed meanwhile.
        Ok(false) => {}
        Err(error) => {
            sandbox.usage.put_off();
            let error = telemetry::chain(&error);
            tracing::warn!(sandbox.id = %id, error, "idle sandbox could not be paused");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn sandbox_is_idle_after_its_limit_without_use_and_never_without_a_limit() {
        let (limited, endless) = (Usage::new(10), Usage::new(0));
        tokio::time::advance(Duration::from_secs(9)).await;
        assert!(!limited.is_idle());
        limited.touch();
        tokio::time::advance(Duration::from_secs(9)).await;
        assert!(!limited.is_idle());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(limited.is_idle());
        tokio::time::advance(Duration::from_secs(1 << 30)).await;
        assert!(!endless.is_idle());
        endless.set_timeout(5);
        assert!(!endless.is_idle(), "a new limit counts from now");
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(endless.is_idle());
        assert_eq!((limited.timeout_sec(), endless.timeout_sec()), (10, 5));
    }

    #[tokio::test(start_paused = true)]
    async fn running_call_is_use_and_is_told_to_leave() {
        let usage = Usage::new(10);
        usage.calls.send_modify(|calls| *calls += 1);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert!(!usage.is_idle());
        let leave = usage.last().leave.clone();
        let end = async {
            leave.cancelled().await;
            usage.calls.send_modify(|calls| *calls -= 1);
        };
        let started = Instant::now();
        tokio::join!(usage.leave(), end);
        assert!(started.elapsed() < LEAVE_PATIENCE);
        usage.stay();
        assert!(!usage.last().leave.is_cancelled());
        usage.calls.send_modify(|calls| *calls -= *calls);
        usage.end().await;
        usage.stay();
        assert!(usage.last().leave.is_cancelled(), "no call begins while the agent ends");
    }

    #[test]
    fn ids_are_told_once_in_order_and_bounded() {
        let told = Told::default();
        let id = |n: usize| SandboxId::new(&format!("s{n}")).unwrap();
        for n in [1, 2, 1] {
            told.add(id(n));
        }
        assert_eq!(told.drain(), [id(1), id(2)]);
        assert!(told.drain().is_empty());
        (0..=TOLD_MAX).for_each(|n| told.add(id(n)));
        let drained = told.drain();
        assert_eq!((drained.len(), &drained[0]), (TOLD_MAX, &id(1)));
    }
}
