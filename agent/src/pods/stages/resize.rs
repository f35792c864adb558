//! Resources of what runs change in place (KEP-1287). Memory first, then CPU; the pod's cgroup grows before its
//! containers and shrinks after them, and of the containers those that shrink come first.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use api::ContainerId;
use api::quantity::Quantity;
use api::resources;
use cgroups::name::CgroupName;
use cgroups::{Depth, Limit, Values};
use cri::v1::{LinuxContainerResources, UpdateContainerResourcesRequest, UpdatePodSandboxResourcesRequest};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use pod::{Actuated, Allocation, Resize, Resized};

use super::limits::{self, Machine};
use super::{Job, Outcome, StageError, blocking, on_cgroups};
use crate::client::watch::describe;
use crate::pods::record::Record;
use crate::pods::{Context, qos};

const ERROR: &str = "ResizeError";

/// One change.
#[derive(Debug, PartialEq)]
enum Write {
    Pod(Values),
    Container { id: ContainerId, resources: Box<LinuxContainerResources> },
}

/// Writes down what the pod was given.
///
/// # Errors
/// What the filesystem said.
pub async fn record(job: &Job) -> Result<Outcome, StageError> {
    let Some(record) = job.facts.record.clone() else { return Ok(Outcome::Done) };
    write_record(job, record).await?;
    Ok(Outcome::Done)
}

async fn write_record(job: &Job, record: Record) -> Result<(), StageError> {
    let (context, uid) = (Arc::clone(&job.context), job.uid.clone());
    blocking(ERROR, move || record.write(&context.layout, uid.as_str()).map_err(|error| error.to_string())).await
}

/// Makes what the pod was given hold for its cgroup and the containers that run.
///
/// # Errors
/// The first change that failed, or that memory would shrink below what is in use.
pub async fn run(job: &Job, resize: &Resize) -> Result<Outcome, StageError> {
    let pod = job.pod()?;
    let context = &job.context;
    let empty = PodSpec::default();
    let to = pod.spec.as_ref().unwrap_or(&empty);
    let from = resize.cgroup.apply(to).unwrap_or_else(|| to.clone());
    let name = context.tree.pod(limits::level(api::qos::class(to)), job.uid.as_str());
    check_memory(context, &name, shrinking(&from, to, &resize.containers)).await?;
    let mut told = Told::new(&from, to, &context.config.machine);
    for write in writes(&from, to, &resize.containers, &context.config.machine) {
        match write {
            Write::Pod(values) => pod_cgroup(job, &name, values, &mut told).await?,
            Write::Container { id, resources } => container(context, &id, *resources).await?,
        }
    }
    let actuated = actuated(pod, resize);
    if let Some(record) = &job.facts.record {
        let mut in_force = record.actuated.clone();
        in_force.containers.extend(actuated.containers.clone());
        in_force.cgroup.clone_from(&actuated.cgroup);
        write_record(job, Record { given: Allocation::of(pod), actuated: in_force }).await?;
    }
    let classes = Arc::clone(context);
    on_cgroups(context, ERROR, move || {
        qos::update(&classes, qos::Change::Some);
        Ok(())
    })
    .await?;
    Ok(Outcome::Resized(Box::new(actuated)))
}

fn actuated(pod: &Pod, resize: &Resize) -> Actuated {
    let of = |resized: &Resized| Some((resized.id.clone(), wanted(pod.spec.as_ref()?, &resized.name)?.1));
    let containers = resize.containers.iter().filter_map(of).collect();
    Actuated { containers, cgroup: Some(Allocation::of(pod)) }
}

/// A container with the resources that it is to have.
fn wanted<'a>(spec: &'a PodSpec, name: &str) -> Option<(Cow<'a, Container>, ResourceRequirements)> {
    let container = api::pod::container(spec, name)?;
    let wants = resources::in_effect(spec, &container);
    Some((container, wants))
}

/// What the runtime is told of a pod's cgroup as it changes.
struct Told {
    now: Values,
    then: Values,
    overhead: LinuxContainerResources,
}

impl Told {
    fn new(from: &PodSpec, to: &PodSpec, machine: &Machine) -> Self {
        let values = |spec: &PodSpec| limits::pod(&PodSpec { overhead: None, ..spec.clone() }, machine);
        Self { now: values(from), then: values(to), overhead: limits::overhead(to, machine) }
    }

    /// What holds after a write.
    fn after(&self, write: &Values) -> Values {
        let (now, then) = (&self.now, &self.then);
        Values {
            cpu_shares: write.cpu_shares.and(then.cpu_shares).or(now.cpu_shares),
            cpu_quota: write.cpu_quota.and(then.cpu_quota).or(now.cpu_quota),
            cpu_period: write.cpu_period.and(then.cpu_period).or(now.cpu_period),
            memory: write.memory.and(then.memory).or(now.memory),
            ..now.clone()
        }
    }
}

/// Tells the runtime, which may refuse, then writes; what could not be written is taken back.
async fn pod_cgroup(job: &Job, name: &CgroupName, values: Values, told: &mut Told) -> Result<(), StageError> {
    let resource = if values.memory.is_some() { "memory" } else { "cpu" };
    let after = told.after(&values);
    tell(job, &after, &told.overhead).await.map_err(|error| {
        let why = "failed to notify runtime for UpdatePodSandboxResources";
        StageError::new(ERROR, format!("{why} (resource={resource}); resize rejected: {}", error.rpc_text()))
    })?;
    let (context, name) = (Arc::clone(&job.context), name.clone());
    let write = move || context.cgroups.ensure(&name, &values).map_err(|error| describe(&error));
    let written = on_cgroups(&job.context, ERROR, write).await;
    if written.is_ok() {
        told.now = after;
    } else if let Err(error) = tell(job, &told.now, &told.overhead).await {
        tracing::warn!(%error, "the runtime was not told that a resize failed");
    }
    written
}

/// Tells the runtime of the resources of a pod. Most do not want to know.
async fn tell(job: &Job, values: &Values, overhead: &LinuxContainerResources) -> Result<(), cri::CallError> {
    let Some(sandbox) = &job.facts.sandbox else { return Ok(()) };
    let request = UpdatePodSandboxResourcesRequest {
        pod_sandbox_id: sandbox.as_str().to_owned(),
        overhead: Some(overhead.clone()),
        resources: Some(limits::told(values)),
    };
    match job.context.runtime.update_pod_sandbox_resources(request).await {
        // containerd 2.2 has no code for it.
        Err(error) if !(error.is_unimplemented() || error.message().contains("not implemented")) => Err(error),
        _ => Ok(()),
    }
}

async fn container(context: &Context, id: &ContainerId, resources: LinuxContainerResources) -> Result<(), StageError> {
    let request = UpdateContainerResourcesRequest {
        container_id: id.as_str().to_owned(),
        linux: Some(resources),
        ..UpdateContainerResourcesRequest::default()
    };
    let answer = context.runtime.update_container_resources(request).await;
    answer.map(drop).map_err(|error| StageError::cri(ERROR, &error))
}

/// All changes in their order. What is protected of a pod's memory stays as it was, as with a kubelet: only limits are resized of its cgroup.
fn writes(from: &PodSpec, to: &PodSpec, containers: &[Resized], machine: &Machine) -> Vec<Write> {
    let (old, new) = (limits::pod(from, machine), limits::pod(to, machine));
    let mut out = Vec::new();
    let memory = Values { memory: new.memory, ..Values::default() };
    around(&mut out, &[(memory, growth(old.memory, new.memory))], |out| {
        update(out, to, containers, machine, "memory");
    });
    let quota = Values { cpu_quota: new.cpu_quota, cpu_period: new.cpu_period, ..Values::default() };
    let shares = Values { cpu_shares: new.cpu_shares, ..Values::default() };
    let parts = [
        (quota, growth(old.cpu_quota, new.cpu_quota)),
        (shares, signum(old.cpu_shares.cmp(&new.cpu_shares).reverse())),
    ];
    around(&mut out, &parts, |out| update(out, to, containers, machine, "cpu"));
    out
}

/// What grows of the pod, then its containers, then what shrinks of the pod, limits last.
fn around(out: &mut Vec<Write>, parts: &[(Values, i32)], containers: impl FnOnce(&mut Vec<Write>)) {
    out.extend(parts.iter().filter(|(_, growth)| *growth > 0).map(|(values, _)| Write::Pod(values.clone())));
    containers(out);
    out.extend(parts.iter().rev().filter(|(_, growth)| *growth < 0).map(|(values, _)| Write::Pod(values.clone())));
}

/// Whether a limit rises (1) or falls (-1). One that is not set any more stays as it is.
fn growth(old: Option<Limit>, new: Option<Limit>) -> i32 {
    let amount = |limit: Option<Limit>| match limit {
        None | Some(Limit::Unlimited) => u64::MAX,
        Some(Limit::At(amount)) => amount,
    };
    if new.is_none() { 0 } else { signum(amount(new).cmp(&amount(old))) }
}

fn signum(order: std::cmp::Ordering) -> i32 {
    order as i32
}

/// The updates of one resource; the other one stays as it is, or as it was made just before.
fn update(out: &mut Vec<Write>, to: &PodSpec, containers: &[Resized], machine: &Machine, resource: &str) {
    let mut updates = Vec::new();
    for resized in containers {
        let Some((container, wants)) = wanted(to, &resized.name) else { continue };
        let order = amounts(&resized.has, resource).cmp(&amounts(&wants, resource)).reverse();
        if order.is_eq() {
            continue;
        }
        // Memory is changed first: CPU is then still what it was.
        let kept = if resource == "memory" { &resized.has } else { &wants };
        let mixed = Container { resources: Some(mix(&wants, kept, resource)), ..container.into_owned() };
        let mut resources = Box::new(limits::container(to, &mixed, machine));
        if machine.cgroup_v2 && machine.memory_qos.is_some() {
            // Or the one of before would hold for a container that now has none.
            resources.unified.entry(limits::MEMORY_HIGH.to_owned()).or_insert_with(|| "max".to_owned());
        }
        updates.push((order, Write::Container { id: resized.id.clone(), resources }));
    }
    updates.sort_by_key(|(order, _)| *order);
    out.extend(updates.into_iter().map(|(_, write)| write));
}

/// Limit and request: limits decide which way it goes.
fn amounts(resources: &ResourceRequirements, name: &str) -> [Quantity; 2] {
    let read = |list: Option<&BTreeMap<_, _>>| resources::read(list).get(name).copied().unwrap_or(Quantity::ZERO);
    [read(resources.limits.as_ref()), read(resources.requests.as_ref())]
}

type Amounts = Option<BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>;

/// `wants`, but with the other resource of `kept`.
fn mix(wants: &ResourceRequirements, kept: &ResourceRequirements, resource: &str) -> ResourceRequirements {
    let other = if resource == "memory" { "cpu" } else { "memory" };
    let with = |wants: &Amounts, kept: &Amounts| {
        let mut list = wants.clone().unwrap_or_default();
        match kept.as_ref().and_then(|kept| kept.get(other)) {
            Some(amount) => drop(list.insert(other.to_owned(), amount.clone())),
            None => drop(list.remove(other)),
        }
        Some(list)
    };
    ResourceRequirements {
        limits: with(&wants.limits, &kept.limits),
        requests: with(&wants.requests, &kept.requests),
        claims: wants.claims.clone(),
    }
}

/// Memory limits that fall: of the pod (no container) and of containers.
fn shrinking(from: &PodSpec, to: &PodSpec, containers: &[Resized]) -> Vec<(Option<Resized>, u64)> {
    let mut out = Vec::new();
    let (old, new) = (limits::limited(from).1, limits::limited(to).1);
    out.extend(new.filter(|new| old.is_none_or(|old| *new < old)).map(|new| (None, new)));
    for resized in containers {
        let Some((_, wants)) = wanted(to, &resized.name) else { continue };
        let [new, _] = amounts(&wants, "memory");
        let [old, _] = amounts(&resized.has, "memory");
        if !new.is_zero() && (old.is_zero() || new < old) {
            out.push((Some(resized.clone()), u64::try_from(new.value()).unwrap_or(0)));
        }
    }
    out
}

/// A limit below what is in use would have the kernel kill.
async fn check_memory(
    context: &Arc<Context>,
    name: &CgroupName,
    limits: Vec<(Option<Resized>, u64)>,
) -> Result<(), StageError> {
    if limits.is_empty() {
        return Ok(());
    }
    let path = context.cgroups.naming().relative(name);
    let context = Arc::clone(context);
    blocking(ERROR, move || {
        let mut errors = Vec::new();
        for (container, limit) in limits {
            let path = container.as_ref().map_or_else(|| path.clone(), |container| path.join(container.id.as_str()));
            let subject =
                container.map_or_else(|| "pod".to_owned(), |container| format!("container {:?}", container.name));
            match context.cgroups.stats(&path, Depth::Brief).map(|stats| stats.memory.usage) {
                Ok(usage) if usage >= limit => errors
                    .push(format!("attempting to set {subject} memory limit ({limit}) below current usage ({usage})")),
                Ok(_) => {}
                Err(_) => errors.push(format!("missing {subject} memory usage")),
            }
        }
        match errors.as_slice() {
            [] => Ok(()),
            [one] => Err(format!("cannot decrease memory limits: {one}")),
            many => Err(format!("cannot decrease memory limits: [{}]", many.join(", "))),
        }
    })
    .await
}

#[cfg(test)]
mod tests;
