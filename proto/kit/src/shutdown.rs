//! Turns SIGTERM and SIGINT into one cancellation token.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled at the first SIGTERM or SIGINT; at the second one the process exits with
/// code 130, for whoever does not want to wait.
///
/// # Panics
/// When called outside of a tokio runtime.
pub fn on_signals() -> CancellationToken {
    let token = CancellationToken::new();
    let cancelled = token.clone();
    let mut terminate = signal(SignalKind::terminate()).expect("a signal handler can be installed");
    let mut interrupt = signal(SignalKind::interrupt()).expect("a signal handler can be installed");
    // Owned by the runtime: it lives as long as the process, and only waits.
    tokio::spawn(async move {
        for round in 0..2 {
            tokio::select! {
                _ = terminate.recv() => tracing::info!("SIGTERM received, stopping"),
                _ = interrupt.recv() => tracing::info!("SIGINT received, stopping"),
            }
            if round == 1 {
                std::process::exit(130);
            }
            cancelled.cancel();
        }
    });
    token
}
