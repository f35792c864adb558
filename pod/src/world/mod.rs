//! Everything that is known about one pod at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::{ContainerId, PodUid, SandboxId};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus, ResourceRequirements};

use crate::allocation::{Actuated, Allocation, Deferral};

/// The input of [`crate::plan()`] and [`crate::status()`].
#[derive(Clone, Debug)]
pub struct World {
    /// The time at which the other fields were read.
    pub now: Timestamp,
    /// Which pod this is.
    pub uid: PodUid,
    /// What is wanted of it.
    pub desired: Desired,
    /// Who wants it.
    pub source: Source,
    /// What the node's admission said; `None` until it was asked.
    pub admission: Option<Admission>,
    /// The resources that the pod was given; `None` until it is admitted.
    pub allocation: Option<Allocation>,
    /// Why it was not given others that it asks for since.
    pub deferral: Option<Deferral>,
    /// Set when the node must get rid of the pod (node pressure, preemption, API-less shutdown).
    pub eviction: Option<Eviction>,
    /// What runs and what lies on the disk.
    pub observed: Observed,
    /// The last failure of each stage; removed when the stage succeeds.
    pub failures: BTreeMap<Stage, Failure>,
    /// Facts about the machine.
    pub node: NodeFacts,
    /// The status that was computed last, or that of the API object after a restart of the agent.
    pub previous: Option<PodStatus>,
    /// Whether the API server has accepted the status that was computed last.
    pub published: bool,
}

/// What is wanted of a pod.
#[derive(Clone, Debug)]
pub enum Desired {
    /// The object exists. When `metadata.deletionTimestamp` is set, it is to end within
    /// `metadata.deletionGracePeriodSeconds`.
    Present(Arc<Pod>),
    /// The object (or the static manifest) is gone: end what still runs of it.
    Gone {
        /// The pod as it was known last; `None` for an orphan that was found in the runtime.
        last: Option<Arc<Pod>>,
        /// Seconds that its containers get; `None` is the pod's own `terminationGracePeriodSeconds`.
        grace: Option<i64>,
        /// Whether its manifest came back meanwhile: it is to be started anew once it has ended.
        returns: bool,
    },
}

/// Where a pod comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// The API server.
    Api,
    /// A manifest of the node's own.
    Static {
        /// The object of its name that the API server has now.
        mirror: Option<Arc<Pod>>,
    },
}

impl Source {
    /// Whether the API server decides about the pod.
    #[must_use]
    pub fn is_api(&self) -> bool {
        *self == Self::Api
    }
}

/// The answer of the node's admission (resources, host ports, node selector and the like).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// The pod may run here.
    Admitted,
    /// It may not; both texts go into `status`.
    Rejected {
        /// A word such as `OutOfcpu`, `NodeAffinity`, `NodePorts`.
        reason: String,
        /// The sentence for people.
        message: String,
    },
}

/// An order of the node itself to end a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// `status.reason`, such as `Evicted` or `Preempting`.
    pub reason: String,
    /// `status.message`.
    pub message: String,
    /// The message of the condition `DisruptionTarget`; `None` for a pod that has itself to blame.
    pub disruption: Option<String>,
    /// Seconds that the containers get; `None` is the pod's own grace period.
    pub grace: Option<i64>,
    /// Facts for machines, for the event.
    pub annotations: BTreeMap<String, String>,
    /// Whether an event of the pod says so, too.
    pub event: bool,
    /// Whether what the pod wrote goes as soon as its end is told: dead containers with their layers, and logs.
    pub clears: bool,
}

/// What is found on the machine.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// All sandboxes of this pod uid that the runtime knows.
    pub sandboxes: Vec<Sandbox>,
    /// All containers of this pod uid that the runtime knows, of every sandbox.
    pub containers: Vec<Container>,
    /// Volumes and cgroup.
    pub prepared: Prepared,
    /// What the probes found, by the container that they asked.
    pub probes: BTreeMap<ContainerId, ProbeResults>,
    /// How the postStart hook of a container goes. A running container that is not listed has no hook, or was started
    /// by an agent that has ended since; its hook counts as done.
    pub hooks: BTreeMap<ContainerId, HookState>,
    /// Kills that were begun, also finished ones as long as their container is known.
    pub kills: BTreeMap<ContainerId, Kill>,
    /// preStop hooks that were begun ahead of the kill, also finished ones as long as their container is known.
    pub pre_stops: BTreeMap<ContainerId, Begun>,
    /// Names of containers whose `StartContainer` step runs at the moment.
    pub starting: BTreeSet<String>,
    /// A `RunSandbox` step runs at the moment.
    pub making_sandbox: bool,
    /// The resources in force.
    pub actuated: Actuated,
    /// The pod was resized, and a restart of the agent would forget it.
    pub unrecorded: bool,
}

/// What was prepared for a pod beside the runtime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    /// The volumes are set up and current.
    pub volumes: bool,
    /// Something of the pod's volumes exists on the disk, so that teardown has work to do.
    pub volumes_on_disk: bool,
    /// The pod's cgroup exists.
    pub cgroup: bool,
}

/// A pod sandbox of the runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// Its id.
    pub id: SandboxId,
    /// `metadata.attempt`.
    pub attempt: u32,
    /// Whether the runtime calls it ready.
    pub ready: bool,
    /// Whether it was stopped by this agent, so that its network is known to be torn down. `false` after a restart of
    /// the agent; stopping a second time does nothing.
    pub stopped: bool,
    /// Creation, in nanoseconds since 1970.
    pub created_at: i64,
    /// Its addresses, primary first; empty with host networking.
    pub ips: Vec<IpAddr>,
    /// The runtime says that its network gave it no address; with host networking it has none of its own either.
    pub unaddressed: bool,
    /// Whether it shares the node's network.
    pub host_network: bool,
    /// The runtime handler that it runs with; empty for the default one.
    pub handler: String,
}

/// A container of the runtime.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    /// Its id.
    pub id: ContainerId,
    /// The sandbox that it runs in.
    pub sandbox: SandboxId,
    /// The name in the pod's spec.
    pub name: String,
    /// `metadata.attempt`: how often a container of this name was started before; the `restartCount`.
    pub attempt: u32,
    /// What it does.
    pub state: ContainerState,
    /// Creation, in nanoseconds since 1970.
    pub created_at: i64,
    /// Start, in nanoseconds since 1970; 0 when it never ran.
    pub started_at: i64,
    /// The image as it was asked for.
    pub image: String,
    /// The image that it runs, by the reference that the runtime has for it: with its digest, where it was pulled by a name
    /// (`ContainerStatus.imageID`, which is CRI's `image_ref`).
    pub image_id: String,
    /// [`crate::hash::container`] of the spec that it was created from, from an annotation; `None` when it has none.
    pub spec_hash: Option<String>,
    /// [`StartContainer::backoff`](crate::StartContainer::backoff) of its start, from an annotation.
    pub backoff: u32,
    /// Where its output is written.
    pub log_path: String,
    /// The resources that it was created with, where known (an annotation); else those of the spec count.
    pub resources: Option<ResourceRequirements>,
    /// The user of its first process, where the runtime tells.
    pub user: Option<UserFacts>,
}

/// The user of the first process of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserFacts {
    /// User id.
    pub uid: i64,
    /// Group id.
    pub gid: i64,
    /// All groups.
    pub supplemental_groups: Vec<i64>,
}

/// What a container does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// Created, not started.
    Created,
    /// Runs.
    Running,
    /// Ended.
    Exited {
        /// Of the first process; 128 + n when signal n ended it.
        exit_code: i32,
        /// As the runtime says: `Completed`, `Error`, `OOMKilled`, `StartError`, ….
        reason: String,
        /// As the runtime says, or the termination message.
        message: String,
        /// In nanoseconds since 1970.
        finished_at: i64,
    },
    /// The runtime does not know.
    Unknown,
}

/// What the probes of one container say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeResults {
    /// startupProbe; `None` before the first verdict.
    pub startup: Option<Verdict>,
    /// livenessProbe.
    pub liveness: Option<Verdict>,
    /// readinessProbe.
    pub readiness: Option<Verdict>,
}

/// A verdict after thresholds were applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The probe succeeds.
    Success,
    /// It failed `failureThreshold` times.
    Failure,
}

/// How a postStart hook goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookState {
    /// Not done yet.
    Running,
    /// Done.
    Succeeded,
    /// It failed: the container is to be killed.
    Failed {
        /// Why.
        message: String,
    },
}

/// A kill that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kill {
    /// When.
    pub at: Timestamp,
    /// With how many seconds of grace.
    pub grace: i64,
    /// Whether it is still under way. A kill that has ended while its container runs on has failed.
    pub running: bool,
    /// Whether the container is to start again however it ends.
    pub restarts: bool,
}

/// A hook that was begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begun {
    /// When.
    pub at: Timestamp,
    /// Whether it is still under way.
    pub running: bool,
}

/// What can fail.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// `PrepareVolumes`.
    Volumes,
    /// `CreateCgroup`.
    Cgroup,
    /// `RunSandbox`.
    Sandbox,
    /// `StartContainer` of the container of this name.
    Container(String),
    /// `KillContainer` of the container of this name.
    Kill(String),
    /// Any step of the teardown after the containers ended.
    Teardown,
    /// `CreateMirror` and `DeleteMirror`.
    Mirror,
    /// `RecordAllocation` and `Resize`.
    Resize,
}

/// The last failure of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// A word that clients know: `ErrImagePull`, `ErrImageNeverPull`, `InvalidImageName`, `CreateContainerConfigError`,
    /// `CreateContainerError`, `RunContainerError`, `PreCreateHookError`, `PostStartHookError`, `FailedMount`, ….
    pub reason: String,
    /// The sentence for people.
    pub message: String,
    /// When it happened last.
    pub at: Timestamp,
    /// How often in a row, at least 1.
    pub count: u32,
    /// The definition that a container was to be started by ([`crate::plan::StartContainer::spec_hash`]); `None` of other stages.
    pub spec_hash: Option<String>,
}

/// Facts about the machine that decisions depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    /// `metadata.uid` of the Node, once it is registered.
    pub uid: Option<String>,
    /// The node's addresses, primary first.
    pub ips: Vec<IpAddr>,
    /// The runtime's name in container ids: `containerd`.
    pub runtime: String,
    /// Delay before the second restart of a container (10 s).
    pub backoff_initial: Duration,
    /// Longest delay (5 min; `crashLoopBackOff.maxContainerRestartPeriod`).
    pub backoff_max: Duration,
    /// Runtime handlers that can mount recursively read-only.
    pub recursive_read_only: BTreeSet<String>,
    /// Whether the runtime is reachable and its network is ready. Without it no pod with a network of its own starts.
    pub network_ready: bool,
}

impl Default for NodeFacts {
    fn default() -> Self {
        Self {
            uid: None,
            ips: Vec::new(),
            runtime: "containerd".to_owned(),
            backoff_initial: Duration::from_secs(10),
            backoff_max: Duration::from_secs(300),
            recursive_read_only: BTreeSet::new(),
            network_ready: true,
        }
    }
}
