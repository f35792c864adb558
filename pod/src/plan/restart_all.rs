//! Starting all containers of a pod anew in its sandbox, because one ended in a way that its rules say so of (KEP-5532).
//!
//! All that runs is killed, then everything is removed; the containers whose end is the cause go last. So the cause stays to be seen until
//! nothing else is left, whoever looks.

use crate::plan::run::may_try;
use crate::plan::{KillContainer, Plan, Role, Step};
use crate::restart::restarts_all;
use crate::view::{Member, View};
use crate::world::{Container, ContainerState, Stage};

/// Whether all containers are to start anew, and are not yet removed for it.
pub(crate) fn is_due(view: &View<'_>) -> bool {
    is_possible(view)
        && members(view).any(|member| view.latest(&member.spec.name).is_some_and(|c| is_cause(&member, c)))
}

/// Few pods ask for it.
pub(crate) fn is_possible(view: &View<'_>) -> bool {
    crate::restart::may_restart_all(&view.spec)
}

fn members<'v>(view: &'v View<'_>) -> impl Iterator<Item = Member<'v>> {
    view.members().filter(|member| member.role != Role::Ephemeral)
}

fn is_cause(member: &Member<'_>, container: &Container) -> bool {
    matches!(container.state, ContainerState::Exited { exit_code, .. } if restarts_all(&member.spec, exit_code))
}

/// What is to be done before they start anew. Whether anything is.
pub(super) fn plan(view: &View<'_>, plan: &mut Plan) -> bool {
    if !is_due(view) {
        return false;
    }
    let (mut causes, mut others, mut live) = (Vec::new(), Vec::new(), Vec::new());
    for member in members(view) {
        if view.world.observed.starting.contains(&member.spec.name) {
            return true;
        }
        for container in view.world.observed.containers.iter().filter(|container| container.name == member.spec.name) {
            match container.state {
                ContainerState::Running | ContainerState::Unknown => live.push(container),
                _ if is_cause(&member, container) => causes.push(container),
                _ => others.push(container),
            }
        }
    }
    for container in &live {
        kill(view, container, plan);
    }
    if live.is_empty() {
        let next = if others.is_empty() { causes } else { others };
        plan.steps.extend(
            next.iter()
                .map(|container| Step::RemoveContainer { id: container.id.clone(), name: container.name.clone() }),
        );
    }
    true
}

/// Without its hook, and with no more time than any container gets.
fn kill(view: &View<'_>, container: &Container, plan: &mut Plan) {
    let is_under_way = view.world.observed.kills.get(&container.id).is_some_and(|kill| kill.running && kill.grace == 0);
    if is_under_way || !may_try(view, &Stage::Kill(container.name.clone()), plan) {
        return;
    }
    plan.steps.push(Step::KillContainer(KillContainer {
        id: container.id.clone(),
        name: container.name.clone(),
        grace: 0,
        pre_stop: false,
        restarts: false,
        reason: "RestartAllContainers".to_owned(),
        message: "killing".to_owned(),
    }));
}
