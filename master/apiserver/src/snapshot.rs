//! `GET /keelson/snapshot`: every object of one moment, for `master backup`. Who gets it has all Secrets: only who may do everything.

use std::sync::Arc;

use http::header::HeaderValue;
use http::{Method, Response, StatusCode};
use store::Snapshot;

use crate::body::{self, Body};
use crate::problem::{Problem, Result};
use crate::server::Core;

/// Where `master backup` asks.
pub const PATH: &str = "/keelson/snapshot";
const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");

pub(crate) async fn answer(core: Arc<Core>, method: &Method) -> Result<Response<Body>> {
    if *method != Method::GET {
        return Err(Problem::method_not_allowed());
    }
    // Copying everything takes a moment, in which other requests go on.
    let taken =
        tokio::task::spawn_blocking(move || Snapshot::take(&core.store).map(|snapshot| snapshot.encode())).await;
    match taken {
        Ok(Ok(bytes)) => Ok(body::respond(StatusCode::OK, BINARY, bytes)),
        Ok(Err(error)) => Err(Problem::internal(&error.to_string())),
        Err(_) => Err(Problem::internal("the snapshot could not be taken")),
    }
}
