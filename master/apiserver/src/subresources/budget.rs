//! Whether a pod may be evicted: what its PodDisruptionBudget says (`pkg/registry/core/pod/storage/eviction.go`).

use std::sync::Arc;

use api::pod::is_terminal_phase;
use jiff::Timestamp;
use schema::{Kind, Registry};
use serde_json::{Value, json};
use store::{Entry, ListRequest};

use super::set_condition;
use crate::hooks;
use crate::objects;
use crate::problem::{Problem, Result};
use crate::server::Core;

/// How often a budget is asked anew when others change it meanwhile.
const ATTEMPTS: usize = 16;
/// More evictions than this, not yet seen by the controller, are too many.
const MOST_DISRUPTED: usize = 2_000;
const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// On what terms a pod may be evicted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Terms {
    /// Whatever becomes of the pod meanwhile: it costs nothing, or was counted.
    Free,
    /// As long as it has not begun.
    NotBegun,
    /// As long as it is not ready: then it would cost the budget of this name.
    Unready(String),
}

/// Lets an eviction happen and counts it, or refuses it.
pub(super) async fn spend(core: &Core, namespace: &str, pod: &Value, dry_run: bool) -> Result<Terms> {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    if let Some(terms) = without_budget(pod) {
        return Ok(terms);
    }
    let kind = Registry::builtin()
        .kind("policy", "v1", "poddisruptionbudgets")
        .ok_or_else(|| Problem::internal("no kind PodDisruptionBudget"))?;
    for _ in 0..ATTEMPTS {
        let mut budgets = covering(core, kind, namespace, pod)?.into_iter();
        let Some((entry, budget)) = budgets.next() else { return Ok(Terms::Free) };
        if budgets.next().is_some() {
            let why =
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(Problem::untold(why));
        }
        if is_spared(pod, &budget) {
            return Ok(Terms::Unready(entry.key.name().to_owned()));
        }
        let spent = spent(kind, &budget, name)?;
        if dry_run || objects::replace(core, kind, &entry, spent).await?.is_some() {
            return Ok(Terms::Free);
        }
    }
    Err(Problem::modified(kind, name))
}

/// Pods that have ended, have not begun, or go already can be evicted whatever budgets say (`canIgnorePDB`).
fn without_budget(pod: &Value) -> Option<Terms> {
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    match phase {
        _ if is_terminal_phase(Some(phase)) || pod["metadata"].get("deletionTimestamp").is_some() => Some(Terms::Free),
        "Pending" => Some(Terms::NotBegun),
        _ => None,
    }
}

/// A pod that is not ready costs nothing, if the policy says so, or if the healthy ones suffice.
fn is_spared(pod: &Value, budget: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    let is_ready = |c: &Value| c["type"] == "Ready" && c["status"] == "True";
    if conditions.into_iter().flatten().any(is_ready) {
        return false;
    }
    if budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow" {
        return true;
    }
    let count = |field: &str| budget["status"][field].as_i64().unwrap_or(0);
    count("desiredHealthy") > 0 && count("currentHealthy") >= count("desiredHealthy")
}

/// The budgets that are about a pod.
fn covering(core: &Core, kind: &'static Kind, namespace: &str, pod: &Value) -> Result<Vec<(Arc<Entry>, Value)>> {
    let resource = hooks::stored_resource(kind);
    let request = ListRequest { resource: &resource, namespace, after: None, limit: 0, at: None, filter: None };
    let page = core.store.list(&request).map_err(|error| Problem::internal(&error.to_string()))?;
    let mut found = Vec::new();
    for entry in page.entries {
        let budget = objects::stored(kind, entry.json())?;
        if schema::selects(&budget["spec"]["selector"], &pod["metadata"]["labels"]) {
            found.push((entry, budget));
        }
    }
    Ok(found)
}

/// The budget with one eviction less, or why there is none.
fn spent(kind: &Kind, budget: &Value, pod: &str) -> Result<Value> {
    let name = budget["metadata"]["name"].as_str().unwrap_or_default();
    let status = &budget["status"];
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    if count("observedGeneration") < budget["metadata"]["generation"].as_i64().unwrap_or(0) {
        return Err(still_processed(name));
    }
    let forbidden = |why: &str| auth::Refusal::forbidden(kind.group, kind.plural, name, why).into();
    let allowed = count("disruptionsAllowed");
    if allowed < 0 {
        return Err(forbidden("pdb disruptions allowed is negative"));
    }
    if status["disruptedPods"].as_object().is_some_and(|pods| pods.len() > MOST_DISRUPTED) {
        return Err(forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller"));
    }
    if allowed == 0 {
        return Err(refusal(&why_none(name, status), 0));
    }
    let mut spent = budget.clone();
    spent["status"]["disruptionsAllowed"] = (allowed - 1).into();
    spent["status"]["disruptedPods"][pod] = format!("{:.0}", Timestamp::now()).into();
    if allowed == 1 {
        exhaust(&mut spent);
    }
    Ok(spent)
}

/// Why nothing is left. Where the last sync failed, its counts are not to be believed.
fn why_none(name: &str, status: &Value) -> String {
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    let (desired, healthy) = (count("desiredHealthy"), count("currentHealthy"));
    let none = format!("The disruption budget {name} does not allow evicting pods currently");
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    let condition = conditions.find(|one| one["type"] == "DisruptionAllowed").filter(|one| one["status"] == "False");
    let said = |field: &str| condition.and_then(|one| one[field].as_str()).unwrap_or_default();
    match (said("reason"), said("message")) {
        ("SyncFailed", message) if !message.is_empty() => format!("{none} because it failed sync: {message}"),
        _ if healthy <= desired => {
            format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently")
        }
        (reason, message) if !message.is_empty() => format!("{none} ({reason}): {message}"),
        _ => none,
    }
}

/// What the budget allows is not known yet.
pub(super) fn still_processed(budget: &str) -> Problem {
    refusal(&format!("The disruption budget {budget} is still being processed by the server."), 10)
}

/// Says in the condition that nothing is left.
fn exhaust(budget: &mut Value) {
    let condition = json!({
        "type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": "",
        "lastTransitionTime": format!("{:.0}", Timestamp::now()), "observedGeneration": budget["metadata"]["generation"],
    });
    set_condition(budget, condition);
}

/// 429: the client may try again.
fn refusal(why: &str, seconds: u64) -> Problem {
    let mut problem = Problem::new(429, "TooManyRequests", REFUSED);
    problem.details = json!({ "causes": [{ "reason": "DisruptionBudget", "message": why }] });
    if seconds > 0 {
        problem.details["retryAfterSeconds"] = seconds.into();
    }
    problem
}
