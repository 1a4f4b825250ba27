//! JSON request bodies: bounded in size and time, and held against their published schema.
//!
//! The handler gets the raw value together with everything that does not fit, not a refusal: so it can
//! add what only it knows, and the client hears of all its mistakes at once.

use std::{marker::PhantomData, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use poem::{Body, Request, RequestBody, http::header};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    payload::{Json, Payload},
    registry::{MetaMediaType, MetaRequest, Registry},
    types::{ParseFromJSON, Type},
};
use serde_json::Value;

use super::{code::Code, error::Failure, schema};
use crate::{app::Problem, config};

/// How much of a body over the limit is still read, in bytes: a client that is refused while it writes
/// sees a broken connection instead of the answer.
const DRAIN_MAX: usize = 4 * 1024 * 1024;
/// How long that may take.
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// A body that should be a `T`.
#[derive(Debug)]
pub struct Submitted<T> {
    /// What was sent; valid JSON.
    pub value: Value,
    /// Where it does not fit the schema of `T`.
    pub problems: Vec<Problem>,
    kind: PhantomData<fn() -> T>,
}

impl<T: ParseFromJSON> Submitted<T> {
    /// What was sent, when all of it fits.
    ///
    /// # Errors
    /// [`Code::Invalid`] with everything that does not.
    pub fn accepted(self) -> Result<T, Failure> {
        if !self.problems.is_empty() {
            return Err(Failure::with_problems(Code::Invalid, self.problems));
        }
        T::parse_from_json(Some(self.value)).map_err(|error| {
            let problem = Problem::new(Problem::WHOLE, "invalid_value", error.into_message());
            Failure::with_problems(Code::Invalid, vec![problem])
        })
    }
}

impl<'a, T: Type> ApiExtractor<'a> for Submitted<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        T::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        Some(MetaRequest {
            description: None,
            content: vec![MetaMediaType {
                content_type: <Json<T> as Payload>::CONTENT_TYPE,
                schema: T::schema_ref(),
            }],
            required: true,
        })
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _: ExtractParamOptions<Self::ParamType>,
    ) -> poem::Result<Self> {
        let limits = request.data::<Arc<config::Http>>().ok_or_else(|| {
            tracing::error!("no limits for bodies are configured");
            Failure::new(Code::Internal)
        })?;
        if !request.content_type().is_some_and(<Json<T> as Payload>::check_content_type) {
            return Err(Failure::new(Code::UnsupportedMediaType).into());
        }
        let bytes = read(body.take()?, limits).await?;
        let value = serde_json::from_slice(&bytes).map_err(|error| {
            Failure::with_message(
                Code::MalformedRequest,
                format!("the body is no valid JSON: {error}"),
            )
        })?;
        let mut registry = Registry::new();
        T::register(&mut registry);
        let problems = schema::check(&registry, &T::schema_ref(), &value);
        Ok(Self { value, problems, kind: PhantomData })
    }
}

/// A body that should be a `T` and may be left out; it is an empty object then.
#[derive(Debug)]
pub struct Optional<T>(pub Submitted<T>);

impl<'a, T: Type> ApiExtractor<'a> for Optional<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        Submitted::<T>::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        Submitted::<T>::request_meta().map(|meta| MetaRequest { required: false, ..meta })
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        options: ExtractParamOptions<Self::ParamType>,
    ) -> poem::Result<Self> {
        let length = request.header(header::CONTENT_LENGTH);
        let is_chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
        if !is_chunked && length.is_none_or(|length| length == "0") {
            let value = Value::Object(serde_json::Map::new());
            return Ok(Self(Submitted { value, problems: Vec::new(), kind: PhantomData }));
        }
        Submitted::from_request(request, body, options).await.map(Self)
    }
}

/// Reads on without keeping anything, so that a client that still writes sees the answer.
pub(super) async fn drain(chunks: impl Stream<Item = std::io::Result<Bytes>> + Send) {
    let mut chunks = std::pin::pin!(chunks);
    let mut drained = 0;
    let drain = async {
        while let Some(Ok(more)) = chunks.next().await {
            drained += more.len();
            if drained > DRAIN_MAX {
                break;
            }
        }
    };
    // What the client still sends is of no use: whether it ended does not matter.
    let _ = tokio::time::timeout(DRAIN_TIME, drain).await;
}

/// The whole body, as far as the limits let it be read.
pub(super) async fn read(body: Body, limits: &config::Http) -> Result<Vec<u8>, Failure> {
    tokio::time::timeout(limits.body_timeout, collect(body, limits))
        .await
        .map_err(|_| Failure::new(Code::RequestTimeout))?
}

async fn collect(body: Body, limits: &config::Http) -> Result<Vec<u8>, Failure> {
    let mut chunks = body.into_bytes_stream();
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| {
            Failure::with_message(Code::MalformedRequest, "the body ended before its time")
        })?;
        if bytes.len() + chunk.len() > limits.body_max_bytes {
            drain(chunks).await;
            let message = format!("the body is over {} bytes", limits.body_max_bytes);
            return Err(Failure::with_message(Code::BodyTooLarge, message));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
