//! `/openapi/v2` and `/openapi/v3`.

use http::Response;
use http::request::Parts;

use crate::body::Body;

/// Answers paths of OpenAPI; `None` for others.
pub(crate) fn answer(_head: &Parts) -> Option<Response<Body>> {
    None
}
