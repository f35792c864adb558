//! Which probes must run.

use crate::plan::{ProbeTarget, Role};
use crate::view::{Cause, View};
use crate::world::ContainerState;

/// The probes of all running containers. Liveness and startup have no say any more once the pod ends; readiness goes
/// on, so that it leaves its Services as it stops, neither earlier nor later (KEP-1669).
pub(super) fn targets(view: &View<'_>) -> Vec<ProbeTarget> {
    let ending = view.ending();
    if ending.is_some_and(|ending| matches!(ending.cause, Cause::Gone | Cause::Rejected)) {
        return Vec::new();
    }
    let mut targets = Vec::new();
    for member in view.members().filter(|member| matches!(member.role, Role::App | Role::Sidecar)) {
        let running = |container: &&crate::world::Container| container.state == ContainerState::Running;
        let Some(container) = view.current(&member.spec.name).filter(running) else { continue };
        let started = view.is_started(&member, container);
        let target = ProbeTarget {
            name: member.spec.name.clone(),
            id: container.id.clone(),
            startup: member.spec.startup_probe.is_some() && !started && ending.is_none(),
            liveness: member.spec.liveness_probe.is_some() && started && ending.is_none(),
            readiness: member.spec.readiness_probe.is_some() && started,
        };
        if target.startup || target.liveness || target.readiness {
            targets.push(target);
        }
    }
    targets
}
