//! Patches: JSON, merge and strategic merge.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use json_patch::PatchOperation;
use schema::{FieldValidation, Kind, Part};
use serde_json::Value;

use super::{Change, codec, meta, modify, render};
use crate::body::{self, Body};
use crate::problem::{Problem, Result};
use crate::request::media_type;
use crate::road::Call;
use crate::server::Core;

const ACCEPTED: &str =
    "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json";
/// How many operations one JSON patch may have (`handlers.maxJSONPatchOperations`).
const MOST_OPERATIONS: usize = 10_000;

/// A patch that was read.
pub(crate) enum Patch {
    Json(Vec<PatchOperation>),
    Merge(Value),
    Strategic(Value),
}

impl Patch {
    pub(crate) fn parse(headers: &HeaderMap, body: &Bytes) -> Result<Self> {
        let value = || -> Result<Value> {
            serde_json::from_slice(body).map_err(|error| Problem::bad_request(format!("error decoding patch: {error}")))
        };
        match media_type(headers) {
            "application/json-patch+json" => {
                let operations: Vec<PatchOperation> = serde_json::from_slice(body)
                    .map_err(|error| Problem::bad_request(format!("error decoding patch: {error}")))?;
                if operations.len() > MOST_OPERATIONS {
                    return Err(Problem::new(
                        413,
                        "RequestEntityTooLarge",
                        format!(
                            "The allowed maximum operations in a JSON patch is {MOST_OPERATIONS}, got {}",
                            operations.len()
                        ),
                    ));
                }
                Ok(Patch::Json(operations))
            }
            "application/merge-patch+json" => object_only(value()?).map(Patch::Merge),
            "application/strategic-merge-patch+json" => object_only(value()?).map(Patch::Strategic),
            "application/apply-patch+yaml" => Err(Problem::new(
                415,
                "UnsupportedMediaType",
                format!("server-side apply is not supported by this server - accepted media types include: {ACCEPTED}"),
            )),
            _ => Err(Problem::unsupported_media_type(ACCEPTED)),
        }
    }

    /// The patched object, not yet decoded.
    pub(crate) fn apply(&self, kind: &Kind, old: &Value) -> Result<Value> {
        match self {
            Patch::Json(operations) => {
                let mut object = old.clone();
                json_patch::patch(&mut object, operations).map_err(|error| {
                    Problem::new(
                        422,
                        "Invalid",
                        format!("the server rejected our request due to an error in our request: {error}"),
                    )
                })?;
                Ok(object)
            }
            Patch::Merge(patch) => {
                let mut object = old.clone();
                json_patch::merge(&mut object, patch);
                Ok(object)
            }
            Patch::Strategic(patch) => {
                kind.strategic_merge(old, patch).map_err(|error| Problem::bad_request(error.to_string()))
            }
        }
    }
}

fn object_only(patch: Value) -> Result<Value> {
    if patch.is_object() {
        return Ok(patch);
    }
    Err(Problem::bad_request(
        "error decoding patch: json: cannot unmarshal into Go value of type map[string]interface {}",
    ))
}

pub(super) async fn answer(core: &Arc<Core>, call: &mut Call, body: Body, part: Part) -> Result<Response<Body>> {
    let dry_run = call.query.dry_run("PatchOptions")?;
    let validation = call.query.field_validation("PatchOptions")?;
    let patch = Patch::parse(&call.head.headers, &body::read(body).await?)?;
    let warnings = Mutex::new(Vec::new());
    let (kind, name) = (call.kind, call.path.name.clone());
    let make = |old: &Value| {
        let (object, said) = patched(kind, &name, &patch, (old, validation))?;
        *warnings.lock().unwrap_or_else(PoisonError::into_inner) = said;
        Ok(object)
    };
    let json = modify(core, call, Change { part, make: &make, dry_run, unconditional: true }).await?;
    call.warnings.append(&mut warnings.into_inner().unwrap_or_else(PoisonError::into_inner));
    render(call, StatusCode::OK, &json)
}

fn patched(
    kind: &'static Kind,
    name: &str,
    patch: &Patch,
    (old, validation): (&Value, FieldValidation),
) -> Result<(Value, Vec<String>)> {
    let mut warnings = Vec::new();
    let object = patch.apply(kind, old)?;
    let mut object = codec::decode_value(kind, object, validation, &mut warnings)?;
    meta::clear(&mut object, &["managedFields", "selfLink"]);
    let found = meta::text(&object, "name");
    if found != name {
        return Err(Problem::bad_request(format!(
            "the name of the object ({found}) does not match the name on the URL ({name})"
        )));
    }
    Ok((object, warnings))
}
