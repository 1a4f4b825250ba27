//! A collector of spans, as OpenTelemetry's own is one: OTLP over gRPC.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1 as otlp,
};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// A span as it came.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    /// The process.
    pub(crate) service: String,
    pub(crate) name: String,
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Empty: none.
    pub(crate) parent: String,
    pub(crate) is_error: bool,
    /// Attributes, as texts.
    pub(crate) fields: BTreeMap<String, String>,
}

impl Span {
    fn new(service: &str, span: otlp::Span) -> Self {
        let status = span.status.map(|status| status.code());
        Self {
            service: service.to_owned(),
            name: span.name,
            trace: hex::encode(span.trace_id),
            id: hex::encode(span.span_id),
            parent: hex::encode(span.parent_span_id),
            is_error: status == Some(otlp::status::StatusCode::Error),
            fields: fields(span.attributes),
        }
    }

    /// An attribute; empty: none.
    pub(crate) fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }
}

fn fields(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |attribute: KeyValue| match attribute.value?.value? {
        Value::StringValue(text) => Some((attribute.key, text)),
        Value::IntValue(number) => Some((attribute.key, number.to_string())),
        Value::BoolValue(is) => Some((attribute.key, is.to_string())),
        _ => None,
    };
    attributes.into_iter().filter_map(text).collect()
}

#[derive(Debug, Clone, Default)]
struct Spans(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Spans {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of_process in request.into_inner().resource_spans {
            let resource = fields(of_process.resource.unwrap_or_default().attributes);
            let service = resource["service.name"].clone();
            let spans = of_process.scope_spans.into_iter().flat_map(|scope| scope.spans);
            self.0.lock().unwrap().extend(spans.map(|span| Span::new(&service, span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Collects until it is dropped.
pub(crate) struct Collector {
    pub(crate) port: u16,
    spans: Spans,
    server: JoinHandle<()>,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let spans = Spans::default();
        let served = Server::builder()
            .add_service(TraceServiceServer::new(spans.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let server = tokio::spawn(async { served.await.unwrap() });
        Self { port, spans, server }
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        self.spans.0.lock().unwrap().clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}
