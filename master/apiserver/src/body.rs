//! Bodies in and out.

use std::error::Error;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, Stream, StreamExt as _};
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Collected, Full, LengthLimitError, Limited, StreamBody};
use schema::protobuf;
use serde_json::Value;

use crate::problem::{Problem, Result};
use crate::request::Format;

/// What went wrong while a body was read or produced.
pub type BoxError = Box<dyn Error + Send + Sync>;
/// A body in either direction.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Upstream's `MaxRequestBodyBytes`.
pub(crate) const LIMIT: usize = 3 * 1024 * 1024;

pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(crate) const YAML: HeaderValue = HeaderValue::from_static("application/yaml");
pub(crate) const PROTOBUF: HeaderValue = HeaderValue::from_static(protobuf::MEDIA_TYPE);
pub(crate) const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn stream<S>(chunks: S) -> Body
where
    S: Stream<Item = Result<Bytes, BoxError>> + Send + 'static,
{
    StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data))).boxed_unsync()
}

/// A whole response.
pub(crate) fn respond(status: StatusCode, content_type: HeaderValue, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(full(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

pub(crate) fn json(status: StatusCode, value: &Value) -> Response<Body> {
    respond(status, JSON, value.to_string())
}

/// Any value as the client wants it written.
pub(crate) fn value(format: Format, status: StatusCode, value: &Value) -> Result<Response<Body>> {
    Ok(match format {
        Format::Json => json(status, value),
        Format::Yaml => respond(status, YAML, serde_saphyr::to_string(value).map_err(|error| unwritten(&error))?),
        Format::Protobuf => protobuf(status, protobuf::encode(value))?,
    })
}

pub(crate) fn protobuf(status: StatusCode, encoded: Result<Vec<u8>, protobuf::Error>) -> Result<Response<Body>> {
    Ok(respond(status, PROTOBUF, encoded.map_err(|error| unwritten(&error))?))
}

fn unwritten(error: &dyn Error) -> Problem {
    tracing::error!(%error, "answer cannot be encoded");
    Problem::internal("the answer cannot be encoded")
}

pub(crate) fn problem(problem: &Problem, format: Format) -> Response<Body> {
    let status = problem.to_value();
    let mut response = value(format, problem.status(), &status).unwrap_or_else(|_| json(problem.status(), &status));
    if let Some(seconds) = problem.retry_after() {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// Upstream's answer to a path that no API has.
pub(crate) fn no_such_path() -> Response<Body> {
    respond(StatusCode::NOT_FOUND, TEXT, "404 page not found\n")
}

/// Reads a request body, at most [`LIMIT`] bytes.
pub(crate) async fn read(body: Body) -> Result<Bytes> {
    let whole: BoxFuture<'static, Result<Collected<Bytes>, BoxError>> = Limited::new(body, LIMIT).collect().boxed();
    match whole.await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Problem::too_large(LIMIT)),
        Err(error) => Err(Problem::bad_request(format!("the body of the request could not be read: {error}"))),
    }
}
