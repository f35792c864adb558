//! Patches: JSON, merge, strategic merge, and server-side apply.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use json_patch::PatchOperation;
use schema::{ApplyError, FieldError, FieldValidation, Kind, Manager, Part};
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_saphyr::DuplicateKeyPolicy;

use super::create::{Creation, create};
use super::manager::manager;
use super::operations::operate;
use super::update::named;
use super::{Change, codec, find, meta, modify, render};
use crate::body::{self, Body};
use crate::problem::{Problem, Result};
use crate::request::media_type;
use crate::road::{Call, permit_create};
use crate::server::Core;

const ACCEPTED: &str = "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml";
/// Of custom resources nothing says by what keys lists are merged.
const ACCEPTED_OF_CUSTOM: &str =
    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml";
/// How many operations one JSON patch may have (`handlers.maxJSONPatchOperations`).
const MOST_OPERATIONS: usize = 10_000;

/// A patch that was read.
pub(crate) enum Patch {
    Json(Vec<PatchOperation>),
    Merge(Value),
    Strategic(Value),
    /// A configuration to apply.
    Apply(Value),
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
            "application/apply-patch+yaml" => configuration(body).map(Patch::Apply),
            _ => Err(Problem::unsupported_media_type(ACCEPTED)),
        }
    }

    /// The patched object, not yet decoded.
    pub(crate) fn apply(&self, kind: &Kind, old: &Value, by: &Applier) -> Result<Value> {
        match self {
            Patch::Apply(config) => by.apply(kind, Some(old), config),
            Patch::Json(operations) => {
                let mut object = old.clone();
                operate(&mut object, operations).map_err(|error| {
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

/// JSON is YAML too, and read faster. Of a key that is there twice the last counts.
fn configuration(body: &Bytes) -> Result<Value> {
    if let Ok(value) = serde_json::from_slice(body) {
        return Ok(value);
    }
    let options = serde_saphyr::options! { duplicate_keys: DuplicateKeyPolicy::LastWins };
    serde_saphyr::from_slice_with_options(body, options)
        .map_err(|error| Problem::bad_request(format!("error decoding YAML: {error}")))
}

/// The first key that a configuration in YAML has twice, in the words of Go's parser.
fn repeated_key(body: &Bytes) -> Option<String> {
    if serde_json::from_slice::<IgnoredAny>(body).is_ok() {
        return None;
    }
    let options = serde_saphyr::options! { with_snippet: false };
    match serde_saphyr::from_slice_with_options::<Value>(body, options) {
        Err(serde_saphyr::Error::DuplicateMappingKey { key, location }) => {
            let (line, key) = (location.line(), key.unwrap_or_default());
            let what = format!("yaml: unmarshal errors:\n  line {line}: key {key:?} already set in map");
            Some(format!("error converting YAML to JSON: {what}"))
        }
        _ => None,
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

/// Who patches, and whether an apply takes fields from others.
pub(crate) struct Applier {
    pub manager: Manager,
    force: bool,
}

impl Applier {
    /// From the query (`ValidatePatchOptions`).
    pub(crate) fn of(call: &Call, patch: &Patch) -> Result<Self> {
        let is_apply = matches!(patch, Patch::Apply(_));
        if is_apply && call.query.get("fieldManager").is_empty() {
            let message = "Required value: is required for apply patch".into();
            let error = FieldError { reason: "FieldValueRequired", field: "fieldManager".into(), message };
            return Err(Problem::invalid_field("meta.k8s.io", "PatchOptions", "", error));
        }
        Ok(Applier { force: call.query.force(is_apply)?, manager: manager(call, "PatchOptions")? })
    }

    /// What applying a configuration makes of an object; its owners are noted in it.
    pub(crate) fn apply(&self, kind: &Kind, old: Option<&Value>, config: &Value) -> Result<Value> {
        kind.apply(old, config, &self.manager, self.force).map_err(|error| match &error {
            ApplyError::BadRequest(why) => Problem::bad_request(why),
            ApplyError::Typed(why) => Problem::untold(why),
            ApplyError::Conflicts(conflicts) => Problem::apply_conflict(&error.to_string(), conflicts),
        })
    }

    /// Who is noted by the server; an apply has noted itself.
    pub(crate) fn unnoted(&self, patch: &Patch) -> Option<Manager> {
        (!matches!(patch, Patch::Apply(_))).then(|| self.manager.clone())
    }
}

pub(super) async fn answer(core: &Arc<Core>, call: &mut Call, body: Body, part: Part) -> Result<Response<Body>> {
    let dry_run = call.query.dry_run("PatchOptions")?;
    let validation = call.query.field_validation("PatchOptions")?;
    let body = body::read(body).await?;
    let patch = Patch::parse(&call.head.headers, &body)?;
    if matches!(patch, Patch::Apply(_)) {
        match (validation, repeated_key(&body)) {
            (FieldValidation::Strict, Some(why)) => {
                return Err(Problem::bad_request(format!("error strict decoding YAML: {why}")));
            }
            (FieldValidation::Warn, Some(why)) => call.warnings.push(why),
            _ => {}
        }
    }
    if matches!(patch, Patch::Strategic(_)) && call.kind.custom.is_some() {
        return Err(Problem::unsupported_media_type(ACCEPTED_OF_CUSTOM));
    }
    let applier = Applier::of(call, &patch)?;
    if let (Patch::Apply(config), Part::Main) = (&patch, part)
        && find(core, call).is_err()
        && let Some(answered) = create_applied(core, call, config, (&applier, validation, dry_run)).await?
    {
        return Ok(answered);
    }
    let warnings = Mutex::new(Vec::new());
    let (kind, name) = (call.kind, call.path.name.clone());
    let make = |old: &Value| {
        let (object, said) = patched(kind, &name, (&patch, &applier), (old, validation))?;
        *warnings.lock().unwrap_or_else(PoisonError::into_inner) = said;
        Ok(object)
    };
    let manager = applier.unnoted(&patch);
    let json = modify(core, call, Change { part, make: &make, dry_run, unconditional: true, manager }).await?;
    call.warnings.append(&mut warnings.into_inner().unwrap_or_else(PoisonError::into_inner));
    render(core, call, StatusCode::OK, &json).await
}

/// An apply to a name that does not exist creates the object. `None` when somebody else has just made it.
async fn create_applied(
    core: &Arc<Core>,
    call: &mut Call,
    config: &Value,
    (applier, validation, dry_run): (&Applier, FieldValidation, bool),
) -> Result<Option<Response<Body>>> {
    permit_create(core, call)?;
    let object = applier.apply(call.kind, None, config)?;
    let mut object = codec::decode_value(call.kind, object, validation, &mut call.warnings)?;
    named(call, &object)?;
    meta::clear(&mut object, &["resourceVersion"]);
    let uid = meta::text(&object, "uid");
    if !uid.is_empty() {
        let why = format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
        return Err(Problem::conflict(call.kind, &call.path.name, &why));
    }
    match create(core, call, Creation { object, dry_run, manager: None }).await {
        Ok(json) => render(core, call, StatusCode::CREATED, &json).await.map(Some),
        Err(problem) if problem.reason == "AlreadyExists" => Ok(None),
        Err(problem) => Err(problem),
    }
}

fn patched(
    kind: &'static Kind,
    name: &str,
    (patch, applier): (&Patch, &Applier),
    (old, validation): (&Value, FieldValidation),
) -> Result<(Value, Vec<String>)> {
    let mut warnings = Vec::new();
    let object = patch.apply(kind, old, applier)?;
    let mut object = codec::decode_value(kind, object, validation, &mut warnings)?;
    meta::clear(&mut object, &["selfLink"]);
    let found = meta::text(&object, "name");
    if found != name {
        return Err(Problem::bad_request(format!(
            "the name of the object ({found}) does not match the name on the URL ({name})"
        )));
    }
    Ok((object, warnings))
}
