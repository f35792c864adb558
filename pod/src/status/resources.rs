//! The resources of the pod as a whole, and how far a resize of it has come (KEP-1287, KEP-5419).

use std::collections::BTreeMap;

use api::conditions;
use api::resources::{self, ResourceList};
use k8s_openapi::api::core::v1::{PodCondition, PodSpec, PodStatus, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::allocation::Allocation;
use crate::plan::resize;
use crate::status::seconds;
use crate::view::View;
use crate::world::{Desired, Stage};

/// The node has not given what is asked for.
pub(crate) const PENDING: &str = "PodResizePending";
/// What was given does not hold yet.
pub(crate) const IN_PROGRESS: &str = "PodResizeInProgress";

/// `status.allocatedResources` and `status.resources`.
pub(super) fn fill(view: &View<'_>, status: &mut PodStatus) {
    let given = resources::requests(&view.spec);
    let in_force = view.world.observed.actuated.cgroup.as_ref().and_then(|cgroup| cgroup.apply(&view.spec));
    let holds = if status.phase.as_deref() == Some("Running") {
        let spec = in_force.as_ref().unwrap_or(&view.spec);
        resized(spec)
    } else {
        ResourceRequirements {
            claims: None,
            requests: listed(given.clone()),
            limits: listed(resources::limits(&view.spec)),
        }
    };
    status.allocated_resources = listed(given);
    status.resources = Some(holds);
}

/// What a pod's cgroup says of it, with what only its spec says.
fn resized(spec: &PodSpec) -> ResourceRequirements {
    let own = spec.resources.clone().unwrap_or_default();
    let with = |own: Option<&BTreeMap<String, Quantity>>, sum: ResourceList| {
        let mut list = resources::read(own);
        list.extend(sum.into_iter().filter(|(name, amount)| is_in_cgroup(name) && !amount.is_zero()));
        listed(list)
    };
    let is_limited = |name: &str| {
        let mut containers = spec.init_containers.iter().flatten().chain(&spec.containers);
        own.limits.as_ref().is_some_and(|limits| limits.contains_key(name))
            || containers.all(|container| {
                let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
                limits.is_some_and(|limits| limits.contains_key(name))
            })
    };
    let limits = resources::limits(spec).into_iter().filter(|(name, _)| is_limited(name)).collect();
    ResourceRequirements {
        claims: None,
        requests: with(own.requests.as_ref(), resources::requests(spec)),
        limits: with(own.limits.as_ref(), limits),
    }
}

fn is_in_cgroup(name: &str) -> bool {
    matches!(name, "cpu" | "memory")
}

fn listed(list: ResourceList) -> Option<BTreeMap<String, Quantity>> {
    (!list.is_empty()).then(|| resources::write(&list))
}

/// `PodResizePending` and `PodResizeInProgress`, where they apply.
pub(super) fn conditions(view: &View<'_>, old: &[PodCondition]) -> impl Iterator<Item = PodCondition> {
    let told = [pending(view), in_progress(view)].into_iter().flatten();
    told.map(|condition| {
        let before = conditions::get(old, &condition.type_).filter(|before| before.reason == condition.reason);
        let now = || seconds(view.world.now);
        let since = before.and_then(|before| before.last_transition_time.clone()).unwrap_or_else(now);
        let same = before.filter(|before| before.message == condition.message);
        let asked = same.and_then(|before| before.last_probe_time.clone()).unwrap_or_else(now);
        PodCondition { last_transition_time: Some(since), last_probe_time: Some(asked), ..condition }
    })
}

fn pending(view: &View<'_>) -> Option<PodCondition> {
    let (Some(deferral), Desired::Present(pod)) = (&view.world.deferral, &view.world.desired) else { return None };
    let is_met = view.world.allocation.as_ref().is_some_and(|given| given.grants_as(&Allocation::of(pod)));
    (!is_met).then(|| PodCondition {
        reason: Some(if deferral.infeasible { "Infeasible" } else { "Deferred" }.to_owned()),
        message: Some(deferral.message.clone()),
        observed_generation: deferral.generation,
        ..condition(PENDING)
    })
}

fn in_progress(view: &View<'_>) -> Option<PodCondition> {
    let failure = view.world.failures.get(&Stage::Resize);
    resize::is_in_progress(view).then(|| PodCondition {
        reason: failure.map(|_| "Error".to_owned()),
        message: failure.map(|failure| failure.message.clone()),
        observed_generation: view.world.allocation.as_ref().and_then(|given| given.generation),
        ..condition(IN_PROGRESS)
    })
}

fn condition(type_name: &str) -> PodCondition {
    PodCondition { type_: type_name.to_owned(), status: "True".to_owned(), ..PodCondition::default() }
}
