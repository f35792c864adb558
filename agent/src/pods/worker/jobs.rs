//! What runs beside a worker's loop: steps, hooks, refreshes, status writes. No step is ever under way twice.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use api::ContainerId;
use futures::FutureExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodStatus;
use pod::Step;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tracing::Instrument as _;
use volumes::Prepared;

use crate::pods::stages::{self, Job, Outcome, StageError};
use crate::pods::status::Written;

/// What a job came to.
pub enum Done {
    Step {
        step: Step,
        begun: Timestamp,
        result: Result<Outcome, StageError>,
    },
    Hook {
        id: ContainerId,
        name: String,
        result: Result<(), String>,
    },
    /// `Err` with what each volume that failed has to say.
    Refreshed {
        result: Result<Prepared, Vec<String>>,
    },
    Checkpoint {
        worked: bool,
    },
    Published {
        status: Arc<PodStatus>,
        result: Result<Written, kube::Error>,
    },
}

/// What becomes of a job that panicked. The panic itself is logged.
#[derive(Debug, thiserror::Error)]
#[error("internal error: the job panicked")]
pub struct Panicked;

/// A job that panics has failed, as any other does: the answer to it must not be lost with it.
///
/// # Errors
/// That it panicked.
pub async fn guarded<T>(job: impl Future<Output = T>) -> Result<T, Panicked> {
    AssertUnwindSafe(job).catch_unwind().await.map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(ToString::to_string);
        let message = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        tracing::error!(%message, "job of a pod panicked");
        Panicked
    })
}

/// The jobs of one worker. They end with it.
#[derive(Default)]
pub struct Jobs {
    running: JoinSet<Done>,
    /// Steps under way, or done and not to be repeated until then.
    steps: HashMap<String, Option<Instant>>,
}

impl Jobs {
    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Whether this step may begin now.
    pub fn may_begin(&self, step: &Step) -> bool {
        self.steps.get(&key(step)).is_none_or(|until| until.is_some_and(|at| at <= Instant::now()))
    }

    /// Begins a step.
    pub fn step(&mut self, job: Job, begun: Timestamp) {
        self.steps.insert(key(&job.step), None);
        self.spawn(async move {
            let result = guarded(Box::pin(stages::run(&job))).await;
            let failed = |panicked: Panicked| Err(StageError::new("InternalError", panicked.to_string()));
            let result = result.unwrap_or_else(failed);
            Done::Step { step: job.step, begun, result }
        });
    }

    /// A step came to its end; it may begin again, but not before `again`.
    pub fn ended(&mut self, step: &Step, again: Option<Instant>) {
        match again {
            Some(at) => self.steps.insert(key(step), Some(at)),
            None => self.steps.remove(&key(step)),
        };
    }

    /// Begins anything else.
    pub fn spawn(&mut self, job: impl Future<Output = Done> + Send + 'static) {
        self.running.spawn(job.in_current_span());
    }

    /// When the first of the steps that had to pause may begin again.
    pub fn wake_at(&self) -> Option<Instant> {
        self.steps.values().flatten().min().copied()
    }

    /// Waits for the next job to end; `None` when there is none. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<Done, JoinError>> {
        self.running.join_next().await
    }

    /// A job that has ended already.
    pub fn try_next(&mut self) -> Option<Result<Done, JoinError>> {
        self.running.try_join_next()
    }
}

/// Two steps with the same key are never under way together. A kill with less grace goes beside the one before it.
fn key(step: &Step) -> String {
    match step {
        Step::StartContainer(start) => format!("start {}", start.name),
        Step::PreStop(hook) => format!("preStop {}", hook.id),
        Step::KillContainer(kill) => format!("kill {} {}", kill.id, kill.grace),
        Step::StopSandbox { id } => format!("stop {id}"),
        Step::RemoveSandbox { id } => format!("remove {id}"),
        Step::RemoveContainer { id, .. } => format!("remove {id}"),
        Step::RunSandbox { .. } => "run".to_owned(),
        Step::PrepareVolumes | Step::UnmountVolumes => "volumes".to_owned(),
        Step::CreateCgroup | Step::RemoveCgroup => "cgroup".to_owned(),
        Step::FinaliseDeletion => "finalise".to_owned(),
        Step::CreateMirror { .. } | Step::DeleteMirror { .. } => "mirror".to_owned(),
        Step::RecordAllocation | Step::Resize(_) => "resize".to_owned(),
        Step::Admit | Step::Allocate | Step::Reject { .. } => "admit".to_owned(),
    }
}
