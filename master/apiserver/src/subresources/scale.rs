//! `…/scale`: the number of replicas of a workload as an `autoscaling/v1` Scale.

use std::sync::Arc;

use http::{Response, StatusCode};
use schema::{FieldError, Kind, Manager, Part, Registry, scale};
use serde_json::Value;

use crate::body::{self, Body};
use crate::conversion;
use crate::objects::{self, Applier, Change, Patch};
use crate::problem::{Problem, Result};
use crate::road::Call;
use crate::server::Core;

const VERSION: &str = "autoscaling/v1";

pub(super) async fn answer(core: &Arc<Core>, call: &mut Call, body: Body) -> Result<Response<Body>> {
    let json = match call.verb {
        "get" => objects::find(core, call)?.json().clone(),
        "update" => {
            let dry_run = call.query.dry_run("UpdateOptions")?;
            let asked = super::body_of(call, VERSION, "Scale", body).await?;
            let manager = Some(objects::manager(call, "UpdateOptions")?);
            change(core, call, (dry_run, manager), &|old| scaled(call, old, &asked)).await?
        }
        "patch" => {
            let dry_run = call.query.dry_run("PatchOptions")?;
            let patch = Patch::parse(&call.head.headers, &body::read(body).await?)?;
            let applier = Applier::of(call, &patch)?;
            let manager = applier.unnoted(&patch);
            change(core, call, (dry_run, manager), &|old| patched(call, old, (&patch, &applier))).await?
        }
        _ => return Err(Problem::method_not_allowed()),
    };
    let object = conversion::shown(core, call.kind, &json).await?;
    body::value(call.accept.format, StatusCode::OK, &scale::of(call.kind, &object))
}

fn scale_kind() -> Result<&'static Kind> {
    Registry::builtin().by_kind(VERSION, "Scale").ok_or_else(|| Problem::internal("no kind Scale"))
}

/// Makes the workload what `make` makes of it.
async fn change(
    core: &Arc<Core>,
    call: &Call,
    (dry_run, manager): (bool, Option<Manager>),
    make: &(dyn Fn(&Value) -> Result<Value> + Send + Sync),
) -> Result<bytes::Bytes> {
    objects::modify(core, call, Change { part: Part::Main, make, dry_run, unconditional: true, manager }).await
}

/// The workload under a patch of its Scale. An apply owns the workload's own field (`managedfields.ScaleHandler`).
fn patched(call: &Call, old: &Value, (patch, applier): (&Patch, &Applier)) -> Result<Value> {
    let kind = scale_kind()?;
    let Patch::Apply(config) = patch else {
        return scaled(call, old, &patch.apply(kind, &scale::of(call.kind, old), applier)?);
    };
    // Refuses what is no Scale.
    applier.apply(kind, None, config)?;
    let config = scale::configuration(call.kind, config);
    let object = applier.apply(call.kind, Some(old), &config)?;
    checked(call, &scale::of(call.kind, &object))?;
    Ok(object)
}

/// The workload with the replicas of a Scale.
pub(crate) fn scaled(call: &Call, old: &Value, scale: &Value) -> Result<Value> {
    checked(call, scale)?;
    Ok(scale::apply(call.kind, old, scale))
}

fn checked(call: &Call, scale: &Value) -> Result<()> {
    let name = call.path.name.as_str();
    let replicas = scale.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(0);
    if replicas < 0 {
        let message = format!("Invalid value: {replicas}: must be greater than or equal to 0");
        let error = FieldError { reason: "FieldValueInvalid", field: "spec.replicas".into(), message };
        return Err(Problem::invalid_field("autoscaling", "Scale", name, error));
    }
    let said = scale.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    if said != name {
        return Err(Problem::bad_request(format!(
            "the name of the object ({said}) does not match the name on the URL ({name})"
        )));
    }
    Ok(())
}
