//! What the facts of a [`World`] mean: the questions that plan and status both ask.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as Spec, ContainerStatus, Pod, PodSpec, PodStatus, ResourceRequirements};

use crate::allocation;
use crate::backoff::{self, Restart};
use crate::plan::{Role, restart_all};
use crate::restart::restarts;
use crate::world::{Admission, Container, ContainerState, Desired, Failure, HookState, Sandbox, Stage, Verdict, World};

/// Why a pod ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// `metadata.deletionTimestamp` is set.
    Deleted,
    /// The object is gone.
    Gone,
    /// The node evicts it.
    Evicted,
    /// `activeDeadlineSeconds` have passed.
    DeadlineExceeded,
    /// All containers ended and none starts again, or the status says that it had ended before.
    Completed,
    /// The node did not admit it.
    Rejected,
}

/// How a pod ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    pub cause: Cause,
    /// Seconds that its containers get.
    pub grace: i64,
}

/// A container of the spec with its part.
pub(crate) struct Member<'a> {
    pub spec: Cow<'a, Spec>,
    pub role: Role,
}

pub(crate) struct View<'a> {
    pub world: &'a World,
    pub pod: Option<&'a Pod>,
    /// The spec with the resources that the pod was given.
    pub spec: Cow<'a, PodSpec>,
    /// The newest sandbox.
    pub sandbox: Option<&'a Sandbox>,
}

/// The grace period of pods that do not name one.
const DEFAULT_GRACE: i64 = 30;

impl<'a> View<'a> {
    pub fn new(world: &'a World) -> Self {
        let pod = match &world.desired {
            Desired::Present(pod) => Some(&**pod),
            Desired::Gone { last, .. } => last.as_deref(),
        };
        let spec = pod.and_then(|pod| pod.spec.as_ref()).map_or_else(Default::default, Cow::Borrowed);
        let given = world.allocation.as_ref().and_then(|given| given.apply(&spec));
        let spec = given.map_or(spec, Cow::Owned);
        let sandbox = world.observed.sandboxes.iter().max_by_key(|sandbox| (sandbox.attempt, sandbox.created_at));
        Self { world, pod, spec, sandbox }
    }

    /// All containers of the spec: init containers, containers, ephemeral containers.
    pub fn members(&self) -> impl Iterator<Item = Member<'_>> {
        let init = self.spec.init_containers.iter().flatten().map(|spec| Member {
            spec: Cow::Borrowed(spec),
            role: if api::resources::is_sidecar(spec) { Role::Sidecar } else { Role::Init },
        });
        let apps = self.spec.containers.iter().map(|spec| Member { spec: Cow::Borrowed(spec), role: Role::App });
        let ephemeral =
            self.spec.ephemeral_containers.iter().flatten().map(|ephemeral| Member {
                spec: Cow::Owned(api::pod::from_ephemeral(ephemeral)),
                role: Role::Ephemeral,
            });
        init.chain(apps).chain(ephemeral)
    }

    /// The newest container of a name, in whatever sandbox.
    pub fn latest(&self, name: &str) -> Option<&'a Container> {
        self.named(name).max_by_key(|container| (container.attempt, container.created_at))
    }

    /// The newest container of a name in the newest sandbox.
    pub fn current(&self, name: &str) -> Option<&'a Container> {
        let sandbox = &self.sandbox?.id;
        self.named(name)
            .filter(|container| container.sandbox == *sandbox)
            .max_by_key(|container| (container.attempt, container.created_at))
    }

    /// The newest container of a name that has ended before the newest of all.
    pub fn before_latest(&self, name: &str) -> Option<&'a Container> {
        let latest = self.latest(name)?;
        self.named(name)
            .filter(|container| container.id != latest.id)
            .max_by_key(|container| (container.attempt, container.created_at))
    }

    fn named(&self, name: &str) -> impl Iterator<Item = &'a Container> {
        self.world.observed.containers.iter().filter(move |container| container.name == name)
    }

    /// Containers that run, or may run.
    pub fn live(&self) -> impl Iterator<Item = &'a Container> {
        let live =
            |container: &&Container| matches!(container.state, ContainerState::Running | ContainerState::Unknown);
        self.world.observed.containers.iter().filter(live)
    }

    /// What the status said last of a container.
    pub fn previous(&self, name: &str) -> Option<&'a ContainerStatus> {
        let status = self.world.previous.as_ref()?;
        [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses]
            .into_iter()
            .flatten()
            .flatten()
            .find(|status| status.name == name)
    }

    /// Whether startup probe and postStart hook of a running container are done.
    pub fn is_started(&self, member: &Member<'_>, container: &Container) -> bool {
        if container.state != ContainerState::Running {
            return false;
        }
        let hook = self.world.observed.hooks.get(&container.id);
        if matches!(hook, Some(HookState::Running | HookState::Failed { .. })) {
            return false;
        }
        if member.spec.startup_probe.is_none() {
            return true;
        }
        match self.world.observed.probes.get(&container.id).and_then(|probes| probes.startup) {
            Some(verdict) => verdict == Verdict::Success,
            None => self.same_as_before(container).is_some_and(|before| before.started == Some(true)),
        }
    }

    /// The status that was given to this very container before: what counts until a probe has spoken again.
    pub fn same_as_before(&self, container: &Container) -> Option<&'a ContainerStatus> {
        let is_same = |status: &&ContainerStatus| {
            let id = status.container_id.as_deref().and_then(|id| id.rsplit_once("://"));
            id.is_some_and(|(_, id)| id == container.id.as_str())
        };
        self.previous(&container.name).filter(is_same)
    }

    /// Whether the status told before of a later run than this one.
    pub fn is_outdated(&self, container: &Container) -> bool {
        let told = self.previous(&container.name).filter(|status| status.container_id.is_some());
        told.is_some_and(|status| i64::from(status.restart_count) > i64::from(container.attempt))
    }

    /// Whether the init containers are done: any app container was begun in this sandbox, or all have ended well.
    pub fn is_initialized(&self) -> bool {
        if self.spec.containers.iter().any(|container| self.current(&container.name).is_some()) {
            return true;
        }
        let init = self.members().filter(|member| matches!(member.role, Role::Init | Role::Sidecar));
        init.into_iter().all(|member| match self.current(&member.spec.name) {
            Some(container) if member.role == Role::Sidecar => self.is_started(&member, container),
            Some(container) => matches!(container.state, ContainerState::Exited { exit_code: 0, .. }),
            None => false,
        })
    }

    /// The resources that a container is to have.
    pub fn wants(&self, member: &Member<'_>) -> ResourceRequirements {
        api::resources::in_effect(&self.spec, &member.spec)
    }

    /// The resources that a container has; `None` when it must be taken for granted that it has what it was given.
    pub fn has<'c>(&'c self, container: &'c Container) -> Option<&'c ResourceRequirements> {
        let resized = self.world.observed.actuated.containers.get(&container.id);
        resized.or(container.resources.as_ref())
    }

    /// Whether a container can get the resources that it was given only by a restart.
    pub fn must_restart(&self, member: &Member<'_>, container: &Container) -> bool {
        matches!(member.role, Role::App | Role::Sidecar)
            && self.has(container).is_some_and(|has| allocation::needs_restart(&member.spec, has, &self.wants(member)))
    }

    /// When a container that ended starts again; `None` when it does not.
    pub fn restart(&self, member: &Member<'_>, container: &Container) -> Option<Restart> {
        let ContainerState::Exited { exit_code, finished_at, .. } = &container.state else { return None };
        let replaced = self.is_replaced(member, container);
        if !replaced && !self.is_restarted(container) && !restarts(&self.spec, &member.spec, member.role, *exit_code) {
            return None;
        }
        let finished = timestamp(*finished_at);
        if replaced || Self::is_changed(member, container) {
            return Some(Restart { at: finished, delay: std::time::Duration::ZERO, level: 0 });
        }
        self.after_end(container)
    }

    /// When another container may be started in place of one that ended.
    pub fn after_end(&self, container: &Container) -> Option<Restart> {
        let ContainerState::Exited { finished_at, .. } = &container.state else { return None };
        let started = if container.started_at == 0 { container.created_at } else { container.started_at };
        let level = container.backoff;
        Some(backoff::restart(&self.world.node, level, timestamp(started), timestamp(*finished_at)))
    }

    /// Whether a container was made from another definition than the pod has now.
    fn is_changed(member: &Member<'_>, container: &Container) -> bool {
        container.spec_hash.as_ref().is_some_and(|hash| *hash != crate::hash::container(&member.spec))
    }

    /// Whether a container was killed to make place for one of the new definition, or with the resources that it was given,
    /// which no restart policy forbids.
    pub fn is_replaced(&self, member: &Member<'_>, container: &Container) -> bool {
        let must_go = Self::is_changed(member, container) || self.must_restart(member, container);
        must_go && self.world.observed.kills.contains_key(&container.id)
    }

    /// Whether a container was killed so that it starts again: who fails its probes does, unless the policy is `Never`, even if it then ends
    /// well (`computePodActions`). An agent that was started anew knows it by the status.
    pub fn is_restarted(&self, container: &Container) -> bool {
        let state = self.same_as_before(container).and_then(|status| status.state.as_ref());
        let waiting = state.and_then(|state| state.waiting.as_ref()).and_then(|waiting| waiting.reason.as_deref());
        let is_told = waiting == Some("CrashLoopBackOff");
        is_told || self.world.observed.kills.get(&container.id).is_some_and(|kill| kill.restarts)
    }

    /// The failure of a container's last start; one of another image is of no more account (the key of upstream's pulls is the pod's uid and
    /// the image).
    pub fn start_failure(&self, spec: &Spec) -> Option<&'a Failure> {
        let failure = self.world.failures.get(&Stage::Container(spec.name.clone()))?;
        let is_of_it = |hash: &String| *hash == crate::hash::container(spec);
        failure.spec_hash.as_ref().is_none_or(is_of_it).then_some(failure)
    }

    /// The grace period of the pod itself.
    pub fn grace(&self) -> i64 {
        self.spec.termination_grace_period_seconds.unwrap_or(DEFAULT_GRACE)
    }

    /// When `activeDeadlineSeconds` end.
    pub fn deadline(&self) -> Option<Timestamp> {
        let start = self.world.previous.as_ref()?.start_time.as_ref()?.0;
        self.spec.active_deadline_seconds.map(|seconds| backoff::seconds_later(start, seconds))
    }

    /// Whether and how the pod ends.
    pub fn ending(&self) -> Option<Ending> {
        let bound = self.world.eviction.as_ref().and_then(|eviction| eviction.grace).unwrap_or(i64::MAX);
        let ending = |cause, grace: i64| Some(Ending { cause, grace: grace.min(bound).max(1) });
        match &self.world.desired {
            Desired::Gone { grace, .. } => return ending(Cause::Gone, grace.unwrap_or_else(|| self.grace())),
            Desired::Present(pod) if pod.metadata.deletion_timestamp.is_some() => {
                let grace = pod.metadata.deletion_grace_period_seconds;
                return ending(Cause::Deleted, grace.unwrap_or_else(|| self.grace()));
            }
            Desired::Present(_) => {}
        }
        if self.ended_as().is_some() {
            return ending(Cause::Completed, self.grace());
        }
        if matches!(self.world.admission, Some(Admission::Rejected { .. })) {
            return ending(Cause::Rejected, self.grace());
        }
        if let Some(eviction) = &self.world.eviction {
            return ending(Cause::Evicted, eviction.grace.unwrap_or_else(|| self.grace()));
        }
        if self.deadline().is_some_and(|deadline| deadline <= self.world.now) {
            return ending(Cause::DeadlineExceeded, self.grace());
        }
        if self.is_complete() { ending(Cause::Completed, self.grace()) } else { None }
    }

    /// Whether the status said before that the pod had ended.
    pub fn was_terminal(&self) -> bool {
        self.world.previous.as_ref().is_some_and(|status| api::pod::is_terminal_phase(status.phase.as_deref()))
    }

    /// The status in which the pod is said to have ended. The API server's word counts, whoever wrote it (`podWorkers.UpdatePod`).
    pub fn ended_as(&self) -> Option<&'a PodStatus> {
        let object = self.pod.filter(|_| self.world.source.is_api()).and_then(|pod| pod.status.as_ref());
        let mut known = self.world.previous.as_ref().into_iter().chain(object);
        known.find(|status| api::pod::is_terminal_phase(status.phase.as_deref()))
    }

    /// Whether all app containers ended and none starts again, or an init container failed for good.
    pub fn is_complete(&self) -> bool {
        if self.spec.containers.is_empty() || restart_all::is_due(self) {
            return false;
        }
        let ended_for_good = |member: &Member<'_>| {
            self.latest(&member.spec.name).is_some_and(|container| {
                matches!(container.state, ContainerState::Exited { .. }) && self.restart(member, container).is_none()
            })
        };
        let init_failed = self.members().filter(|member| member.role == Role::Init).any(|member| {
            let failed = |container: &Container| {
                matches!(container.state, ContainerState::Exited { exit_code, .. } if exit_code != 0)
            };
            self.latest(&member.spec.name).is_some_and(failed) && ended_for_good(&member)
        });
        init_failed || self.members().filter(|member| member.role == Role::App).all(|member| ended_for_good(&member))
    }
}

/// Nanoseconds since 1970 as a time.
pub(crate) fn timestamp(nanoseconds: i64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or(Timestamp::UNIX_EPOCH)
}
