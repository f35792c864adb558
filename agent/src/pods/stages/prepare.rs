//! What a pod needs before its sandbox: volumes and a cgroup.

use std::sync::Arc;
use std::time::Instant;

use api::resources::ResourceList;
use k8s_openapi::api::core::v1::{ObjectFieldSelector, Pod, PodSpec, ResourceFieldSelector};
use pod::fields::{self, FieldFacts};
use pod::{Allocation, Event};
use volumes::{Downward, Prepared, SetUp, SetUpError};

use super::{Job, Outcome, Say, StageError, limits, on_cgroups};
use crate::client::watch::describe;
use crate::metrics::families::STORAGE_OPERATIONS;
use crate::pods::{Context, qos};

/// Fields of a pod for the files of its volumes.
struct VolumeFields<'a> {
    pod: &'a Pod,
    facts: FieldFacts,
}

impl Downward for VolumeFields<'_> {
    fn field(&self, selector: &ObjectFieldSelector) -> Result<String, String> {
        fields::field(self.pod, selector, &self.facts).map_err(|error| error.to_string())
    }

    fn resource(&self, selector: &ResourceFieldSelector) -> Result<String, String> {
        fields::resource(self.pod, None, selector, &self.facts).map_err(|error| error.to_string())
    }
}

/// Sets up the pod's volumes, with what the API server has now.
///
/// # Errors
/// `FailedMount`, with the text of the first volume that failed.
pub async fn volumes(job: &Job) -> Result<Prepared, StageError> {
    let pod = job.pod()?;
    set_up(&job.context, pod, &job.facts.ips).await.map_err(|errors| {
        let texts: Vec<_> = errors.iter().map(ToString::to_string).collect();
        StageError::new("FailedMount", texts.join("\n"))
    })
}

/// Sets up the volumes of a pod, or refreshes them.
///
/// # Errors
/// Each volume that failed.
pub async fn set_up(context: &Arc<Context>, pod: &Pod, ips: &[std::net::IpAddr]) -> Result<Prepared, Vec<SetUpError>> {
    let plan = volumes::plan(pod);
    let fields = VolumeFields { pod, facts: field_facts(context, ips) };
    let with = SetUp {
        layout: &context.layout,
        objects: context.objects.as_ref(),
        fields: &fields,
        memory: pod.spec.as_ref().and_then(|spec| most_in_memory(spec, &context.config.allocatable)),
        now: jiff::Timestamp::now(),
    };
    let begun = Instant::now();
    let ready = volumes::setup::set_up(&plan, &with).await;
    let failed = ready.as_ref().err().map(Vec::as_slice).unwrap_or_default();
    for volume in &plan.volumes {
        let has_failed = failed.iter().any(|error| error.volume == volume.name);
        storage_operation(&volume.kind, "volume_mount", begun, has_failed);
    }
    for text in ready.iter().flat_map(|ready| &ready.already_mounted) {
        Say::new(&context.recorder, Some(pod)).event(Event::warning("AlreadyMountedVolume", text));
    }
    ready
}

/// What volumes in memory may hold, in bytes: what the pod may use, and no more than all pods may (`calculateEmptyDirMemorySize`).
fn most_in_memory(spec: &PodSpec, allocatable: &ResourceList) -> Option<u64> {
    let of_all = allocatable.get("memory").and_then(|memory| u64::try_from(memory.value()).ok());
    limits::limited(spec).1.into_iter().chain(of_all).min()
}

/// The volumes of a pod are ready together, and gone together: each took as long as all.
pub(super) fn storage_operation(kind: &volumes::kinds::Kind, operation: &'static str, begun: Instant, failed: bool) {
    let status = if failed { "fail-unknown" } else { "success" };
    let plugin = format!("kubernetes.io/{}", kind.plugin());
    STORAGE_OPERATIONS.observe([plugin.into(), operation.into(), status.into(), "false".into()], begun.elapsed());
}

/// What fields are read from.
pub fn field_facts(context: &Context, pod_ips: &[std::net::IpAddr]) -> FieldFacts {
    FieldFacts {
        host_ips: context.addresses.borrow().clone(),
        pod_ips: pod_ips.to_vec(),
        allocatable: context.config.allocatable.clone(),
    }
}

/// Makes the pod's cgroup with its limits.
///
/// # Errors
/// What the kernel said.
pub async fn cgroup(job: &Job) -> Result<Outcome, StageError> {
    let pod = Arc::clone(job.pod()?);
    let (context, uid) = (Arc::clone(&job.context), job.uid.clone());
    let given = Allocation::of(&pod);
    on_cgroups(&Arc::clone(&context), "FailedCreatePodContainer", move || {
        let spec = pod.spec.clone().unwrap_or_default();
        let name = context.tree.pod(limits::level(api::qos::class(&spec)), uid.as_str());
        let values = limits::pod(&spec, &context.config.machine);
        let made = context.cgroups.ensure(&name, &values);
        made.map_err(|error| format!("unable to ensure pod container exists: {}", describe(&error)))?;
        qos::update(&context, qos::Change::Came(&uid));
        Ok(())
    })
    .await?;
    Ok(Outcome::Cgroup(Box::new(given)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_in_memory_hold_no_more_than_all_pods_may_use() {
        let allocatable: ResourceList = [("memory".to_owned(), "1Gi".parse().unwrap())].into();
        let most = |limit: Option<&str>, allocatable: &ResourceList| {
            let limits = limit.map(|memory| serde_json::json!({"limits": {"memory": memory}}));
            let spec = serde_json::json!({"containers": [{"name": "c", "resources": limits}]});
            most_in_memory(&serde_json::from_value(spec).unwrap(), allocatable)
        };
        assert_eq!(most(None, &allocatable), Some(1 << 30));
        assert_eq!(most(Some("64Mi"), &allocatable), Some(64 << 20));
        assert_eq!(most(Some("2Gi"), &allocatable), Some(1 << 30));
        assert_eq!(most(None, &ResourceList::default()), None);
    }
}
