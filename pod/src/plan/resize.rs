//! From the resources that a pod asks for to those that hold (KEP-1287): asked for, recorded, then actuated.

use crate::allocation::{Allocation, same};
use crate::plan::run::may_try;
use crate::plan::{Plan, Resize, Resized, Role, Step};
use crate::view::View;
use crate::world::{ContainerState, Desired, Stage};

/// Whether the pod asks for other resources than it was given, and has no answer yet.
pub(super) fn is_asked(view: &View<'_>) -> bool {
    let (Some(given), Desired::Present(pod)) = (&view.world.allocation, &view.world.desired) else { return false };
    let answered = view.world.deferral.as_ref().is_some_and(|answer| answer.generation == pod.metadata.generation);
    !answered && !given.grants_as(&Allocation::of(pod))
}

/// Whether what was given does not hold yet.
pub(crate) fn is_in_progress(view: &View<'_>) -> bool {
    let members = view.members().collect::<Vec<_>>();
    let restarts = members.iter().any(|member| {
        view.current(&member.spec.name)
            .is_some_and(|container| container.state == ContainerState::Running && view.must_restart(member, container))
    });
    view.world.observed.unrecorded || restarts || due(view).is_some()
}

/// What must be updated in place; `None` when nothing must.
fn due(view: &View<'_>) -> Option<Resize> {
    let observed = &view.world.observed;
    let given = view.world.allocation.as_ref()?;
    let cgroup = observed.actuated.cgroup.as_ref().unwrap_or(given);
    let mut containers = Vec::new();
    for member in view.members().filter(|member| member.role != Role::Ephemeral) {
        let Some(container) = view.current(&member.spec.name) else { continue };
        let Some(has) = view.has(container) else { continue };
        let is_behind = container.state == ContainerState::Running && !same(Some(has), Some(&view.wants(&member)));
        if is_behind && !view.must_restart(&member, container) {
            let (id, name) = (container.id.clone(), container.name.clone());
            containers.push(Resized { id, name, has: has.clone() });
        }
    }
    let is_behind = observed.prepared.cgroup && !cgroup.grants_as(given);
    (is_behind || !containers.is_empty()).then(|| Resize { cgroup: cgroup.clone(), containers })
}

/// Whether no container may start, lest it asks for more than the pod's cgroup has. A resize that fails holds up nobody.
pub(super) fn holds_starts(view: &View<'_>) -> bool {
    !view.world.failures.contains_key(&Stage::Resize) && due(view).is_some()
}

/// Actuates what was given. Containers that restart for it are killed first, so that their share is free.
pub(super) fn plan(view: &View<'_>, plan: &mut Plan) {
    if view.world.observed.unrecorded {
        if may_try(view, &Stage::Resize, plan) {
            plan.steps.push(Step::RecordAllocation);
        }
        return;
    }
    let Some(resize) = due(view) else { return };
    let mut live = view.live();
    let restarts = live.any(|container| {
        view.members().any(|member| member.spec.name == container.name && view.must_restart(&member, container))
    });
    if !restarts && may_try(view, &Stage::Resize, plan) {
        plan.steps.push(Step::Resize(Box::new(resize)));
    }
}
