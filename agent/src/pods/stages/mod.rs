//! The steps of a plan, executed. Each is one async function; none decides what to do next.
//!
//! A failure is data: [`StageError`] goes back to the worker, which puts it into the world for the next plan.

pub mod container;
pub mod doors;
pub mod image_volumes;
pub mod limits;
pub mod mirror;
pub mod prepare;
pub mod request;
pub mod resize;
pub mod sandbox;
pub mod security;
pub mod sub_path;
pub mod teardown;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use api::{ContainerId, PodUid, SandboxId};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use pod::{Actuated, Allocation, Event, EventKind, Step};
use volumes::Prepared;

use super::Context;
use super::record::Record;
use crate::events::{Kind, Observation, Recorder};
use doors::Guest;

/// How many threads of those that may block work on cgroups at a time.
pub const CGROUP_JOBS: usize = 8;

/// A step with everything that it needs.
pub struct Job {
    pub context: Arc<Context>,
    pub uid: PodUid,
    /// The pod as it was wanted when the step was planned; `None` for what was found without its object.
    pub pod: Option<Arc<Pod>>,
    pub step: Step,
    /// What was prepared before.
    pub facts: PodFacts,
}

/// What earlier stages found out about the pod.
#[derive(Debug, Default)]
pub struct PodFacts {
    /// Where the volumes lie.
    pub volumes: BTreeMap<String, PathBuf>,
    /// The pod's addresses.
    pub ips: Vec<IpAddr>,
    /// The container of each name that runs in the current sandbox.
    pub running: BTreeMap<String, ContainerId>,
    /// The current sandbox.
    pub sandbox: Option<SandboxId>,
    /// The sandbox's runtime handler can mount recursively read-only.
    pub recursive_read_only: bool,
    /// The container to be started, at the door of its sandbox.
    pub guest: Option<Guest>,
    /// What to write down of its resources; only for the steps that do.
    pub record: Option<Record>,
}

/// What a step brought about, where the runtime cannot be asked for it.
#[derive(Debug)]
pub enum Outcome {
    /// It is done, and visible in the runtime.
    Done,
    /// Volumes are ready.
    Volumes(Prepared),
    /// There is a sandbox.
    Sandbox(SandboxId),
    /// The cgroup is there, with the values for this.
    Cgroup(Box<Allocation>),
    /// These resources are in force.
    Resized(Box<Actuated>),
    /// A container runs.
    Started(ContainerId),
    /// What the API server has in place of a static pod's mirror.
    Mirror(Option<Arc<Pod>>),
}

/// Why a step failed: what goes into statuses and events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageError {
    pub reason: String,
    pub message: String,
}

impl StageError {
    /// An error with a reason that clients know.
    #[must_use]
    pub fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: message.into() }
    }

    fn cri(reason: &str, error: &cri::CallError) -> Self {
        Self::new(reason, error.rpc_text())
    }
}

/// Records events about a pod.
#[derive(Clone, Copy)]
pub struct Say<'a> {
    recorder: &'a Recorder,
    pod: Option<&'a Pod>,
}

impl<'a> Say<'a> {
    /// For one pod. Of a pod without an object there is nothing to say.
    #[must_use]
    pub fn new(recorder: &'a Recorder, pod: Option<&'a Pod>) -> Self {
        Self { recorder, pod }
    }

    /// Records one event.
    pub fn event(&self, event: Event) {
        let Some(pod) = self.pod else { return };
        let kind = match event.kind {
            EventKind::Normal => Kind::Normal,
            EventKind::Warning => Kind::Warning,
        };
        let mut object = reference(pod);
        object.field_path = event.field_path;
        self.recorder.record(Observation {
            object,
            kind,
            reason: event.reason,
            message: event.message,
            annotations: event.annotations,
        });
    }
}

fn reference(pod: &Pod) -> ObjectReference {
    let meta = &pod.metadata;
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

impl Job {
    /// Records events about the job's pod.
    #[must_use]
    pub fn say(&self) -> Say<'_> {
        Say::new(&self.context.recorder, self.pod.as_deref())
    }

    fn pod(&self) -> Result<&Arc<Pod>, StageError> {
        self.pod.as_ref().ok_or_else(|| StageError::new("PodUnknown", "the pod's object is not known"))
    }
}

/// Executes a step.
///
/// # Errors
/// Why it failed.
pub async fn run(job: &Job) -> Result<Outcome, StageError> {
    match &job.step {
        Step::PrepareVolumes => prepare::volumes(job).await.map(Outcome::Volumes),
        Step::CreateCgroup => prepare::cgroup(job).await,
        Step::RecordAllocation => resize::record(job).await,
        Step::Resize(resize) => resize::run(job, resize).await,
        Step::RunSandbox { attempt } => sandbox::run(job, *attempt).await,
        Step::StopSandbox { id } => sandbox::stop(job, id).await,
        Step::RemoveSandbox { id } => sandbox::remove(job, id).await,
        Step::StartContainer(start) => Box::pin(container::start(job, start)).await,
        Step::PreStop(hook) => container::hook(job, hook).await,
        Step::KillContainer(kill) => container::kill(job, kill).await,
        Step::RemoveContainer { id, name } => container::remove(job, id, name).await,
        Step::UnmountVolumes => teardown::volumes(job).await,
        Step::RemoveCgroup => teardown::cgroup(job).await,
        Step::FinaliseDeletion => teardown::finalise(job).await,
        Step::CreateMirror { node_uid } => mirror::create(job, node_uid).await,
        Step::DeleteMirror { uid } => mirror::delete(job, uid).await,
        // The worker's own: no I/O.
        Step::Admit | Step::Allocate | Step::Reject { .. } => Ok(Outcome::Done),
    }
}

/// Runs what changes cgroups, as many at once as [`CGROUP_JOBS`]: systemd may take its time, and what else blocks needs threads, too.
async fn on_cgroups<T: Send + 'static>(
    context: &Context,
    reason: &str,
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, StageError> {
    // It is never closed.
    let turn = Arc::clone(&context.cgroup_jobs).acquire_owned().await;
    blocking(reason, move || {
        let _turn = turn;
        work()
    })
    .await
}

/// Runs what blocks on a thread that may.
async fn blocking<T: Send + 'static>(
    reason: &str,
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, StageError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|message| StageError::new(reason, message)),
        // Only while the agent is being shut down.
        Err(error) => Err(StageError::new(reason, error.to_string())),
    }
}
