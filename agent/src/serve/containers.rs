//! Containers and sandboxes of a pod, found in the runtime by the labels that kubelet gives them.

use std::collections::HashMap;
use std::path::PathBuf;

use cri::v1;
use serde_json::{Value, json};

use super::logs::Liveness;

const POD_NAME: &str = "io.kubernetes.pod.name";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const POD_UID: &str = "io.kubernetes.pod.uid";
const CONTAINER_NAME: &str = "io.kubernetes.container.name";

/// Which container is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target<'a> {
    pub(super) namespace: &'a str,
    pub(super) pod: &'a str,
    pub(super) uid: Option<&'a str>,
    pub(super) container: &'a str,
}

impl Target<'_> {
    fn labels(&self) -> HashMap<String, String> {
        let mut labels = pod_labels(self.namespace, self.pod, self.uid);
        labels.insert(CONTAINER_NAME.into(), self.container.to_owned());
        labels
    }
}

fn pod_labels(namespace: &str, pod: &str, uid: Option<&str>) -> HashMap<String, String> {
    let mut labels =
        HashMap::from([(POD_NAMESPACE.to_owned(), namespace.to_owned()), (POD_NAME.to_owned(), pod.to_owned())]);
    labels.extend(uid.map(|uid| (POD_UID.to_owned(), uid.to_owned())));
    labels
}

/// The runs of a container, latest first.
async fn runs(runtime: &cri::Client, target: &Target<'_>) -> Result<Vec<v1::Container>, cri::CallError> {
    let filter = v1::ContainerFilter { label_selector: target.labels(), ..v1::ContainerFilter::default() };
    let answer = runtime.list_containers(v1::ListContainersRequest { filter: Some(filter) }).await?;
    let mut runs = answer.containers;
    runs.sort_by_key(|run| std::cmp::Reverse(run.created_at));
    Ok(runs)
}

/// The id of the running container.
pub(super) async fn running(runtime: &cri::Client, target: &Target<'_>) -> Result<Option<String>, cri::CallError> {
    let runs = runs(runtime, target).await?;
    let running = v1::ContainerState::ContainerRunning as i32;
    Ok(runs.into_iter().find(|run| run.state == running).map(|run| run.id))
}

/// The id of the pod's ready sandbox.
pub(super) async fn sandbox(
    runtime: &cri::Client,
    namespace: &str,
    pod: &str,
    uid: Option<&str>,
) -> Result<Option<String>, cri::CallError> {
    let filter = v1::PodSandboxFilter {
        state: Some(v1::PodSandboxStateValue { state: v1::PodSandboxState::SandboxReady as i32 }),
        label_selector: pod_labels(namespace, pod, uid),
        ..v1::PodSandboxFilter::default()
    };
    let answer = runtime.list_pod_sandbox(v1::ListPodSandboxRequest { filter: Some(filter) }).await?;
    Ok(answer.items.into_iter().max_by_key(|sandbox| sandbox.created_at).map(|sandbox| sandbox.id))
}

/// A pod of which something runs, with the names and images of its containers that run.
pub(super) struct RunningPod {
    metadata: v1::PodSandboxMetadata,
    containers: Vec<(String, String)>,
}

impl RunningPod {
    pub(super) fn into_json(self) -> Value {
        let of = self.metadata;
        let containers = self.containers.into_iter().map(|(name, image)| json!({"name": name, "image": image}));
        json!({
            "metadata": {"name": of.name, "namespace": of.namespace, "uid": of.uid},
            "spec": {"containers": containers.collect::<Vec<_>>()}, "status": {},
        })
    }
}

/// Every pod that has a ready sandbox.
pub(super) async fn pods(runtime: &cri::Client) -> Result<Vec<RunningPod>, cri::CallError> {
    let ready = v1::PodSandboxStateValue { state: v1::PodSandboxState::SandboxReady as i32 };
    let running = v1::ContainerStateValue { state: v1::ContainerState::ContainerRunning as i32 };
    let sandboxes = v1::PodSandboxFilter { state: Some(ready), ..v1::PodSandboxFilter::default() };
    let containers = v1::ContainerFilter { state: Some(running), ..v1::ContainerFilter::default() };
    let (sandboxes, containers) = tokio::try_join!(
        runtime.list_pod_sandbox(v1::ListPodSandboxRequest { filter: Some(sandboxes) }),
        runtime.list_containers(v1::ListContainersRequest { filter: Some(containers) }),
    )?;
    let mut by_sandbox: HashMap<String, Vec<(String, String)>> = HashMap::new();
    for container in containers.containers {
        let name = container.labels.get(CONTAINER_NAME).cloned().unwrap_or_default();
        let image = container.image.unwrap_or_default().image;
        by_sandbox.entry(container.pod_sandbox_id).or_default().push((name, image));
    }
    let pods = sandboxes.items.into_iter().filter_map(|sandbox| {
        let containers = by_sandbox.remove(&sandbox.id).unwrap_or_default();
        Some(RunningPod { metadata: sandbox.metadata?, containers })
    });
    Ok(pods.collect())
}

/// Where a run logs to; `None` when it has no log.
pub(super) async fn log_path(runtime: &cri::Client, id: &str) -> Result<Option<PathBuf>, cri::CallError> {
    let status = runtime.container(id).await?.status;
    Ok(status.map(|status| PathBuf::from(status.log_path)).filter(|path| path.is_absolute()))
}

/// Asks the runtime whether a container runs.
pub(super) struct RunningInRuntime {
    pub(super) runtime: cri::Client,
    pub(super) id: String,
}

impl Liveness for RunningInRuntime {
    async fn is_running(&mut self) -> bool {
        match self.runtime.container(&self.id).await {
            Ok(answer) => {
                answer.status.is_some_and(|status| status.state == v1::ContainerState::ContainerRunning as i32)
            }
            // A runtime that is restarting says nothing about the container.
            Err(error) => !error.is_not_found(),
        }
    }
}
