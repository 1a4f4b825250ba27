//! Waiting for a build.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    Error,
    error::judge,
    rest::{
        Client,
        types::{Build, BuildStatus},
    },
};

/// Between two looks, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// The build once it has succeeded, failed or been cancelled.
///
/// # Errors
/// [`Error::Late`] when it has not after `within`; [`Error::Refused`] when there is no such build for this key.
pub async fn build_end(client: &Client, id: &str, within: Duration) -> Result<Build, Error> {
    let deadline = Instant::now() + within;
    let mut pause = PAUSES.0;
    loop {
        match client.build_get().id(id).send().await {
            Ok(build) if is_over(build.status) => return Ok(build.into_inner()),
            Ok(_) => {}
            Err(error) => drop(judge(error)?),
        }
        if Instant::now() + pause > deadline {
            return Err(Error::Late(within));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSES.1);
    }
}

fn is_over(status: BuildStatus) -> bool {
    matches!(status, BuildStatus::Succeeded | BuildStatus::Failed | BuildStatus::Cancelled)
}
