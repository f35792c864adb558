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

mod absorb;
mod checkpoint;
mod counted;
mod jobs;
mod mirror;
mod note;
mod probe;
mod refresh;
mod resize;

use std::sync::Arc;
use std::time::Duration;

use api::PodUid;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use pod::{Desired, Event, NodeFacts, Plan, Step, World, events};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::admission::Answer;
use super::memory::{Memory, current_sandbox, running};
use super::observe::{self, Seen, Stale};
use super::probing::ProbeSet;
use super::publication::Publication;
use super::questions::Question;
use super::record::Record;
use super::registry::Running;
use super::runtime::RuntimeFacts;
use super::stages::doors::Doors;
use super::stages::{Job, PodFacts, Say};
use super::{Context, admission, gc, orders, status};
use crate::client::backoff::{Backoff, until};
use crate::metrics::PodStart;
use crate::metrics::families::POD_WORKER;
use crate::node::own;
use checkpoint::Checkpoint;
use jobs::{Done, Jobs, guarded};
pub use mirror::{Mirrors, Origin};
use refresh::Refresh;
use resize::{Given, Trigger, Waiting};

const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// How often it is looked whether pods that must go first are gone, or have found their places.
const PREEMPTED: Duration = Duration::from_millis(200);

/// What a worker listens to.
pub struct Inputs {
    pub desired: watch::Receiver<Desired>,
    /// Changes when something of the pod changed in the runtime.
    pub runtime: watch::Receiver<u64>,
    pub origin: Origin,
    /// Whether something of the pod may be on the machine from before this worker.
    pub found: bool,
}

/// Runs until nothing is left of the pod, and nothing is wanted.
pub async fn run(context: Arc<Context>, uid: PodUid, inputs: Inputs) {
    // What is logged of the pod, also by its jobs, says whose it is.
    let name = pod_of(&inputs.desired.borrow()).map(|pod| {
        let meta = &pod.metadata;
        format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
    });
    let span = tracing::info_span!("pod", pod = name, %uid);
    Worker::new(context, uid, inputs).run().instrument(span).await;
}

struct Worker {
    context: Arc<Context>,
    uid: PodUid,
    inputs: Inputs,
    memory: Memory,
    seen: Seen,
    /// What of the runtime must be looked at before anything is planned.
    stale: Stale,
    /// Nobody wants this worker any more: the agent ends.
    closed: bool,
    runtime_facts: watch::Receiver<RuntimeFacts>,
    orders: orders::Receiver,
    questions: mpsc::Receiver<Question>,
    /// What was asked since the last pass.
    asked: Option<Question>,
    /// When admission is asked again: pods that must go first are on their way.
    admit_at: Option<Instant>,
    node: own::Receiver,
    retry: Backoff,
    probing: ProbeSet,
    jobs: Jobs,
    status: Option<Arc<PodStatus>>,
    publication: Publication,
    said: Vec<Event>,
    refresh: Refresh,
    /// The pod with the resources that it was given.
    given: Option<Given>,
    /// What a resize that was put off waits for.
    waiting: Option<Waiting>,
    /// Why it is asked for again.
    deferred: Option<Trigger>,
    checkpoint: Checkpoint,
    start: PodStart,
    doors: Arc<Doors>,
}

impl Worker {
    fn new(context: Arc<Context>, uid: PodUid, inputs: Inputs) -> Self {
        Self {
            refresh: Refresh::new(Arc::clone(&context.objects)),
            runtime_facts: context.runtime_facts.clone(),
            orders: context.orders.listen(),
            questions: context.questions.listen(&uid),
            asked: None,
            admit_at: None,
            node: context.node.clone(),
            context,
            uid,
            memory: Memory::default(),
            seen: Seen::default(),
            stale: Stale { all: inputs.found, ..Stale::default() },
            closed: false,
            start: PodStart::new(inputs.found),
            inputs,
            retry: Backoff::new(RETRY.0, RETRY.1),
            probing: ProbeSet::default(),
            jobs: Jobs::default(),
            status: None,
            publication: Publication::default(),
            said: Vec::new(),
            given: None,
            waiting: None,
            deferred: None,
            checkpoint: Checkpoint::default(),
            doors: Arc::default(),
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
                self.asked = None;
                Some(Instant::now() + self.retry.pause())
            };
            self.wait(wake).await;
        }
        if !self.closed {
            self.remove_logs().await;
            self.context.registry.remove(&self.uid);
            self.start.ended(self.uid.as_str());
            self.forget_probes();
            self.context.orders.forget(&self.uid);
            self.context.questions.forget(&self.uid);
            self.context.journal.ended(&self.uid);
            self.context.objects.forget(self.uid.as_str());
        }
    }

    /// The last of the pod on this machine: also of one whose name nobody knows any more. One that is started anew has its logs.
    async fn remove_logs(&self) {
        if matches!(*self.inputs.desired.borrow(), Desired::Gone { returns: true, .. }) {
            return;
        }
        let (context, uid) = (Arc::clone(&self.context), self.uid.clone());
        let removed = tokio::task::spawn_blocking(move || gc::remove_logs(&context.config.logs_dir, &uid));
        // Fails only while the agent is being shut down.
        drop(removed.await);
    }

    /// What an earlier agent left of this pod on the disk and in the cgroup tree.
    async fn find_leftovers(&mut self) {
        let (context, uid) = (Arc::clone(&self.context), self.uid.clone());
        let found = tokio::task::spawn_blocking(move || {
            let any = |level| context.cgroups.exists(&context.tree.pod(level, uid.as_str()));
            let cgroup = cgroups::QosLevel::ALL.into_iter().any(any);
            (context.layout.pod(uid.as_str()).exists(), cgroup, Record::read(&context.layout, uid.as_str()))
        });
        if let Ok((volumes, cgroup, record)) = found.await {
            self.memory.prepared.volumes_on_disk = volumes;
            self.memory.prepared.cgroup = cgroup;
            self.recall_allocation(record);
        }
    }

    /// Reads the runtime where it may have changed. Whether what is known is current.
    async fn look(&mut self) -> bool {
        if self.stale.is_empty() {
            return true;
        }
        if let Err(error) = observe::look(&self.context.runtime, &self.uid, &self.stale, &mut self.seen).await {
            tracing::debug!(%error, "runtime cannot be read, will retry");
            return false;
        }
        self.retry.reset();
        self.stale = Stale::default();
        self.memory.prune(&self.seen);
        self.doors.keep(|id| self.seen.sandboxes.iter().any(|sandbox| sandbox.ready && sandbox.id == *id));
        true
    }

    /// One pass: world, plan, and everything that follows from it. Answers when to look again.
    fn pass(&mut self) -> (Plan, Option<Instant>) {
        let begun = Instant::now();
        let operation = if self.status.is_none() {
            "create"
        } else if self.inputs.desired.has_changed().unwrap_or(false) {
            "update"
        } else {
            "sync"
        };
        let desired = self.inputs.desired.borrow_and_update().clone();
        let asked = pod_of(&desired);
        self.adopt_allocation(asked.as_ref());
        self.count_requests(asked.as_ref());
        if self.status.is_none() && !self.inputs.found {
            counted::seen(asked.as_deref());
        }
        let (world, plan) = self.decide(desired, asked.as_ref());
        let pod = self.given(asked.as_ref());
        let status = pod::status(&world, &plan);
        counted::ended(world.previous.as_ref(), &status);
        // The same one as long as it says the same: who holds it sees at a glance that nothing changed.
        let status = self.status.take().filter(|known| **known == status).unwrap_or_else(|| Arc::new(status));
        if let (Some(asked), Some(given)) = (&asked, &pod) {
            for event in events::resize(world.previous.as_ref(), &status, asked, given) {
                Say::new(&self.context.recorder, Some(asked)).event(event);
            }
        }
        self.status = Some(status);
        if matches!(world.desired, Desired::Present(_)) {
            self.publish();
        }
        self.register(pod.as_ref());
        self.announce(pod.as_ref(), &plan);
        self.probe(pod.as_ref(), &plan.probes, world.previous.as_ref());
        if let Some(question) = self.asked.take() {
            // Who asked may have gone.
            drop(question.send(pod::explain(&world, &plan)));
        }
        for step in &plan.steps {
            self.launch(&world, pod.as_ref(), step);
        }
        self.refresh();
        self.checkpoint();
        let wake = self.wake_at(&plan, world.now, begun);
        POD_WORKER.observe([operation.into()], begun.elapsed());
        (plan, wake)
    }

    /// The plan, after the questions to the node that it began with.
    fn decide(&mut self, desired: Desired, asked: Option<&Arc<Pod>>) -> (World, Plan) {
        let mut world = self.world(desired);
        let mut plan = pod::plan(&world);
        if plan.steps.contains(&Step::Admit) {
            let given = self.given(asked);
            self.admit(given.as_ref());
            self.adopt_allocation(asked);
            world.admission.clone_from(&self.memory.admission);
            world.allocation.clone_from(&self.memory.allocation);
            world.observed.actuated.clone_from(&self.memory.actuated);
            plan = pod::plan(&world);
        }
        if plan.steps.contains(&Step::Allocate) {
            self.allocate(asked);
            world.allocation.clone_from(&self.memory.allocation);
            world.deferral.clone_from(&self.memory.deferral);
            world.failures.clone_from(&self.memory.failures);
            world.observed.unrecorded = self.memory.unrecorded;
            plan = pod::plan(&world);
        }
        (world, plan)
    }

    fn world(&mut self, desired: Desired) -> World {
        let now = Timestamp::now();
        let mut observed = self.memory.observed(&self.seen);
        observed.probes = self.probing.results();
        let told = self.told(&desired);
        let runtime = self.runtime_facts.borrow_and_update().clone();
        let eviction = self.orders.borrow_and_update().get(&self.uid).cloned();
        let node_uid = self.node.borrow_and_update().as_ref().and_then(|node| node.uid.clone());
        World {
            now,
            uid: self.uid.clone(),
            desired,
            source: self.inputs.origin.source(),
            admission: self.memory.admission.clone(),
            allocation: self.memory.allocation.clone(),
            deferral: self.memory.deferral.clone(),
            eviction,
            observed,
            failures: self.memory.failures.clone(),
            node: NodeFacts {
                uid: node_uid,
                ips: self.context.addresses.borrow().clone(),
                backoff_max: self.context.config.backoff_max,
                network_ready: runtime.network_ready,
                recursive_read_only: runtime.recursive_read_only,
                ..NodeFacts::default()
            },
            previous: self.status.as_deref().cloned().or(told),
            published: self.publication.has(self.status.as_ref()),
        }
    }

    fn admit(&mut self, pod: Option<&Arc<Pod>>) {
        let Some(pod) = pod else { return };
        self.admit_at = None;
        match admission::admit(&self.uid, pod, &self.context) {
            Answer::Decided(admission) => {
                self.note_admission(pod, &admission);
                self.memory.admission = Some(admission);
            }
            Answer::Preempt(room) => {
                room.make(&self.context.orders);
                self.admit_at = Some(Instant::now() + PREEMPTED);
            }
            Answer::Later => self.admit_at = Some(Instant::now() + PREEMPTED),
            // Asked again as soon as the node is known.
            Answer::Unknown => {}
        }
    }

    fn register(&self, pod: Option<&Arc<Pod>>) {
        let Some(pod) = pod else { return self.context.registry.found_nameless(&self.uid) };
        let live = self.seen.containers.iter().filter(|c| c.state == pod::ContainerState::Running);
        let running: Vec<_> = live.map(Running::from).collect();
        let sandbox = current_sandbox(&self.seen).map(Running::from);
        let status = self.status.clone();
        let known = !self.seen.sandboxes.is_empty();
        let sandboxes = self.seen.sandboxes.iter().map(|sandbox| sandbox.id.to_string());
        let parts = sandboxes.chain(self.seen.containers.iter().map(|container| container.id.to_string())).collect();
        let seen = self.seen.fingerprint();
        let is_deferred = self.memory.deferral.is_some();
        let published = self.publication.has(self.status.as_ref());
        let wanted = matches!(*self.inputs.desired.borrow(), Desired::Present(_));
        let mirrored = self.inputs.origin.has_mirror();
        let prepared = self.memory.prepared;
        let own = self.context.layout.pod(self.uid.as_str());
        let elsewhere = self.memory.volumes.iter().filter(|(_, path)| !path.starts_with(&own));
        let elsewhere = elsewhere.map(|(name, path)| (name.clone(), path.clone())).collect();
        self.context.registry.update(&self.uid, pod, |entry| {
            entry.seen = seen;
            entry.status = status;
            entry.running = running;
            entry.sandbox = sandbox;
            entry.volumes = prepared.volumes || prepared.volumes_on_disk;
            (entry.parts, entry.elsewhere) = (parts, elsewhere);
            entry.published = published;
            (entry.wanted, entry.mirrored) = (wanted, mirrored);
            entry.admitted |= known;
            if !is_deferred {
                entry.deferred = None;
            }
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

    /// The pod's addresses: its sandbox's, or the node's where it shares that network.
    fn ips(&self) -> Vec<std::net::IpAddr> {
        match current_sandbox(&self.seen) {
            Some(sandbox) if sandbox.host_network => self.context.addresses.borrow().clone(),
            Some(sandbox) => pod::resolve::pod_ips(&sandbox.ips, &self.context.addresses.borrow()),
            None => Vec::new(),
        }
    }

    fn launch(&mut self, world: &World, pod: Option<&Arc<Pod>>, step: &Step) {
        if matches!(step, Step::Admit | Step::Allocate | Step::Reject { .. }) {
            return;
        }
        if self.is_held_up(step) || !self.jobs.may_begin(step) {
            return;
        }
        let begun = Timestamp::now();
        self.memory.begun(step, begun);
        self.note(pod, begun, pod::explain::reason(world, step));
        if let (Step::PrepareVolumes, Some(pod)) = (step, pod) {
            self.refresh.begin(pod);
        }
        if let (Some(pod), Some(event)) = (pod, pod.and_then(|pod| events::begun(pod, step))) {
            Say::new(&self.context.recorder, Some(pod)).event(event);
        }
        let handler = current_sandbox(&self.seen).map_or("", |sandbox| &sandbox.handler);
        let facts = PodFacts {
            volumes: self.memory.volumes.clone(),
            ips: self.ips(),
            running: running(&self.seen),
            sandbox: current_sandbox(&self.seen).map(|sandbox| sandbox.id.clone()),
            recursive_read_only: self.runtime_facts.borrow().recursive_read_only.contains(handler),
            guest: if let Step::StartContainer(start) = step { Some(self.doors.come(&start.sandbox)) } else { None },
            record: self.record().filter(|_| matches!(step, Step::RecordAllocation | Step::Resize(_))),
        };
        let job = Job {
            context: Arc::clone(&self.context),
            uid: self.uid.clone(),
            pod: pod.cloned(),
            step: step.clone(),
            facts,
        };
        self.jobs.step(job, begun);
    }

    /// Whether a step has to wait for what is under way.
    fn is_held_up(&self, step: &Step) -> bool {
        match step {
            Step::UnmountVolumes => self.refresh.is_running() || self.checkpoint.is_running(),
            Step::StopSandbox { id } => !self.doors.close(id),
            _ => false,
        }
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

    /// When to look again. What was due when the pass began is dealt with, even where there was nothing to be done.
    fn wake_at(&self, plan: &Plan, now: Timestamp, begun: Instant) -> Option<Instant> {
        let until = |at: Timestamp| Duration::try_from(at.duration_since(now)).unwrap_or_default();
        // A moment later than asked: the clocks differ, and too early would be a pass for nothing.
        let planned = plan.wake_at.map(|at| Instant::now() + until(at) + Duration::from_millis(1));
        let retries = [self.publication.wake_at(), self.refresh.wake_at(), self.checkpoint.wake_at()];
        let others = [planned, self.jobs.wake_at(), self.admit_at, self.waiting.as_ref().map(Waiting::until)];
        retries.into_iter().chain(others).flatten().filter(|at| *at > begun).min()
    }

    async fn wait(&mut self, wake: Option<Instant>) {
        // Cancel-safe: watches and the stream of verdicts keep what is not read, join_next loses no task.
        tokio::select! {
            changed = self.inputs.desired.changed() => self.closed = changed.is_err(),
            changed = self.inputs.runtime.changed() => {
                self.closed = changed.is_err();
                self.stale.all = true;
            }
            () = self.probing.changed() => {}
            Some(done) = self.jobs.next() => self.absorb(done),
            Ok(()) = self.runtime_facts.changed() => {}
            Ok(()) = self.orders.changed() => {}
            Some(question) = self.questions.recv() => self.asked = Some(question),
            Ok(()) = self.node.changed() => {}
            () = self.inputs.origin.changed() => {}
            () = self.refresh.changed() => self.object_changed(),
            trigger = resize::freed(&mut self.waiting) => self.ask_again(trigger),
            () = until(wake) => {}
        }
        if self.waiting.as_ref().is_some_and(|waiting| waiting.until() <= Instant::now()) {
            self.ask_again(Trigger::Time);
        }
        // What happened meanwhile is part of the same world.
        while let Some(done) = self.jobs.try_next() {
            self.absorb(done);
        }
    }
}

/// The object of a pod, as it is or was last known.
fn pod_of(desired: &Desired) -> Option<Arc<Pod>> {
    match desired {
        Desired::Present(pod) => Some(Arc::clone(pod)),
        Desired::Gone { last, .. } => last.clone(),
    }
}
