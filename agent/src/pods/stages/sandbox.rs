//! Sandboxes: run, stop, remove.

use std::sync::Arc;
use std::time::Instant;

use api::SandboxId;
use cri::v1::{PodSandboxConfig, RemovePodSandboxRequest, RunPodSandboxRequest, StopPodSandboxRequest, UserNamespace};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::Api;
use pod::Event;
use pod::resolve::{self, DnsConfig};

use super::request::{self, SandboxParts};
use super::{Job, Outcome, Say, StageError, blocking, limits};
use crate::client::is_not_found;
use crate::client::watch::describe;
use crate::events::{Kind, node_reference};
use crate::metrics::families::{SANDBOX_ERRORS, SANDBOXES};
use crate::pods::{Context, userns};

/// Runs a pod's sandbox.
///
/// # Errors
/// A name that cannot be, or what the runtime said.
pub async fn run(job: &Job, attempt: u32) -> Result<Outcome, StageError> {
    let pod = job.pod()?;
    let handler = handler(job, pod).await?;
    let users = own_users(job, pod, &handler).await?;
    let dns = dns(job, pod).await?;
    let config = config(&job.context, pod, attempt, users, dns)?;
    // The runtime makes the folder too, but only with its first log.
    let logs = config.log_directory.clone();
    let made = tokio::fs::create_dir_all(&logs).await;
    made.map_err(|error| StageError::new("CreatePodSandboxError", format!("cannot create {logs}: {error}")))?;
    let request = RunPodSandboxRequest { config: Some(config), runtime_handler: handler.clone() };
    // Boxed, and timed from its turn on.
    let call = Box::pin(async {
        let begun = Instant::now();
        let answer = Box::pin(job.context.runtime.run_pod_sandbox(request)).await;
        SANDBOXES.observe([handler.clone().into()], begun.elapsed());
        if answer.is_err() {
            SANDBOX_ERRORS.count([handler.into()]);
        }
        answer
    });
    let answer = job.context.sandboxes.take(call).await;
    let made = answer.map_err(|error| StageError::cri("CreatePodSandboxError", &error))?;
    Ok(Outcome::Sandbox(SandboxId::new(made.pod_sandbox_id)))
}

/// The runtime handler of a pod's RuntimeClass; empty for the default one.
async fn handler(job: &Job, pod: &Pod) -> Result<String, StageError> {
    let name = pod.spec.as_ref().and_then(|spec| spec.runtime_class_name.as_deref()).unwrap_or_default();
    if name.is_empty() {
        return Ok(String::new());
    }
    let api: Api<RuntimeClass> = Api::all(job.context.client.clone());
    api.get(name).await.map(|class| class.handler).map_err(|error| {
        let text = if is_not_found(&error) {
            format!("runtimeclass.node.k8s.io {name:?} not found")
        } else {
            format!("failed to lookup RuntimeClass {name:?}: {}", describe(&error))
        };
        StageError::new("CreatePodSandboxError", text)
    })
}

/// The user namespace of a pod that is to be run by a handler.
async fn own_users(job: &Job, pod: &Pod, handler: &str) -> Result<UserNamespace, StageError> {
    if has_own_users(pod) && !job.context.runtime_facts.borrow().user_namespaces.contains(handler) {
        let who = match handler {
            "" => "runtime".to_owned(),
            named => format!("RuntimeClass handler {named:?}"),
        };
        let text = format!("can't set `spec.hostUsers: false`, {who} does not support user namespaces");
        return Err(StageError::new("CreatePodSandboxError", text));
    }
    users(job, pod).await
}

/// Whether a pod wants a user namespace of its own.
#[must_use]
pub fn has_own_users(pod: &Pod) -> bool {
    pod.spec.as_ref().and_then(|spec| spec.host_users) == Some(false)
}

/// The user namespace of a pod: its own, the same for all of its containers, or the node's.
///
/// # Errors
/// No ids are left for it.
pub async fn users(job: &Job, pod: &Pod) -> Result<UserNamespace, StageError> {
    if !has_own_users(pod) {
        return Ok(userns::of_node());
    }
    let (context, uid) = (Arc::clone(&job.context), job.uid.clone());
    let find = move || context.users.of(uid.as_str()).map_err(|error| format!("create user namespace: {error}"));
    blocking("CreatePodSandboxError", find).await
}

/// What the resolver of a pod is to be told, by what the node has now.
async fn dns(job: &Job, pod: &Arc<Pod>) -> Result<DnsConfig, StageError> {
    let (context, pod) = (Arc::clone(&job.context), Arc::clone(pod));
    blocking("CreatePodSandboxConfigError", move || {
        let addresses = context.addresses.borrow().clone();
        let facts = context.config.dns.facts(&addresses).map_err(|error| describe(&error))?;
        let say = Say::new(&context.recorder, Some(&pod));
        if let Some(text) = resolve::missing_cluster_dns(&pod, &facts) {
            const REASON: &str = "MissingClusterDNS";
            let node = node_reference(&context.config.node_name);
            context.recorder.event(&node, Kind::Warning, REASON, text);
            say.event(Event::warning(REASON, &format!("pod: {:?}. {text}", full_name(&pod))));
        }
        let (config, events) = resolve::dns(&pod, &facts);
        events.into_iter().for_each(|event| say.event(event));
        Ok(config)
    })
    .await
}

/// As upstream's `format.Pod` writes a pod.
fn full_name(pod: &Pod) -> String {
    let meta = &pod.metadata;
    let [name, namespace, uid] =
        [&meta.name, &meta.namespace, &meta.uid].map(|text| text.as_deref().unwrap_or_default());
    format!("{name}_{namespace}({uid})")
}

/// The configuration of a pod's sandbox: but for its DNS the same whenever it is asked for, so that containers can be created in a
/// sandbox that an earlier agent has made.
///
/// # Errors
/// A name that cannot be.
pub fn config(
    context: &Context,
    pod: &Pod,
    attempt: u32,
    users: UserNamespace,
    dns: DnsConfig,
) -> Result<PodSandboxConfig, StageError> {
    let names = resolve::hostname(pod, &context.config.dns.cluster_domain)
        .map_err(|error| StageError::new("CreatePodSandboxConfigError", error.to_string()))?;
    let spec = pod.spec.clone().unwrap_or_default();
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    let cgroup = context.tree.pod(limits::level(api::qos::class(&spec)), uid);
    let parts = SandboxParts {
        attempt,
        hostname: names.kernel,
        log_directory: request::log_directory(&context.config.logs_dir, pod),
        dns,
        cgroup_parent: context.cgroups.naming().spell(&cgroup),
        seccomp: context.sandbox_seccomp.clone(),
        users,
    };
    Ok(request::sandbox(pod, &parts, &context.config.machine))
}

/// Stops a sandbox and all in it; one that is gone is stopped.
///
/// # Errors
/// What the runtime said.
pub async fn stop(job: &Job, id: &SandboxId) -> Result<Outcome, StageError> {
    let request = StopPodSandboxRequest { pod_sandbox_id: id.as_str().to_owned() };
    let call = Box::pin(job.context.runtime.stop_pod_sandbox(request));
    // What follows is not in turns: else no pod would be gone before all are stopped.
    match job.context.stops.take(call).await {
        Err(error) if !error.is_not_found() => Err(StageError::cri("KillPodSandboxError", &error)),
        _ => Ok(Outcome::Done),
    }
}

/// Removes a stopped sandbox; one that is gone is removed.
///
/// # Errors
/// What the runtime said.
pub async fn remove(job: &Job, id: &SandboxId) -> Result<Outcome, StageError> {
    let request = RemovePodSandboxRequest { pod_sandbox_id: id.as_str().to_owned() };
    match job.context.runtime.remove_pod_sandbox(request).await {
        Err(error) if !error.is_not_found() => Err(StageError::cri("RemovePodSandboxError", &error)),
        _ => Ok(Outcome::Done),
    }
}
