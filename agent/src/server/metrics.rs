//! Points of a sandbox's usage as messages.

use ovenbird_hostagent::v1 as host;
use tonic::Status;

use crate::metrics::rings::{Point, Range, UnknownRange};

/// The range of a request.
pub(super) fn range(name: &str) -> Result<Range, Status> {
    name.parse().map_err(|unknown: UnknownRange| Status::invalid_argument(unknown.to_string()))
}

pub(super) fn points(points: Vec<Point>) -> Vec<host::MetricPoint> {
    let signed = |bytes| i64::try_from(bytes).unwrap_or(i64::MAX);
    let message = |point: Point| host::MetricPoint {
        timestamp_unix: point.unix,
        cpu_pct: point.cpu_pct,
        mem_bytes: signed(point.mem_bytes),
        disk_bytes: signed(point.disk_bytes),
    };
    points.into_iter().map(message).collect()
}
