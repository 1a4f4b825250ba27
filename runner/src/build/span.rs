//! What a build does next, as a span: one for the boot, each try of a step, the healthcheck, the template.
//!
//! A step's command is not in it: whoever sees traces need not see what people write into recipes.

use ovenbird_contract::step::Phase;
use tracing::{Span, field::Empty};

use super::state::{Event, Next};

/// The phase and the span of what comes next; nothing when nothing does.
pub(super) fn of(next: &Next) -> Option<(Phase, Span)> {
    match next {
        Next::Boot { nth, .. } => {
            let span = tracing::info_span!("boot", nth, otel.status_code = Empty);
            Some((Phase::Boot, span))
        }
        Next::Step(work) => {
            let kind = work.cmd.split_whitespace().next().unwrap_or("?");
            let span = tracing::info_span!(
                "step",
                otel.name = format!("step {} {kind}", work.number),
                otel.status_code = Empty,
                step = work.number,
                kind,
                nth = work.nth,
                exit = Empty,
            );
            Some((Phase::Step, span))
        }
        Next::Health(..) => {
            let span = tracing::info_span!("health", otel.status_code = Empty, exit = Empty);
            Some((Phase::Health, span))
        }
        Next::Publish(kind) => {
            let (kind, status) = (kind.as_str(), Empty);
            let span =
                tracing::info_span!("publish", template.kind = kind, otel.status_code = status);
            Some((Phase::Publish, span))
        }
        Next::Over(_) => None,
    }
}

/// Notes the exit code of the present span's command.
pub(super) fn exited(code: i32) {
    Span::current().record("exit", code);
}

/// Whether what was to be done is done; notes in `span` if it is not.
pub(super) fn ended(span: &Span, event: &Event) -> bool {
    let is_done = !matches!(event, Event::NotReady(_) | Event::Failed { .. });
    if !is_done {
        span.record("otel.status_code", "ERROR");
    }
    is_done
}
