//! What a worker knows of its pod beside what the runtime says: the rest of [`pod::World`].
//!
//! All of it is found again after a restart, or is safe to forget: failures start counting anew, hooks count as done.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;

use api::{ContainerId, SandboxId};
use jiff::Timestamp;
use pod::{
    Actuated, Admission, Allocation, Begun, ContainerState, Deferral, Failure, HookState, Kill, Observed, Prepared,
    Stage, Step,
};

use super::observe::Seen;
use super::stages::StageError;

/// The worker's own facts.
#[derive(Debug, Default)]
pub struct Memory {
    pub admission: Option<Admission>,
    pub allocation: Option<Allocation>,
    pub deferral: Option<Deferral>,
    /// The resources in force.
    pub actuated: Actuated,
    /// The allocation is not on the disk yet.
    pub unrecorded: bool,
    pub failures: BTreeMap<Stage, Failure>,
    pub hooks: BTreeMap<ContainerId, HookState>,
    pub kills: BTreeMap<ContainerId, Kill>,
    pub pre_stops: BTreeMap<ContainerId, Begun>,
    pub starting: BTreeSet<String>,
    pub making_sandbox: bool,
    pub prepared: Prepared,
    /// Where the volumes lie, once they are prepared.
    pub volumes: BTreeMap<String, PathBuf>,
    /// Containers that this agent started.
    pub started: HashSet<ContainerId>,
    stopped: HashSet<SandboxId>,
}

impl Memory {
    /// A step is about to run.
    pub fn begun(&mut self, step: &Step, now: Timestamp) {
        match step {
            Step::StartContainer(start) => drop(self.starting.insert(start.name.clone())),
            Step::RunSandbox { .. } => self.making_sandbox = true,
            Step::KillContainer(kill) => {
                let begun = Kill { at: now, grace: kill.grace, running: true, restarts: kill.restarts };
                self.kills.insert(kill.id.clone(), begun);
            }
            Step::PreStop(hook) => {
                self.pre_stops.insert(hook.id.clone(), Begun { at: now, running: true });
            }
            _ => {}
        }
    }

    /// A step did what it was to do.
    pub fn succeeded(&mut self, step: &Step, begun: Timestamp) {
        self.failures.remove(&step.stage());
        match step {
            Step::CreateCgroup => self.prepared.cgroup = true,
            Step::RemoveCgroup => self.prepared.cgroup = false,
            Step::RecordAllocation => self.unrecorded = false,
            Step::UnmountVolumes => {
                self.prepared.volumes = false;
                self.prepared.volumes_on_disk = false;
                self.volumes.clear();
            }
            Step::StopSandbox { id } => drop(self.stopped.insert(id.clone())),
            _ => {}
        }
        self.ended(step, begun);
    }

    /// A step failed.
    pub fn failed(&mut self, step: &Step, begun: Timestamp, error: &StageError) -> Failure {
        let stage = step.stage();
        let spec_hash = if let Step::StartContainer(start) = step { Some(start.spec_hash.clone()) } else { None };
        let count = pod::backoff::failures(self.failures.get(&stage), &error.reason, spec_hash.as_deref());
        let (reason, message) = (error.reason.clone(), error.message.clone());
        let failure = Failure { reason, message, at: Timestamp::now(), count, spec_hash };
        self.failures.insert(stage, failure.clone());
        if matches!(step, Step::PrepareVolumes) {
            // Some may be there.
            self.prepared.volumes_on_disk = true;
        }
        if let Step::KillContainer(kill) = step
            && let Some(known) = self.kills.get_mut(&kill.id)
        {
            // It may run on, and end by itself one day.
            known.restarts = false;
        }
        self.ended(step, begun);
        failure
    }

    fn ended(&mut self, step: &Step, begun: Timestamp) {
        match step {
            Step::StartContainer(start) => drop(self.starting.remove(&start.name)),
            Step::RunSandbox { .. } => self.making_sandbox = false,
            Step::PreStop(hook) => {
                if let Some(known) = self.pre_stops.get_mut(&hook.id) {
                    known.running = false;
                }
            }
            Step::KillContainer(kill) => {
                // A later kill with less grace is a matter of its own.
                if let Some(known) = self.kills.get_mut(&kill.id).filter(|known| known.at == begun) {
                    known.running = false;
                }
            }
            _ => {}
        }
    }

    /// Forgets what is about containers and sandboxes that the runtime has no more.
    pub fn prune(&mut self, seen: &Seen) {
        let known: BTreeSet<_> = seen.containers.iter().map(|container| container.id.clone()).collect();
        self.hooks.retain(|id, _| known.contains(id));
        self.kills.retain(|id, kill| kill.running || known.contains(id));
        self.pre_stops.retain(|id, _| known.contains(id));
        self.started.retain(|id| known.contains(id));
        self.actuated.containers.retain(|id, _| known.contains(id));
        self.stopped.retain(|id| seen.sandboxes.iter().any(|sandbox| sandbox.id == *id));
    }

    /// What the plan is to see of the machine.
    #[must_use]
    pub fn observed(&self, seen: &Seen) -> Observed {
        let mut sandboxes = seen.sandboxes.clone();
        for sandbox in &mut sandboxes {
            sandbox.stopped = self.stopped.contains(&sandbox.id);
        }
        Observed {
            sandboxes,
            containers: seen.containers.clone(),
            prepared: self.prepared,
            probes: BTreeMap::new(),
            hooks: self.hooks.clone(),
            kills: self.kills.clone(),
            pre_stops: self.pre_stops.clone(),
            starting: self.starting.clone(),
            making_sandbox: self.making_sandbox,
            actuated: self.actuated.clone(),
            unrecorded: self.unrecorded,
        }
    }
}

/// The sandbox that the pod lives in now: the newest that is ready.
#[must_use]
pub fn current_sandbox(seen: &Seen) -> Option<&pod::Sandbox> {
    seen.sandboxes.iter().filter(|sandbox| sandbox.ready).max_by_key(|sandbox| (sandbox.attempt, sandbox.created_at))
}

/// Containers that run in the current sandbox, by name.
#[must_use]
pub fn running(seen: &Seen) -> BTreeMap<String, ContainerId> {
    let sandbox = current_sandbox(seen).map(|sandbox| &sandbox.id);
    let here = seen.containers.iter().filter(|container| Some(&container.sandbox) == sandbox);
    let live = here.filter(|container| container.state == ContainerState::Running);
    live.map(|container| (container.name.clone(), container.id.clone())).collect()
}
