//! A model of a machine: executes the steps of plans on plain data.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use api::{ContainerId, PodUid, SandboxId};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use pod::{
    Actuated, Admission, Allocation, Begun, Container, ContainerState, Deferral, Desired, Failure, Kill, NodeFacts,
    Observed, Plan, Resize, Sandbox, Source, Stage, StartContainer, Step, World,
};

/// What happens to the machine beside what it is told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trouble {
    /// The step of this number fails.
    pub fail: Option<usize>,
    /// After the step of this number the agent is restarted.
    pub restart: Option<usize>,
    /// The restart comes in the middle of a start: the container is created, not started.
    pub half: bool,
    /// After the step of this number the sandbox dies, with all that runs in it.
    pub sandbox_dies: Option<usize>,
    /// After the step of this number the pod is deleted.
    pub delete: Option<usize>,
    /// After the step of this number its containers are to have other resources.
    pub resize: Option<usize>,
    /// Steps of a batch are executed in reverse.
    pub reverse: bool,
}

pub struct Machine {
    pub now: Timestamp,
    pub pod: Option<Pod>,
    pub observed: Observed,
    pub admission: Option<Admission>,
    pub allocation: Option<Allocation>,
    pub deferral: Option<Deferral>,
    /// What lies on the disk of it.
    pub record: Option<(Allocation, Actuated)>,
    pub failures: BTreeMap<Stage, Failure>,
    pub previous: Option<PodStatus>,
    pub trouble: Trouble,
    /// Exit codes of the coming runs of a container; when there are none left, init containers end well and others run.
    pub script: BTreeMap<String, VecDeque<i32>>,
    pub starts: Vec<StartContainer>,
    pub steps: usize,
    pub done: bool,
    last: Option<Arc<Pod>>,
    next_id: u32,
}

impl Machine {
    pub fn new(pod: Pod, script: BTreeMap<String, VecDeque<i32>>, trouble: Trouble) -> Self {
        Self {
            now: Timestamp::from_second(1_800_000_000).unwrap(),
            last: Some(Arc::new(pod.clone())),
            pod: Some(pod),
            observed: Observed::default(),
            admission: None,
            allocation: None,
            deferral: None,
            record: None,
            failures: BTreeMap::new(),
            previous: None,
            trouble,
            script,
            starts: Vec::new(),
            steps: 0,
            done: false,
            next_id: 0,
        }
    }

    pub fn world(&self) -> World {
        let desired = match &self.pod {
            Some(pod) => Desired::Present(Arc::new(pod.clone())),
            None => Desired::Gone { last: self.last.clone(), grace: None, returns: false },
        };
        World {
            now: self.now,
            uid: PodUid::new("uid"),
            desired,
            source: Source::Api,
            admission: self.admission.clone(),
            allocation: self.allocation.clone(),
            deferral: self.deferral.clone(),
            eviction: None,
            observed: self.observed.clone(),
            failures: self.failures.clone(),
            node: NodeFacts { ips: vec!["192.0.2.1".parse().unwrap()], ..NodeFacts::default() },
            previous: self.previous.clone(),
            published: self.previous.is_some(),
        }
    }

    /// Goes on until nothing is left to do and nothing changes any more.
    pub fn settle(&mut self) {
        for _ in 0..1500 {
            let world = self.world();
            let plan = pod::plan(&world);
            assert_eq!(plan, pod::plan(&world), "asked twice, a plan must be the same");
            let status = pod::status(&world, &plan);
            let changed = self.previous.as_ref() != Some(&status);
            self.previous = Some(status);
            if plan.done {
                self.done = true;
                return;
            }
            if !plan.steps.is_empty() {
                self.execute_all(&plan);
            } else if !changed && !self.pass_time(&plan) {
                return;
            }
        }
        panic!("no end in sight: {:#?}\n{:#?}", pod::plan(&self.world()), self.observed);
    }

    /// What a plan says of containers holds when it is made; they may end before a step's turn comes.
    fn check_hooks(&self, plan: &Plan) {
        let runs = |id: &ContainerId| {
            let mut containers = self.observed.containers.iter();
            containers.any(|container| container.id == *id && container.state == ContainerState::Running)
        };
        for step in &plan.steps {
            if let Step::PreStop(hook) = step {
                assert!(runs(&hook.id), "a preStop hook of {}, which does not run", hook.name);
            }
        }
    }

    fn execute_all(&mut self, plan: &Plan) {
        self.check_hooks(plan);
        let mut steps = plan.steps.clone();
        if self.trouble.reverse {
            steps.reverse();
        }
        for step in &steps {
            let number = self.steps;
            self.steps += 1;
            self.now += SignedDuration::from_millis(10);
            let is_now = |at: Option<usize>| at == Some(number);
            let impossible = matches!(step, Step::StartContainer(start) if !self.is_ready(&start.sandbox));
            if is_now(self.trouble.fail) || impossible {
                self.fail(step);
            } else if is_now(self.trouble.restart) && self.trouble.half && matches!(step, Step::StartContainer(_)) {
                self.execute(step);
                self.starts.pop();
                self.observed.containers.last_mut().unwrap().state = ContainerState::Created;
            } else {
                self.execute(step);
            }
            self.check();
            if is_now(self.trouble.sandbox_dies) {
                self.kill_sandbox();
            }
            if is_now(self.trouble.delete) {
                self.delete(30);
            }
            if is_now(self.trouble.resize) {
                self.resize("2");
            }
            if is_now(self.trouble.restart) {
                self.restart_agent();
                return;
            }
        }
    }

    fn fail(&mut self, step: &Step) {
        let stage = match step {
            Step::PrepareVolumes => Stage::Volumes,
            Step::CreateCgroup => Stage::Cgroup,
            Step::RunSandbox { .. } => Stage::Sandbox,
            Step::StartContainer(start) => Stage::Container(start.name.clone()),
            Step::KillContainer(kill) => Stage::Kill(kill.name.clone()),
            Step::RecordAllocation | Step::Resize(_) => Stage::Resize,
            _ => Stage::Teardown,
        };
        let (reason, message) = ("ErrImagePull".to_owned(), "broken".to_owned());
        self.failures.insert(stage, Failure { reason, message, at: self.now, count: 1, spec_hash: None });
    }

    fn execute(&mut self, step: &Step) {
        let observed = &mut self.observed;
        match step {
            Step::Admit => {
                self.admission = Some(Admission::Admitted);
                self.allocation = self.pod.as_ref().map(Allocation::of);
            }
            Step::Allocate => {
                self.allocation = self.pod.as_ref().map(Allocation::of);
                observed.unrecorded = true;
            }
            Step::RecordAllocation => {
                observed.unrecorded = false;
                self.record = self.allocation.clone().map(|given| (given, observed.actuated.clone()));
            }
            Step::Resize(resize) => self.actuate(resize),
            Step::Reject { .. } => {}
            Step::PrepareVolumes => {
                observed.prepared.volumes = true;
                observed.prepared.volumes_on_disk = true;
            }
            Step::CreateCgroup => {
                observed.prepared.cgroup = true;
                observed.actuated.cgroup.clone_from(&self.allocation);
            }
            Step::UnmountVolumes => {
                assert!(!observed.containers.iter().any(|container| container.state == ContainerState::Running));
                observed.prepared.volumes = false;
                observed.prepared.volumes_on_disk = false;
            }
            Step::RemoveCgroup => observed.prepared.cgroup = false,
            Step::RunSandbox { attempt } => self.run_sandbox(*attempt),
            Step::StopSandbox { id } => self.stop_sandbox(id),
            Step::RemoveSandbox { id } => {
                let sandbox = observed.sandboxes.iter().find(|sandbox| sandbox.id == *id).unwrap();
                assert!(sandbox.stopped && !observed.containers.iter().any(|container| container.sandbox == *id));
                observed.sandboxes.retain(|sandbox| sandbox.id != *id);
            }
            Step::StartContainer(start) => self.start(start),
            Step::PreStop(hook) => {
                let record = Begun { at: self.now, running: false };
                assert!(observed.pre_stops.insert(hook.id.clone(), record).is_none(), "a hook ran twice");
            }
            Step::KillContainer(kill) => {
                let record = Kill { at: self.now, grace: kill.grace, running: false, restarts: kill.restarts };
                observed.kills.insert(kill.id.clone(), record);
                self.exit(&kill.id.clone(), 137);
            }
            Step::RemoveContainer { id, .. } => {
                assert!(observed.containers.iter().any(|container| container.id == *id));
                observed.containers.retain(|container| container.id != *id);
                observed.kills.remove(id);
            }
            Step::FinaliseDeletion => self.pod = None,
            Step::CreateMirror { .. } | Step::DeleteMirror { .. } => panic!("the pod is not static"),
        }
    }

    fn run_sandbox(&mut self, attempt: u32) {
        self.next_id += 1;
        assert!(self.observed.prepared.cgroup && self.observed.prepared.volumes);
        self.observed.sandboxes.push(Sandbox {
            id: SandboxId::new(format!("s{}", self.next_id)),
            attempt,
            ready: true,
            stopped: false,
            created_at: self.nanoseconds(),
            ips: vec!["10.0.0.1".parse().unwrap()],
            unaddressed: false,
            host_network: false,
            handler: String::new(),
        });
    }

    fn stop_sandbox(&mut self, id: &SandboxId) {
        for sandbox in self.observed.sandboxes.iter_mut().filter(|sandbox| sandbox.id == *id) {
            sandbox.ready = false;
            sandbox.stopped = true;
        }
        self.end_all_in(id);
    }

    fn start(&mut self, start: &StartContainer) {
        let mut twins = self.observed.containers.iter().filter(|container| container.name == start.name);
        assert!(
            twins.all(|twin| twin.attempt != start.attempt && twin.state != ContainerState::Running),
            "{} has a twin",
            start.name
        );
        self.check_order(start);
        self.next_id += 1;
        self.starts.push(start.clone());
        self.failures.remove(&Stage::Container(start.name.clone()));
        self.observed.containers.push(Container {
            id: ContainerId::new(format!("c{}", self.next_id)),
            sandbox: start.sandbox.clone(),
            name: start.name.clone(),
            attempt: start.attempt,
            state: ContainerState::Running,
            created_at: self.nanoseconds(),
            started_at: self.nanoseconds(),
            image: "image".into(),
            image_id: "sha256:x".into(),
            spec_hash: Some(start.spec_hash.clone()),
            backoff: start.backoff,
            log_path: String::new(),
            resources: self.allocation.as_ref().and_then(|given| given.containers.get(&start.name).cloned()),
            user: None,
        });
        let asked = self.observed.actuated.cgroup.as_ref().unwrap();
        let failed = self.failures.contains_key(&Stage::Resize);
        let is_ready = failed || asked.grants_as(self.allocation.as_ref().unwrap());
        assert!(is_ready, "started before the cgroup has its resources");
    }

    fn actuate(&mut self, resize: &Resize) {
        self.failures.remove(&Stage::Resize);
        let given = self.allocation.clone().unwrap();
        let actuated = &mut self.observed.actuated;
        for container in &resize.containers {
            assert_eq!(
                container.has.requests,
                self.observed
                    .containers
                    .iter()
                    .find(|c| c.id == container.id)
                    .and_then(|known| actuated.containers.get(&known.id).or(known.resources.as_ref()))
                    .unwrap()
                    .requests
            );
            actuated.containers.insert(container.id.clone(), given.containers[&container.name].clone());
        }
        actuated.cgroup = Some(given.clone());
        self.record = Some((given, actuated.clone()));
    }

    /// Every container is to have so much cpu.
    pub fn resize(&mut self, cpu: &str) {
        let Some(pod) = &mut self.pod else { return };
        pod.metadata.generation = pod.metadata.generation.map(|generation| generation + 1);
        let spec = pod.spec.as_mut().unwrap();
        let requests = serde_json::json!({"requests": {"cpu": cpu}});
        for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
            container.resources = Some(serde_json::from_value(requests.clone()).unwrap());
        }
    }

    /// No container starts before the init containers before it have ended well, and the sidecars run.
    fn check_order(&self, start: &StartContainer) {
        let spec = self.pod.as_ref().unwrap().spec.as_ref().unwrap();
        let init = spec.init_containers.as_deref().unwrap_or_default();
        let index = init.iter().position(|container| container.name == start.name).unwrap_or(init.len());
        let is_first = !self.starts.iter().any(|old| old.name == start.name && old.sandbox == start.sandbox);
        for before in init[..index].iter().filter(|_| is_first) {
            let found = self
                .observed
                .containers
                .iter()
                .filter(|container| container.name == before.name && container.sandbox == start.sandbox);
            let state = &found.max_by_key(|container| container.attempt).expect("init order").state;
            if !api::resources::is_sidecar(before) {
                assert!(
                    matches!(state, ContainerState::Exited { exit_code: 0, .. }),
                    "{} before {}",
                    start.name,
                    before.name
                );
            }
        }
    }

    fn check(&self) {
        assert!(self.observed.sandboxes.iter().filter(|sandbox| sandbox.ready).count() <= 1, "two sandboxes");
        let sandboxes = &self.observed.sandboxes;
        let running = self.observed.containers.iter().filter(|container| container.state == ContainerState::Running);
        for container in running {
            assert!(sandboxes.iter().any(|sandbox| sandbox.id == container.sandbox && sandbox.ready));
        }
    }

    fn exit(&mut self, id: &ContainerId, exit_code: i32) {
        let finished_at = self.nanoseconds();
        let container = self.observed.containers.iter_mut().find(|container| container.id == *id).unwrap();
        container.state =
            ContainerState::Exited { exit_code, reason: String::new(), message: String::new(), finished_at };
    }

    fn end_all_in(&mut self, sandbox: &SandboxId) {
        let running = self
            .observed
            .containers
            .iter()
            .filter(|container| container.sandbox == *sandbox && container.state == ContainerState::Running);
        let ids: Vec<ContainerId> = running.map(|container| container.id.clone()).collect();
        for id in ids {
            self.exit(&id, 255);
        }
    }

    fn is_ready(&self, sandbox: &SandboxId) -> bool {
        self.observed.sandboxes.iter().any(|other| other.id == *sandbox && other.ready)
    }

    fn kill_sandbox(&mut self) {
        let Some(sandbox) = self.observed.sandboxes.iter_mut().find(|sandbox| sandbox.ready) else { return };
        sandbox.ready = false;
        let id = sandbox.id.clone();
        self.end_all_in(&id);
    }

    pub fn delete(&mut self, grace: i64) {
        let Some(pod) = &mut self.pod else { return };
        pod.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.now + SignedDuration::from_secs(grace)));
        pod.metadata.deletion_grace_period_seconds = Some(grace);
    }

    /// Forgets all but what the runtime, the disk and the API server know.
    pub fn restart_agent(&mut self) {
        self.admission = None;
        self.failures.clear();
        self.observed.kills.clear();
        self.observed.hooks.clear();
        self.observed.probes.clear();
        self.observed.prepared.volumes = false;
        self.observed.unrecorded = false;
        let found = || self.pod.as_ref().map(|pod| Allocation::found(pod, &self.observed.containers));
        (self.allocation, self.observed.actuated) = match self.record.clone() {
            Some((given, actuated)) => (Some(given), actuated),
            None => (found(), Actuated { cgroup: found(), ..Actuated::default() }),
        };
        for sandbox in &mut self.observed.sandboxes {
            sandbox.stopped = false;
        }
    }

    /// Lets a container end, or waits. Whether anything came of it.
    fn pass_time(&mut self, plan: &Plan) -> bool {
        let spec = self.last.as_ref().and_then(|pod| pod.spec.clone()).unwrap();
        let is_init = |name: &str| {
            let mut init = spec.init_containers.iter().flatten();
            init.any(|container| container.name == name && !api::resources::is_sidecar(container))
        };
        let running = self.observed.containers.iter().filter(|container| container.state == ContainerState::Running);
        for container in running.cloned().collect::<Vec<_>>() {
            let scripted = self.script.get_mut(&container.name).and_then(VecDeque::pop_front);
            if let Some(code) = scripted.or_else(|| is_init(&container.name).then_some(0)) {
                self.now += SignedDuration::from_secs(1);
                self.exit(&container.id, code);
                return true;
            }
        }
        let Some(wake) = plan.wake_at else { return false };
        assert!(wake > self.now, "woken for nothing");
        self.now = wake;
        true
    }

    fn nanoseconds(&self) -> i64 {
        i64::try_from(self.now.as_nanosecond()).unwrap()
    }

    pub fn phase(&self) -> &str {
        self.previous.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
    }

    pub fn is_empty(&self) -> bool {
        let observed = &self.observed;
        observed.sandboxes.is_empty()
            && observed.containers.is_empty()
            && !observed.prepared.cgroup
            && !observed.prepared.volumes_on_disk
    }
}
