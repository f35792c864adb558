//! What jobs come to becomes part of the next world.

use std::sync::Arc;
use std::time::Duration;

use api::ContainerId;
use jiff::Timestamp;
use pod::{Event, HookState, KillContainer, PreStop, Role, StartContainer, Step, events};
use tokio::task::JoinError;
use tokio::time::Instant;
use volumes::Prepared;

use super::jobs::{Done, guarded};
use super::{Worker, counted, pod_of};
use crate::pods::hooks;
use crate::pods::stages::{Outcome, Say, StageError};

/// An object that is still there after its deletion was finalised is asked to go again.
const FINALISE_AGAIN: Duration = Duration::from_secs(10);

impl Worker {
    pub(super) fn absorb(&mut self, done: Result<Done, JoinError>) {
        match done {
            Ok(Done::Step { step, begun, result }) => self.absorb_step(&step, begun, result),
            Ok(Done::Published { status, result }) => {
                if let (Ok(_), Some(pod)) = (&result, pod_of(&self.inputs.desired.borrow())) {
                    self.start.told(&pod, &status, Timestamp::now());
                }
                self.publication.written(status, result);
            }
            Ok(Done::Refreshed { result: Ok(prepared) }) => self.volumes_are(prepared),
            Ok(Done::Refreshed { result: Err(texts) }) => self.refresh_failed(texts),
            Ok(Done::Checkpoint { worked }) => self.checkpoint.done(worked),
            Ok(Done::Hook { id, name, result }) => self.absorb_hook(id, &name, result),
            // Panics are caught within the job, and jobs are only cancelled together with the worker.
            Err(error) => tracing::error!(%error, "job of a pod ended badly"),
        }
    }

    fn absorb_step(&mut self, step: &Step, begun: Timestamp, result: Result<Outcome, StageError>) {
        self.jobs.ended(step, None);
        counted::done(pod_of(&self.inputs.desired.borrow()).as_deref(), step, begun, result.as_ref().err());
        self.note_stale(step, result.as_ref().ok());
        let error = result.as_ref().err().map(|error| format!("{}: {}", error.reason, error.message));
        self.context.journal.came_to(&self.uid, begun, error);
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(error) => return self.absorb_failure(step, begun, &error),
        };
        let took = Timestamp::now().duration_since(begun);
        tracing::debug!(?step, took_us = took.as_micros(), "step done");
        self.memory.succeeded(step, begun);
        match (step, outcome) {
            (_, Outcome::Volumes(prepared)) => {
                self.memory.prepared.volumes = true;
                self.memory.prepared.volumes_on_disk = true;
                self.volumes_are(prepared);
            }
            (_, Outcome::Cgroup(given)) => self.memory.actuated.cgroup = Some(*given),
            (_, Outcome::Resized(actuated)) => {
                self.memory.actuated.containers.extend(actuated.containers);
                self.memory.actuated.cgroup = actuated.cgroup;
            }
            (_, Outcome::Mirror(mirror)) => self.mirrored(mirror),
            (_, Outcome::Started(id)) => self.container_started(step, id),
            (Step::UnmountVolumes, _) => self.refresh.stop(),
            (Step::FinaliseDeletion, _) => self.jobs.ended(step, Some(Instant::now() + FINALISE_AGAIN)),
            _ => {}
        }
    }

    fn volumes_are(&mut self, prepared: Prepared) {
        self.memory.volumes = prepared.paths;
        self.refresh.done(prepared.renew_at);
    }

    /// What a step changed in the runtime, or may have changed before it failed.
    fn note_stale(&mut self, step: &Step, outcome: Option<&Outcome>) {
        match (step, outcome) {
            (_, Some(Outcome::Sandbox(id))) => self.stale.sandboxes.push(id.clone()),
            (Step::StartContainer(start), Some(Outcome::Started(id))) => {
                self.stale.containers.push((id.clone(), start.sandbox.clone()));
            }
            _ => self.stale.all |= is_seen_in_runtime(step),
        }
    }

    fn absorb_failure(&mut self, step: &Step, begun: Timestamp, error: &StageError) {
        tracing::info!(container = container(step), ?step, reason = %error.reason, message = %error.message, "step failed");
        let failure = self.memory.failed(step, begun, error);
        let Some(pod) = pod_of(&self.inputs.desired.borrow()) else { return };
        if let Some(event) = events::failed(&pod, step, &failure) {
            Say::new(&self.context.recorder, Some(&pod)).event(event);
        }
    }

    /// A container runs: its postStart hook begins.
    fn container_started(&mut self, step: &Step, id: ContainerId) {
        let Step::StartContainer(start) = step else { return };
        self.memory.started.insert(id.clone());
        let Some(pod) = pod_of(&self.inputs.desired.borrow()) else { return };
        let container = pod.spec.as_ref().and_then(|spec| api::pod::container(spec, &start.name));
        let Some(container) = container.map(std::borrow::Cow::into_owned) else { return };
        let Some(hook) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.clone()) else {
            return;
        };
        self.memory.hooks.insert(id.clone(), HookState::Running);
        let (context, ip, name) = (Arc::clone(&self.context), self.ips().into_iter().next(), start.name.clone());
        self.jobs.spawn(async move {
            let result = guarded(hooks::run(&context, &pod, &container, &id, &hook, ip)).await;
            let result = result.unwrap_or_else(|panicked| Err(panicked.to_string()));
            Done::Hook { id, name, result }
        });
    }

    fn absorb_hook(&mut self, id: ContainerId, name: &str, result: Result<(), String>) {
        let state = match result {
            Ok(()) => HookState::Succeeded,
            Err(message) => {
                tracing::debug!(container = %name, %message, "postStart hook failed");
                self.note_hook(name, &message);
                if let Some(pod) = pod_of(&self.inputs.desired.borrow()) {
                    let role = events::role(&pod, name).unwrap_or(Role::App);
                    let event = Event::warning("FailedPostStartHook", "PostStartHook failed").of_container(role, name);
                    Say::new(&self.context.recorder, Some(&pod)).event(event);
                }
                HookState::Failed { message }
            }
        };
        self.memory.hooks.insert(id, state);
    }
}

/// The container that a step is about.
fn container(step: &Step) -> Option<&str> {
    match step {
        Step::StartContainer(StartContainer { name, .. })
        | Step::PreStop(PreStop { name, .. })
        | Step::KillContainer(KillContainer { name, .. })
        | Step::RemoveContainer { name, .. } => Some(name),
        _ => None,
    }
}

/// Whether the runtime must be looked at again after a step.
fn is_seen_in_runtime(step: &Step) -> bool {
    !matches!(
        step,
        Step::PrepareVolumes
            | Step::CreateCgroup
            | Step::PreStop(_)
            | Step::RecordAllocation
            | Step::Resize(_)
            | Step::UnmountVolumes
            | Step::RemoveCgroup
            | Step::FinaliseDeletion
            | Step::CreateMirror { .. }
            | Step::DeleteMirror { .. }
    )
}
