//! `pods/NAME/eviction`: a deletion that asks first (`pkg/registry/core/pod/storage/eviction.go`).

use std::sync::Arc;

use http::Response;
use jiff::Timestamp;
use serde_json::json;

use super::budget::{self, Terms};
use super::{admit, body_of, created, set_condition};
use crate::body::Body;
use crate::objects::{self, DeleteOptions};
use crate::problem::{Problem, Result};
use crate::road::Call;
use crate::server::Core;

/// How often the pod is marked anew when others change it meanwhile.
const ATTEMPTS: usize = 16;

pub(super) async fn answer(core: &Arc<Core>, call: &mut Call, body: Body) -> Result<Response<Body>> {
    let dry_run = call.query.dry_run("CreateOptions")?;
    let mut eviction = body_of(call, "policy/v1", "Eviction", body).await?;
    let said = eviction["metadata"]["name"].as_str().unwrap_or_default();
    if !said.is_empty() && said != call.path.name {
        return Err(Problem::bad_request("name in URL does not match name in Eviction object"));
    }
    admit(core, call, ("policy", "v1", "Eviction"), &mut eviction, dry_run).await?;
    let options = DeleteOptions::from_value(&eviction["deleteOptions"])?.with_dry_run(dry_run);
    for _ in 0..ATTEMPTS {
        let pod = objects::stored(call.kind, objects::find(core, call)?.json())?;
        objects::check_preconditions(call.kind, &call.path.name, &options, &pod)?;
        let terms = budget::spend(core, &call.path.namespace, &pod, options.is_dry_run()).await?;
        let mut tied = options.clone();
        if terms != Terms::Free && options.preconditions.resource_version.is_none() {
            tied.preconditions.resource_version = pod["metadata"]["resourceVersion"].as_str().map(str::to_owned);
        }
        match (evict(core, call, tied).await, terms) {
            (Ok(()), _) => return created(call),
            (Err(problem), _) if problem.code != 409 || options.preconditions.resource_version.is_some() => {
                return Err(problem);
            }
            (Err(_), Terms::Unready(budget)) => return Err(budget::still_processed(&budget)),
            (Err(problem), Terms::Free) => return Err(problem),
            (Err(_), Terms::NotBegun) => {}
        }
    }
    Err(Problem::modified(call.kind, &call.path.name))
}

async fn evict(core: &Core, call: &Call, mut options: DeleteOptions) -> Result<()> {
    if !options.is_dry_run() {
        tell(core, call, &mut options).await?;
    }
    let place = (call.path.namespace.as_str(), call.path.name.as_str());
    objects::delete_one(core, call, place, &options).await.map(drop)
}

/// Says in the pod's status why it goes, by which Jobs tell a drained node from a failure (KEP-3329). A version that the
/// deletion insists on is then the one that this made.
async fn tell(core: &Core, call: &Call, options: &mut DeleteOptions) -> Result<()> {
    for _ in 0..ATTEMPTS {
        let entry = objects::find(core, call)?;
        let mut pod = objects::stored(call.kind, entry.json())?;
        objects::check_preconditions(call.kind, &call.path.name, options, &pod)?;
        let condition = json!({
            "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting", "lastProbeTime": null,
            "lastTransitionTime": format!("{:.0}", Timestamp::now()),
        });
        set_condition(&mut pod, condition);
        if let Some(told) = objects::replace(core, call.kind, &entry, pod).await? {
            if let Some(version) = &mut options.preconditions.resource_version {
                *version = told.revision.to_string();
            }
            return Ok(());
        }
    }
    Err(Problem::modified(call.kind, &call.path.name))
}
