//! Waiting for a condition, with a deadline. The one place in tests that sleeps.

use std::{future::Future, time::Duration};

use tokio::time::Instant;

const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// The first value that `probe` gives, asked again and again until `deadline` has passed.
///
/// `what` completes the sentence "waited 5s in vain for …".
///
/// # Errors
/// When the deadline passed without a value; a probe that hangs is given up then, too.
pub async fn wait_for<T, F, Fut>(what: &str, deadline: Duration, mut probe: F) -> anyhow::Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let end = Instant::now() + deadline;
    let mut pause = FIRST_PAUSE;
    loop {
        match tokio::time::timeout_at(end, probe()).await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) if Instant::now() < end => {}
            Ok(None) | Err(_) => anyhow::bail!("waited {deadline:?} in vain for {what}"),
        }
        tokio::time::sleep_until(end.min(Instant::now() + pause)).await;
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}

/// Returns once `probe` says true.
///
/// # Panics
/// When the deadline passed before: this one is for tests.
pub async fn wait_until<F, Fut>(what: &str, deadline: Duration, mut probe: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let waited = wait_for(what, deadline, || {
        let answer = probe();
        async move { answer.await.then_some(()) }
    });
    if let Err(error) = waited.await {
        panic!("{error}");
    }
}
