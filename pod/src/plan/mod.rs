//! What to do next, as data.

use std::collections::BTreeMap;

use api::{ContainerId, SandboxId};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceRequirements;

use crate::allocation::Allocation;
use crate::view::View;
use crate::world::{Stage, World};

mod containers;
mod mirror;
mod probes;
pub(crate) mod resize;
pub(crate) mod restart_all;
mod run;
mod teardown;

pub use teardown::MINIMUM_GRACE;

/// The answer of [`crate::plan()`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// What to do now. The steps of one plan do not depend on each other and may run at the same time; containers are
    /// listed in the order of the spec.
    pub steps: Vec<Step>,
    /// The probes that must be running, and no others.
    pub probes: Vec<ProbeTarget>,
    /// What there is to say about the situation. An event that the plan before held too is not recorded again.
    pub events: Vec<Event>,
    /// When to ask again although nothing happened.
    pub wake_at: Option<Timestamp>,
    /// Nothing is left of the pod on the machine, and nothing is wanted: its worker may end.
    pub done: bool,
}

impl Plan {
    /// Nothing to do, whatever the time.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.steps.is_empty() && self.wake_at.is_none()
    }

    /// Asks to be woken at `at`, or earlier if that was asked before.
    pub(crate) fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |before| before.min(at)));
    }
}

/// What to do next for a pod. Asked twice of the same world, it answers the same.
#[must_use]
pub fn plan(world: &World) -> Plan {
    let view = View::new(world);
    let mut plan = Plan { probes: probes::targets(&view), ..Plan::default() };
    mirror::plan(&view, &mut plan);
    match view.ending() {
        Some(ending) => teardown::plan(&view, &ending, &mut plan),
        None => run::plan(&view, &mut plan),
    }
    plan
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Ask the node's admission, and remember its answer in [`crate::World::admission`].
    Admit,
    /// Record that the pod was turned away: nothing to do on the machine, the status says it.
    Reject {
        /// `status.reason`.
        reason: String,
        /// `status.message`.
        message: String,
    },
    /// Ask the node for the resources that the spec asks for by now, and remember its answer in
    /// [`crate::World::allocation`] or [`crate::World::deferral`].
    Allocate,
    /// Write down what the pod was given.
    RecordAllocation,
    /// Make what the pod was given hold for what runs.
    Resize(Box<Resize>),
    /// Set up the pod's folders and volumes.
    PrepareVolumes,
    /// Make the pod's cgroup and its limits.
    CreateCgroup,
    /// Run a sandbox.
    RunSandbox {
        /// `metadata.attempt`.
        attempt: u32,
    },
    /// Stop a sandbox, and with it its network.
    StopSandbox {
        /// Which.
        id: SandboxId,
    },
    /// Remove a stopped sandbox.
    RemoveSandbox {
        /// Which.
        id: SandboxId,
    },
    /// Pull the image, create and start a container.
    StartContainer(StartContainer),
    /// Run the preStop hook of a container whose turn to be killed comes later.
    PreStop(PreStop),
    /// Kill a container.
    KillContainer(KillContainer),
    /// Remove a container that does not run, and its log.
    RemoveContainer {
        /// Which.
        id: ContainerId,
        /// Its name in the spec.
        name: String,
    },
    /// Unmount and delete the pod's volumes.
    UnmountVolumes,
    /// Delete the pod's cgroup.
    RemoveCgroup,
    /// Delete the API object with a grace of 0 and its uid as a precondition.
    FinaliseDeletion,
    /// Show a static pod at the API server.
    CreateMirror {
        /// `metadata.uid` of the Node that will own it.
        node_uid: String,
    },
    /// Delete what the API server has in place of a static pod's mirror.
    DeleteMirror {
        /// Its `metadata.uid`: a precondition.
        uid: String,
    },
}

impl Step {
    /// The stage whose failures are those of this step.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match self {
            Self::PrepareVolumes => Stage::Volumes,
            Self::CreateCgroup => Stage::Cgroup,
            Self::RunSandbox { .. } => Stage::Sandbox,
            Self::StartContainer(start) => Stage::Container(start.name.clone()),
            Self::PreStop(hook) => Stage::Kill(hook.name.clone()),
            Self::KillContainer(kill) => Stage::Kill(kill.name.clone()),
            Self::CreateMirror { .. } | Self::DeleteMirror { .. } => Stage::Mirror,
            Self::RecordAllocation | Self::Resize(_) => Stage::Resize,
            _ => Stage::Teardown,
        }
    }
}

/// How a container takes part in a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// An init container that runs to its end.
    Init,
    /// An init container with `restartPolicy: Always` (KEP-753).
    Sidecar,
    /// One of `spec.containers`.
    App,
    /// One of `spec.ephemeralContainers`.
    Ephemeral,
}

/// The start of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartContainer {
    /// Its name in the spec.
    pub name: String,
    /// Its part.
    pub role: Role,
    /// The sandbox to create it in.
    pub sandbox: SandboxId,
    /// `metadata.attempt` and `restartCount`.
    pub attempt: u32,
    /// How many restarts in a row came without a long run in between. To be kept in an annotation of the container and
    /// handed back as [`crate::Container::backoff`].
    pub backoff: u32,
    /// To be kept in an annotation and handed back as [`crate::Container::spec_hash`].
    pub spec_hash: String,
}

/// A change of the resources of what runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Resize {
    /// The resources that the pod's cgroup was written for.
    pub cgroup: Allocation,
    /// The containers to update, in the order of the spec.
    pub containers: Vec<Resized>,
}

/// A container whose resources change in place.
#[derive(Clone, Debug, PartialEq)]
pub struct Resized {
    /// Which.
    pub id: ContainerId,
    /// Its name in the spec.
    pub name: String,
    /// What it has.
    pub has: ResourceRequirements,
}

/// A preStop hook that runs ahead of the kill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreStop {
    /// Which.
    pub id: ContainerId,
    /// Its name in the spec.
    pub name: String,
    /// Seconds that the hook may take.
    pub limit: i64,
}

/// The kill of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KillContainer {
    /// Which.
    pub id: ContainerId,
    /// Its name in the spec.
    pub name: String,
    /// Seconds until SIGKILL, including the time of the preStop hook (after which it still gets at least 2 s).
    pub grace: i64,
    /// Whether to run its preStop hook first.
    pub pre_stop: bool,
    /// Whether it is to start again however it ends.
    pub restarts: bool,
    /// A word for logs: `Killing`, `Unhealthy`, `FailedPostStartHook`, ….
    pub reason: String,
    /// The text of the `Killing` event.
    pub message: String,
}

/// A container whose probes must run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeTarget {
    /// Its name in the spec.
    pub name: String,
    /// The container to ask.
    pub id: ContainerId,
    /// Run its startupProbe.
    pub startup: bool,
    /// Run its livenessProbe.
    pub liveness: bool,
    /// Run its readinessProbe.
    pub readiness: bool,
}

/// An event about the pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Event {
    /// Normal or Warning.
    pub kind: EventKind,
    /// Upstream's word.
    pub reason: String,
    /// Upstream's sentence.
    pub message: String,
    /// `involvedObject.fieldPath`, such as `spec.containers{web}`.
    pub field_path: Option<String>,
    /// `metadata.annotations`
    pub annotations: BTreeMap<String, String>,
}

/// `type` of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventKind {
    /// As expected.
    Normal,
    /// Worth a look.
    Warning,
}
