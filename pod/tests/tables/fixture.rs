//! Worlds to ask about: a pod of which all is well, and ways to disturb it.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{ContainerId, PodUid, SandboxId};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use pod::{
    Admission, Container, ContainerState, Desired, Failure, HookState, Kill, KillContainer, NodeFacts, Observed, Plan,
    Prepared, ProbeResults, Sandbox, Source, Stage, StartContainer, Step, World,
};
use serde_json::{Value, json};

/// A moment, in seconds after the pod was first seen.
pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn nanoseconds(second: i64) -> i64 {
    i64::try_from(at(second).as_nanosecond()).unwrap()
}

pub fn pod(spec: Value) -> Pod {
    let meta = json!({"name": "p", "namespace": "ns", "uid": "uid", "generation": 3});
    serde_json::from_value(json!({"metadata": meta, "spec": spec})).unwrap()
}

/// An admitted pod with volumes, cgroup and a ready sandbox `s0`, at second 100.
pub fn world(spec: Value) -> World {
    World {
        now: at(100),
        uid: PodUid::new("uid"),
        desired: Desired::Present(Arc::new(pod(spec))),
        source: Source::Api,
        admission: Some(Admission::Admitted),
        allocation: None,
        deferral: None,
        eviction: None,
        observed: Observed {
            sandboxes: vec![sandbox(0)],
            prepared: Prepared { volumes: true, volumes_on_disk: true, cgroup: true },
            ..Observed::default()
        },
        failures: BTreeMap::new(),
        node: NodeFacts { ips: vec!["192.0.2.1".parse().unwrap()], ..NodeFacts::default() },
        previous: None,
        published: false,
    }
}

/// A world with the containers given.
pub fn with(spec: Value, containers: Vec<Container>) -> World {
    let mut world = world(spec);
    for container in &containers {
        let spec = member(&world, &container.name);
        let container = Container { spec_hash: Some(pod::hash::container(&spec)), ..container.clone() };
        world.observed.containers.push(container);
    }
    world
}

fn member(world: &World, name: &str) -> k8s_openapi::api::core::v1::Container {
    let Desired::Present(pod) = &world.desired else { panic!("no pod") };
    api::pod::container(pod.spec.as_ref().unwrap(), name).unwrap().into_owned()
}

pub fn sandbox(attempt: u32) -> Sandbox {
    Sandbox {
        id: SandboxId::new(format!("s{attempt}")),
        attempt,
        ready: true,
        stopped: false,
        created_at: nanoseconds(i64::from(attempt)),
        ips: vec!["10.0.0.7".parse().unwrap()],
        unaddressed: false,
        host_network: false,
        handler: String::new(),
    }
}

/// A container `NAME-ATTEMPT` that runs since second 10 of its attempt.
pub fn running(name: &str, attempt: u32) -> Container {
    Container {
        id: ContainerId::new(format!("{name}-{attempt}")),
        sandbox: SandboxId::new("s0"),
        name: name.to_owned(),
        attempt,
        state: ContainerState::Running,
        created_at: nanoseconds(10 + i64::from(attempt)),
        started_at: nanoseconds(10 + i64::from(attempt)),
        image: "image:1".to_owned(),
        image_id: "sha256:1".to_owned(),
        spec_hash: None,
        backoff: attempt,
        log_path: String::new(),
        resources: None,
        user: None,
    }
}

/// One that ended at a second.
pub fn exited(name: &str, attempt: u32, exit_code: i32, second: i64) -> Container {
    let reason = if exit_code == 0 { "Completed" } else { "Error" }.to_owned();
    let state = ContainerState::Exited { exit_code, reason, message: String::new(), finished_at: nanoseconds(second) };
    Container { state, ..running(name, attempt) }
}

pub fn change(world: &mut World, change: impl FnOnce(&mut Pod)) {
    let Desired::Present(pod) = &mut world.desired else { panic!("no pod") };
    change(Arc::make_mut(pod));
}

/// Deletes at second `asked`, as the API server writes it.
pub fn delete(world: &mut World, asked: i64, grace: i64) {
    change(world, |pod| {
        pod.metadata.deletion_timestamp = Some(Time(at(asked + grace)));
        pod.metadata.deletion_grace_period_seconds = Some(grace);
    });
}

pub fn probed(world: &mut World, id: &str, results: ProbeResults) {
    world.observed.probes.insert(ContainerId::new(id), results);
}

pub fn hook(world: &mut World, id: &str, state: HookState) {
    world.observed.hooks.insert(ContainerId::new(id), state);
}

pub fn killed(world: &mut World, id: &str, second: i64, grace: i64, running: bool) {
    world.observed.kills.insert(ContainerId::new(id), Kill { at: at(second), grace, running, restarts: false });
}

pub fn failed(world: &mut World, stage: Stage, reason: &str, second: i64, count: u32) {
    let failure =
        Failure { reason: reason.to_owned(), message: format!("why {reason}"), at: at(second), count, spec_hash: None };
    world.failures.insert(stage, failure);
}

/// Makes the status of this world the one before, as it is after a pass.
pub fn remember(world: &mut World) -> PodStatus {
    let status = status(world);
    world.previous = Some(status.clone());
    world.published = true;
    status
}

pub fn status(world: &World) -> PodStatus {
    pod::status(world, &pod::plan(world))
}

pub fn container<'a>(status: &'a PodStatus, name: &str) -> &'a ContainerStatus {
    let lists = [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    lists.into_iter().flatten().flatten().find(|status| status.name == name).unwrap()
}

/// The state of a container in a word: `Running`, `Waiting(REASON)`, `Terminated(REASON CODE)`.
pub fn state(status: &PodStatus, name: &str) -> String {
    word(container(status, name).state.as_ref())
}

pub fn last_state(status: &PodStatus, name: &str) -> String {
    word(container(status, name).last_state.as_ref())
}

fn word(state: Option<&k8s_openapi::api::core::v1::ContainerState>) -> String {
    let Some(state) = state else { return String::new() };
    let reason = |reason: &Option<String>| reason.clone().unwrap_or_default();
    if let Some(waiting) = &state.waiting {
        return format!("Waiting({})", reason(&waiting.reason));
    }
    if let Some(ended) = &state.terminated {
        return format!("Terminated({} {})", reason(&ended.reason), ended.exit_code);
    }
    if state.running.is_some() { "Running".to_owned() } else { String::new() }
}

pub fn waiting_message(status: &PodStatus, name: &str) -> String {
    let waiting = container(status, name).state.as_ref().and_then(|state| state.waiting.clone());
    waiting.and_then(|waiting| waiting.message).unwrap_or_default()
}

pub fn condition<'a>(status: &'a PodStatus, type_name: &str) -> Option<&'a PodCondition> {
    api::conditions::get(status.conditions.as_deref().unwrap_or_default(), type_name)
}

/// A condition in words: `STATUS REASON: MESSAGE`.
pub fn told(status: &PodStatus, type_name: &str) -> String {
    let Some(condition) = condition(status, type_name) else { return "none".to_owned() };
    let text =
        |text: &Option<String>, before: &str| text.as_ref().map(|text| format!("{before}{text}")).unwrap_or_default();
    format!("{}{}{}", condition.status, text(&condition.reason, " "), text(&condition.message, ": "))
}

/// What a plan starts, by name.
pub fn starts(plan: &Plan) -> Vec<&str> {
    all_starts(plan).map(|start| start.name.as_str()).collect()
}

pub fn all_starts(plan: &Plan) -> impl Iterator<Item = &StartContainer> {
    plan.steps.iter().filter_map(|step| match step {
        Step::StartContainer(start) => Some(start),
        _ => None,
    })
}

/// What a plan kills: id, seconds, text.
pub fn kills(plan: &Plan) -> Vec<(&str, i64, &str)> {
    all_kills(plan).map(|kill| (kill.id.as_str(), kill.grace, kill.message.as_str())).collect()
}

pub fn all_kills(plan: &Plan) -> impl Iterator<Item = &KillContainer> {
    plan.steps.iter().filter_map(|step| match step {
        Step::KillContainer(kill) => Some(kill),
        _ => None,
    })
}

/// Seconds until a plan asks to be woken.
pub fn wakes(world: &World, plan: &Plan) -> Option<i64> {
    plan.wake_at.map(|at| at.duration_since(world.now)).map(|left: SignedDuration| left.as_secs())
}
