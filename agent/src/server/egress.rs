//! A request's egress lists and bandwidth as a policy. What they mean is decided in `ovenbird_host::net`.

use ovenbird_host::net::{ENTRIES_MAX, Policy, Target};
use ovenbird_hostagent::v1 as host;
use tonic::Status;

use crate::sandbox::Settings;

/// Reads and checks them.
pub(super) fn policy(
    request: &host::CreateSandboxRequest,
    settings: &Settings,
) -> Result<Policy, Status> {
    let host::Egress { allow, deny } = request.egress.clone().unwrap_or_default();
    let bandwidth_kbit = match request.bandwidth_kbit {
        0 => settings.bandwidth_kbit,
        kbit => u32::try_from(kbit).map_err(|_| {
            invalid(format!("bandwidth_kbit is {kbit}: it must be from 64 to 10000000, or 0"))
        })?,
    };
    let policy =
        Policy { allow: list("allow", &allow)?, deny: list("deny", &deny)?, bandwidth_kbit };
    policy
        .check(settings.egress_private)
        .map_err(|refused| invalid(format!("egress: {refused}")))?;
    Ok(policy)
}

fn list(name: &str, entries: &[String]) -> Result<Vec<Target>, Status> {
    // One more is enough for the check to see that there are too many.
    entries
        .iter()
        .take(ENTRIES_MAX + 1)
        .map(|entry| entry.parse().map_err(|error| invalid(format!("egress.{name}: {error}"))))
        .collect()
}

fn invalid(message: String) -> Status {
    Status::invalid_argument(message)
}
