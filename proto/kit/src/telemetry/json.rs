//! Log lines as JSON objects, flat: what the line says, and the ids of everything that it belongs to.
//!
//! ```json
//! {"timestamp":"…","level":"INFO","service":"ovenbird-runner","target":"ovenbird_runner::attempt","span":"attempt",
//!  "build_id":"bld_…","attempt":1,"trace_id":"4bf9…","host_id":"hst_…","message":"build claimed"}
//! ```
//!
//! A field of a span stands in every line within it, under its own name with `_` for `.`; one of an inner span, or of
//! the line itself, goes over one of the same name.

use std::fmt;

use serde_json::{Map, Value};
use tracing::{Event, Subscriber};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields, FormattedFields,
        format::Writer,
        time::{FormatTime as _, SystemTime},
    },
    registry::LookupSpan,
};

use super::FOR_COLLECTOR;

/// Writes one line for each event. The fields must be formatted as JSON.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    service: &'static str,
}

impl Line {
    pub(super) fn new(service: &'static str) -> Self {
        Self { service }
    }
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Map::new();
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
                add(&mut line, fields);
            }
            line.insert("span".into(), span.name().into());
        }
        let mut fields = String::new();
        context.format_fields(Writer::new(&mut fields), event)?;
        add(&mut line, &fields);
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        line.insert("timestamp".into(), timestamp.into());
        line.insert("level".into(), event.metadata().level().as_str().into());
        line.insert("target".into(), event.metadata().target().into());
        line.insert("service".into(), self.service.into());
        writeln!(writer, "{}", Value::Object(line))
    }
}

/// Adds the fields of a JSON object.
fn add(line: &mut Map<String, Value>, fields: &str) {
    let Ok(Value::Object(fields)) = serde_json::from_str(fields) else { return };
    for (name, value) in fields {
        if !name.starts_with(FOR_COLLECTOR) {
            line.insert(name.replace('.', "_"), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use tracing_subscriber::{
        fmt::{MakeWriter, format::JsonFields, layer},
        prelude::*,
    };

    use super::*;
    use crate::telemetry::trace;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Lines {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn every_line_of_a_span_has_the_ids_of_the_spans_around_it() {
        let lines = Lines::default();
        let json = layer()
            .fmt_fields(JsonFields::new())
            .event_format(Line::new("kit-test"))
            .with_writer(lines.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(json), || {
            let outer = tracing::info_span!(
                "attempt",
                build.id = "bld_1",
                attempt = 2,
                otel.kind = "consumer",
                trace.id = tracing::field::Empty
            );
            trace::join(&outer, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
            let _outer = outer.enter();
            let _inner = tracing::info_span!("step", step = 3).entered();
            tracing::warn!(step = 4, why = "\"it\"\n", "a line\nof two");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let mut line: Map<String, Value> = serde_json::from_str(&text).unwrap();
        assert!(line.remove("timestamp").unwrap().as_str().unwrap().ends_with('Z'));
        let expected = serde_json::json!({
            "level": "WARN", "target": module_path!(), "service": "kit-test", "span": "step",
            "build_id": "bld_1", "attempt": 2, "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
            "step": 4, "why": "\"it\"\n", "message": "a line\nof two",
        });
        assert_eq!(Value::Object(line), expected);
    }
}
