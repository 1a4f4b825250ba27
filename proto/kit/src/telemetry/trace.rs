//! Which trace a span belongs to, in W3C's words (`traceparent`, <https://www.w3.org/TR/trace-context/>).
//!
//! A process takes a `traceparent` from whoever asks, [`join`]s its span to it, and hands the span's own one on. Where
//! no spans are exported there is none, and the caller's goes on as it came: whoever exports is joined to whoever
//! exported before.

use std::collections::HashMap;

use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The header, metadata and field of the specification.
pub const TRACEPARENT: &str = "traceparent";
/// The field of a span that [`join`] fills in.
const TRACE_ID: &str = "trace.id";

/// Makes `span`, which nobody has entered yet, part of the trace of `traceparent`, and notes the trace's id in the
/// field `trace.id` of the span if it has one. What is no `traceparent` is no trace.
pub fn join(span: &Span, traceparent: &str) {
    if !is_valid(traceparent) {
        return;
    }
    let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
    let parent = TraceContextPropagator::new().extract(&carrier);
    // Where nothing is exported there is nobody to be told.
    let _ = span.set_parent(parent);
    span.record(TRACE_ID, id(traceparent));
}

/// Notes the id of the trace that `span` itself has begun, and answers with its `traceparent`; nothing where no spans
/// are exported.
pub fn begin(span: &Span) -> Option<String> {
    let traceparent = traceparent(span)?;
    span.record(TRACE_ID, id(&traceparent));
    Some(traceparent)
}

/// The `traceparent` for whatever is asked of others in this span; nothing where no spans are exported.
pub fn traceparent(span: &Span) -> Option<String> {
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&span.context(), &mut carrier);
    carrier.remove(TRACEPARENT)
}

/// The `traceparent` for whatever is asked of others here: the present span's, else `given`, if it is one.
pub fn present(given: &str) -> Option<String> {
    traceparent(&Span::current()).or_else(|| Some(given.to_owned()).filter(|it| is_valid(it)))
}

/// The trace's id in a valid `traceparent`.
fn id(traceparent: &str) -> &str {
    traceparent.split('-').nth(1).unwrap_or_default()
}

/// Whether this is a `traceparent` of the version that is known.
pub fn is_valid(text: &str) -> bool {
    let parts: Vec<&str> = text.split('-').collect();
    let hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let not_zero = |part: &str| part.bytes().any(|byte| byte != b'0');
    match parts.as_slice() {
        ["00", trace, span, flags] => {
            hex(trace, 32) && not_zero(trace) && hex(span, 16) && not_zero(span) && hex(flags, 2)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_sdk::trace::{InMemorySpanExporter, Sampler, SdkTracerProvider};
    use tracing_subscriber::prelude::*;

    use super::*;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn traceparent_is_valid_only_as_the_specification_has_it() {
        assert!(is_valid(GIVEN));
        for broken in ["", "00-0-0-01", &GIVEN.replace('4', "Z"), &GIVEN.replace("00-", "01-")] {
            assert!(!is_valid(broken), "{broken}");
        }
    }

    #[test]
    fn without_a_collector_the_given_trace_goes_on_as_it_came() {
        let subscriber = tracing_subscriber::registry();
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("work", trace.id = tracing::field::Empty);
            join(&span, GIVEN);
            let _entered = span.enter();
            assert_eq!((begin(&span), present(GIVEN).as_deref()), (None, Some(GIVEN)));
            assert_eq!(present("nonsense"), None);
        });
    }

    #[test]
    fn spans_are_joined_to_the_given_trace_and_no_trace_is_begun_where_none_may_be() {
        let exporter = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(exporter.clone())
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOff)))
            .build();
        let subscriber =
            tracing_subscriber::registry().with(crate::telemetry::export::layer(&provider));
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("joined");
            join(&span, GIVEN);
            let told = span.in_scope(|| {
                tracing::info!("not a span");
                drop(tracing::info_span!("inner"));
                present("").unwrap()
            });
            assert!(told.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{told}");
            assert!(told.ends_with("-01") && !told.contains("00f067aa0ba902b7"), "{told}");
            let own = tracing::info_span!("by itself");
            assert!(begin(&own).unwrap().ends_with("-00"));
        });
        let spans = exporter.get_finished_spans().unwrap();
        let names: Vec<&str> = spans.iter().map(|span| span.name.as_ref()).collect();
        assert_eq!(names, ["inner", "joined"]);
        assert_eq!(spans[1].parent_span_id.to_string(), "00f067aa0ba902b7");
        assert_eq!(spans[0].parent_span_id, spans[1].span_context.span_id());
        assert!(spans.iter().all(|span| span.events.is_empty()));
    }
}
