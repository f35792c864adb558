//! One task for one pod UID. It owns everything about that pod.
//!
//! ```text
//!          +-> look (CRI) -> world -> pod::plan, pod::status -+-> launch steps ----> jobs
//!          |                                                  +-> probers
//!          |                                                  +-> publish status --> job
//!          +----- wait: desired pod, runtime event, verdict, job done, wake_at <------+
//! ```
//!
//! A wake-up carries no input: the loop always reads the world again. Steps run beside the loop and are never started
//! twice; their failures are facts of the next world. While the runtime is away nothing is planned, and nothing ends.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use api::{ContainerId, PodUid};
use futures::FutureExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use pod::{Admission, Desired, Event, HookState, NodeFacts, Plan, ProbeTarget, Role, Source, Step, World, events};
use probes::Report;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::memory::{Memory, current_sandbox, running};
use super::observe::{self, Seen};
use super::probing::{ProbeSet, RuntimeExec, Subject};
use super::publication::Publication;
use super::registry::Running;
use super::stages::{self, Job, Outcome, PodFacts, Say, StageError, prepare};
use super::status::{self, Written};
use super::{Context, admission, hooks};
use crate::client::backoff::Backoff;

/// Volumes of a running pod are refreshed after this, plus up to half of it.
const REFRESH: Duration = Duration::from_secs(60);
/// An object that is still there after its deletion was finalised is asked to go again.
const FINALISE_AGAIN: Duration = Duration::from_secs(10);
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// What a worker listens to.
pub struct Inputs {
    pub desired: watch::Receiver<Desired>,
    /// Changes when something of the pod changed in the runtime.
    pub runtime: watch::Receiver<u64>,
    /// Whether something of the pod may be on the machine from before this worker.
    pub found: bool,
}

/// Runs until nothing is left of the pod, and nothing is wanted.
pub async fn run(context: Arc<Context>, uid: PodUid, inputs: Inputs) {
    Worker::new(context, uid, inputs).run().await;
}

/// A job that panics has failed, as any other does: the answer to it must not be lost with it.
async fn guarded<T>(job: impl Future<Output = T>) -> Result<T, Panicked> {
    AssertUnwindSafe(job).catch_unwind().await.map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(ToString::to_string);
        let message = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        tracing::error!(%message, "job of a pod panicked");
        Panicked
    })
}

/// What becomes of a job that panicked. The panic itself is logged.
#[derive(Debug, thiserror::Error)]
#[error("internal error: the job panicked")]
struct Panicked;

/// What a job beside the loop came to.
enum Done {
    Step { step: Step, begun: Timestamp, result: Result<Outcome, StageError> },
    Hook { id: ContainerId, name: String, result: Result<(), String> },
    Refreshed { again: Option<Timestamp> },
    Published { status: Arc<PodStatus>, result: Result<Written, kube::Error> },
}

struct Worker {
    context: Arc<Context>,
    uid: PodUid,
    inputs: Inputs,
    memory: Memory,
    seen: Seen,
    /// The runtime must be looked at before anything is planned.
    stale: bool,
    /// Nobody wants this worker any more: the agent ends.
    closed: bool,
    retry: Backoff,
    probing: ProbeSet,
    jobs: JoinSet<Done>,
    /// Steps under way, or done and not to be repeated until then.
    under_way: HashMap<String, Option<Instant>>,
    status: Option<Arc<PodStatus>>,
    publication: Publication,
    said: Vec<Event>,
    refresh_at: Option<Instant>,
}

impl Worker {
    fn new(context: Arc<Context>, uid: PodUid, inputs: Inputs) -> Self {
        Self {
            context,
            uid,
            memory: Memory::default(),
            seen: Seen::default(),
            stale: inputs.found,
            closed: false,
            inputs,
            retry: Backoff::new(RETRY.0, RETRY.1),
            probing: ProbeSet::default(),
            jobs: JoinSet::new(),
            under_way: HashMap::new(),
            status: None,
            publication: Publication::default(),
            said: Vec::new(),
            refresh_at: None,
        }
    }

    async fn run(mut self) {
        if self.inputs.found {
            self.find_leftovers().await;
        }
        while !self.closed {
            let wake = if self.look().await {
                let (plan, wake) = self.pass();
                if plan.done && self.jobs.is_empty() {
                    break;
                }
                wake
            } else {
                self.publish();
                Some(Instant::now() + self.retry.pause())
            };
            self.wait(wake).await;
        }
        if !self.closed {
            self.context.registry.remove(&self.uid);
        }
    }

    /// What an earlier agent left of this pod on the disk and in the cgroup tree.
    async fn find_leftovers(&mut self) {
        let (context, uid) = (Arc::clone(&self.context), self.uid.clone());
        let found = tokio::task::spawn_blocking(move || {
            let any = |level| context.cgroups.exists(&context.tree.pod(level, uid.as_str()));
            (context.layout.pod(uid.as_str()).exists(), cgroups::QosLevel::ALL.into_iter().any(any))
        });
        if let Ok((volumes, cgroup)) = found.await {
            self.memory.prepared.volumes_on_disk = volumes;
            self.memory.prepared.cgroup = cgroup;
        }
    }

    /// Reads the runtime where it may have changed. Whether what is known is current.
    async fn look(&mut self) -> bool {
        if !self.stale {
            return true;
        }
        if let Err(error) = observe::pod(&self.context.runtime, &self.uid, &mut self.seen).await {
            tracing::debug!(pod = %self.uid, %error, "runtime cannot be read, will retry");
            return false;
        }
        self.retry.reset();
        self.stale = false;
        self.memory.prune(&self.seen);
        true
    }

    /// One pass: world, plan, and everything that follows from it. Answers when to look again.
    fn pass(&mut self) -> (Plan, Option<Instant>) {
        let desired = self.inputs.desired.borrow_and_update().clone();
        let pod = pod_of(&desired);
        if let (Desired::Present(pod), true) = (&desired, pod.is_some()) {
            self.publication.seen(pod);
        }
        let mut world = self.world(desired);
        let mut plan = pod::plan(&world);
        if plan.steps.contains(&Step::Admit) {
            self.admit(pod.as_ref());
            world.admission.clone_from(&self.memory.admission);
            plan = pod::plan(&world);
        }
        let status = Arc::new(pod::status(&world, &plan));
        self.status = Some(status);
        if matches!(world.desired, Desired::Present(_)) {
            self.publish();
        }
        self.register(pod.as_ref());
        self.announce(pod.as_ref(), &plan);
        self.probe(pod.as_ref(), &plan.probes, world.previous.as_ref());
        for step in &plan.steps {
            self.launch(pod.as_ref(), step);
        }
        let wake = self.wake_at(&plan, world.now);
        (plan, wake)
    }

    fn world(&self, desired: Desired) -> World {
        let now = Timestamp::now();
        let mut observed = self.memory.observed(&self.seen);
        observed.probes = self.probing.results();
        let from_api = pod_of(&desired).and_then(|pod| pod.status.clone());
        World {
            now,
            uid: self.uid.clone(),
            desired,
            source: Source::Api,
            admission: self.memory.admission.clone(),
            eviction: None,
            observed,
            failures: self.memory.failures.clone(),
            node: NodeFacts {
                ips: self.context.addresses.borrow().clone(),
                backoff_max: self.context.config.backoff_max,
                network_ready: *self.context.network_ready.borrow(),
                ..NodeFacts::default()
            },
            previous: self.status.as_deref().cloned().or(from_api),
            published: self.publication.has(self.status.as_ref()),
        }
    }

    fn admit(&mut self, pod: Option<&Arc<Pod>>) {
        let Some(pod) = pod else { return };
        // Asked again as soon as the node is known.
        let Some(answer) = admission::admit(pod, &self.context) else { return };
        let admitted = answer == Admission::Admitted;
        self.context.registry.update(&self.uid, pod, |entry| entry.admitted = admitted);
        self.memory.admission = Some(answer);
    }

    fn register(&self, pod: Option<&Arc<Pod>>) {
        let Some(pod) = pod else { return };
        let live = self.seen.containers.iter().filter(|c| c.state == pod::ContainerState::Running);
        let running: Vec<_> = live.map(Running::from).collect();
        let sandbox = current_sandbox(&self.seen).map(Running::from);
        let status = self.status.clone();
        let known = !self.seen.sandboxes.is_empty();
        let sandboxes = self.seen.sandboxes.iter().map(|sandbox| sandbox.id.to_string());
        let parts = sandboxes.chain(self.seen.containers.iter().map(|container| container.id.to_string())).collect();
        self.context.registry.update(&self.uid, pod, |entry| {
            entry.status = status;
            entry.running = running;
            entry.sandbox = sandbox;
            entry.parts = parts;
            entry.admitted |= known;
        });
    }

    /// Records what the situation has to say, once for as long as it holds.
    fn announce(&mut self, pod: Option<&Arc<Pod>>, plan: &Plan) {
        let say = Say::new(&self.context.recorder, pod.map(AsRef::as_ref));
        for event in plan.events.iter().filter(|event| !self.said.contains(event)) {
            say.event(event.clone());
        }
        self.said.clone_from(&plan.events);
    }

    fn probe(&mut self, pod: Option<&Arc<Pod>>, targets: &[ProbeTarget], previous: Option<&PodStatus>) {
        self.probing.keep(targets);
        let Some(pod) = pod else { return };
        let ip = self.ips().into_iter().next();
        for target in targets {
            let spec = pod.spec.as_ref().and_then(|spec| api::pod::container(spec, &target.name));
            let container = self.seen.containers.iter().find(|container| container.id == target.id);
            let (Some(spec), Some(container)) = (spec, container) else { continue };
            let resumed = !self.memory.started.contains(&target.id);
            let subject = Subject { spec: &spec, container, ip, status: previous, resumed };
            let exec = Arc::new(RuntimeExec { runtime: self.context.runtime.clone(), id: target.id.clone() });
            let (context, pod, name) = (Arc::clone(&self.context), Arc::clone(pod), target.name.clone());
            let report = move |report: Report| {
                let role = events::role(&pod, &name).unwrap_or(Role::App);
                let event = match report {
                    Report::Unhealthy(text) => Event::warning("Unhealthy", &text),
                    Report::Warning(text) => Event::warning("ProbeWarning", &text),
                };
                Say::new(&context.recorder, Some(&pod)).event(event.of_container(role, &name));
            };
            self.probing.start(target, &subject, &exec, &report);
        }
    }

    /// The pod's addresses: its sandbox's, or the node's where it shares that network.
    fn ips(&self) -> Vec<std::net::IpAddr> {
        match current_sandbox(&self.seen) {
            Some(sandbox) if sandbox.host_network => self.context.addresses.borrow().clone(),
            Some(sandbox) => sandbox.ips.clone(),
            None => Vec::new(),
        }
    }

    fn launch(&mut self, pod: Option<&Arc<Pod>>, step: &Step) {
        if matches!(step, Step::Admit | Step::Reject { .. }) {
            return;
        }
        let key = key(step);
        if self.under_way.get(&key).is_some_and(|until| until.is_none_or(|at| at > Instant::now())) {
            return;
        }
        let begun = Timestamp::now();
        self.under_way.insert(key, None);
        self.memory.begun(step, begun);
        if let (Some(pod), Some(event)) = (pod, pod.and_then(|pod| events::begun(pod, step))) {
            Say::new(&self.context.recorder, Some(pod)).event(event);
        }
        let facts = PodFacts { volumes: self.memory.volumes.clone(), ips: self.ips(), running: running(&self.seen) };
        let job = Job {
            context: Arc::clone(&self.context),
            uid: self.uid.clone(),
            pod: pod.cloned(),
            step: step.clone(),
            facts,
        };
        self.jobs.spawn(async move {
            let result = guarded(Box::pin(stages::run(&job))).await;
            let failed = |panicked: Panicked| Err(StageError::new("InternalError", panicked.to_string()));
            let result = result.unwrap_or_else(failed);
            Done::Step { step: job.step, begun, result }
        });
    }

    /// Sends the latest status, unless one is on its way.
    fn publish(&mut self) {
        let Some(write) = self.status.as_ref().and_then(|status| self.publication.next(status)) else { return };
        let client = self.context.client.clone();
        self.jobs.spawn(async move {
            let result = guarded(status::write(&client, &write.base, &write.status)).await;
            let result = result.unwrap_or_else(|panicked| Err(kube::Error::Service(panicked.into())));
            Done::Published { status: write.status, result }
        });
    }

    fn wake_at(&self, plan: &Plan, now: Timestamp) -> Option<Instant> {
        let until = |at: Timestamp| Duration::try_from(at.duration_since(now)).unwrap_or_default();
        // A moment later than asked: the clocks differ, and too early would be a pass for nothing.
        let planned = plan.wake_at.map(|at| Instant::now() + until(at) + Duration::from_millis(1));
        let again = self.under_way.values().flatten().min().copied();
        [planned, self.publication.wake_at(), self.refresh_at, again].into_iter().flatten().min()
    }

    async fn wait(&mut self, wake: Option<Instant>) {
        let asleep = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let mut network = self.context.network_ready.clone();
        let offline = !*network.borrow_and_update();
        let mut node = self.context.node.clone();
        let unknown = node.borrow_and_update().is_none();
        // Cancel-safe: watches and the stream of verdicts keep what is not read, join_next loses no task.
        tokio::select! {
            changed = self.inputs.desired.changed() => self.closed = changed.is_err(),
            changed = self.inputs.runtime.changed() => {
                self.closed = changed.is_err();
                self.stale = true;
            }
            () = self.probing.changed() => {}
            Some(done) = self.jobs.join_next() => self.absorb(done),
            _ = network.changed(), if offline => {}
            _ = node.changed(), if unknown => {}
            () = asleep => self.refresh(),
        }
        // What happened meanwhile is part of the same world.
        while let Some(done) = self.jobs.try_join_next() {
            self.absorb(done);
        }
    }

    fn absorb(&mut self, done: Result<Done, tokio::task::JoinError>) {
        match done {
            Ok(Done::Step { step, begun, result }) => self.absorb_step(&step, begun, result),
            Ok(Done::Published { status, result }) => self.publication.written(status, result),
            Ok(Done::Refreshed { again }) => self.schedule_refresh(again),
            Ok(Done::Hook { id, name, result }) => self.absorb_hook(id, &name, result),
            // Panics are caught within the job, and jobs are only cancelled together with the worker.
            Err(error) => tracing::error!(pod = %self.uid, %error, "job of a pod ended badly"),
        }
    }

    fn absorb_step(&mut self, step: &Step, begun: Timestamp, result: Result<Outcome, StageError>) {
        self.under_way.remove(&key(step));
        let in_runtime = !matches!(
            step,
            Step::PrepareVolumes
                | Step::CreateCgroup
                | Step::UnmountVolumes
                | Step::RemoveCgroup
                | Step::FinaliseDeletion
        );
        self.stale |= in_runtime;
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(error) => return self.absorb_failure(step, begun, &error),
        };
        self.memory.succeeded(step, begun);
        match (step, outcome) {
            (_, Outcome::Volumes(prepared)) => {
                self.memory.prepared.volumes = true;
                self.memory.prepared.volumes_on_disk = true;
                self.memory.volumes = prepared.paths;
                if prepared.refreshes {
                    self.schedule_refresh(prepared.renew_at);
                }
            }
            (_, Outcome::Started(id)) => self.container_started(step, id),
            (Step::UnmountVolumes, _) => self.refresh_at = None,
            (Step::FinaliseDeletion, _) => {
                self.under_way.insert(key(step), Some(Instant::now() + FINALISE_AGAIN));
            }
            _ => {}
        }
    }

    fn absorb_failure(&mut self, step: &Step, begun: Timestamp, error: &StageError) {
        tracing::info!(pod = %self.uid, ?step, reason = %error.reason, message = %error.message, "step failed");
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
                tracing::debug!(pod = %self.uid, container = %name, %message, "postStart hook failed");
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

    fn schedule_refresh(&mut self, renew_at: Option<Timestamp>) {
        let usual = REFRESH.mul_f64(rand::Rng::random_range(&mut rand::rng(), 1.0..1.5));
        let renewal = renew_at.map(|at| Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default());
        let pause = renewal.map_or(usual, |renewal| renewal.min(usual)).max(Duration::from_secs(1));
        self.refresh_at = Some(Instant::now() + pause);
    }

    /// Brings the content of volumes up to date, when that is due. What cannot be read stays as it is.
    fn refresh(&mut self) {
        if self.refresh_at.is_none_or(|at| at > Instant::now()) {
            return;
        }
        self.refresh_at = None;
        let Some(pod) = pod_of(&self.inputs.desired.borrow()).filter(|_| self.memory.prepared.volumes) else { return };
        let (context, ips) = (Arc::clone(&self.context), self.ips());
        self.jobs.spawn(async move {
            let reader = context.objects.lately();
            let again = match guarded(prepare::set_up(&context, &pod, &ips, &reader)).await {
                Ok(Ok(prepared)) => prepared.renew_at,
                Ok(Err(errors)) => {
                    tracing::debug!(?errors, "volumes not refreshed, will retry");
                    None
                }
                Err(Panicked) => None,
            };
            Done::Refreshed { again }
        });
    }
}

/// The object of a pod, as it is or was last known.
fn pod_of(desired: &Desired) -> Option<Arc<Pod>> {
    match desired {
        Desired::Present(pod) => Some(Arc::clone(pod)),
        Desired::Gone { last, .. } => last.clone(),
    }
}

/// Two steps with the same key are never under way together. A kill with less grace goes beside the one before it.
fn key(step: &Step) -> String {
    match step {
        Step::StartContainer(start) => format!("start {}", start.name),
        Step::KillContainer(kill) => format!("kill {} {}", kill.id, kill.grace),
        Step::StopSandbox { id } => format!("stop {id}"),
        Step::RemoveSandbox { id } => format!("remove {id}"),
        Step::RemoveContainer { id, .. } => format!("remove {id}"),
        Step::RunSandbox { .. } => "run".to_owned(),
        Step::PrepareVolumes | Step::UnmountVolumes => "volumes".to_owned(),
        Step::CreateCgroup | Step::RemoveCgroup => "cgroup".to_owned(),
        Step::FinaliseDeletion => "finalise".to_owned(),
        Step::Admit | Step::Reject { .. } => "admit".to_owned(),
    }
}
