//! What is left of a pod without containers: volumes, cgroup, API object.

use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};

use super::prepare::storage_operation;
use super::{Job, Outcome, StageError, blocking, on_cgroups};
use crate::client::watch::describe;
use crate::client::{api_code, is_not_found};
use crate::pods::qos;

/// Unmounts and removes the pod's volumes and folder.
///
/// # Errors
/// A mount that stays, or a file that cannot be removed.
pub async fn volumes(job: &Job) -> Result<Outcome, StageError> {
    let (context, uid) = (Arc::clone(&job.context), job.uid.clone());
    let begun = Instant::now();
    let gone = blocking("FailedUnMount", move || {
        volumes::teardown::tear_down(&context.layout, uid.as_str()).map_err(|error| describe(&error))?;
        context.users.release(uid.as_str());
        Ok(())
    })
    .await;
    for volume in job.pod.iter().flat_map(|pod| volumes::plan(pod).volumes) {
        storage_operation(&volume.kind, "volume_unmount", begun, gone.is_err());
    }
    gone.map(|()| Outcome::Done)
}

/// Kills what is left in the pod's cgroup, on whatever level it is, and removes it.
///
/// # Errors
/// A process that cannot be killed, or a folder that cannot be removed.
pub async fn cgroup(job: &Job) -> Result<Outcome, StageError> {
    let (context, uid) = (Arc::clone(&job.context), job.uid.clone());
    on_cgroups(&Arc::clone(&context), "FailedKillPod", move || {
        for level in cgroups::QosLevel::ALL {
            let name = context.tree.pod(level, uid.as_str());
            context.cgroups.destroy(&name).map_err(|error| describe(&error))?;
        }
        qos::update(&context, qos::Change::Left(&uid));
        Ok(())
    })
    .await?;
    Ok(Outcome::Done)
}

/// Deletes a pod with a grace of 0. One that is gone, or was made anew under the same name, is deleted.
///
/// # Errors
/// What the server said.
pub async fn delete_now(
    client: &kube::Client,
    namespace: &str,
    name: &str,
    uid: Option<&str>,
) -> Result<(), kube::Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let preconditions = Preconditions { uid: uid.map(str::to_owned), resource_version: None };
    let parameters =
        DeleteParams { grace_period_seconds: Some(0), preconditions: Some(preconditions), ..DeleteParams::default() };
    match api.delete(name, &parameters).await {
        Err(error) if !is_not_found(&error) && api_code(&error) != Some(409) => Err(error),
        _ => Ok(()),
    }
}

/// Deletes the API object for good. One that is gone, or was made anew under the same name, is deleted.
///
/// # Errors
/// What the server said.
pub async fn finalise(job: &Job) -> Result<Outcome, StageError> {
    let pod = job.pod()?;
    let meta = &pod.metadata;
    let (namespace, name) = (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
    let deleted = delete_now(&job.context.client, namespace, name, meta.uid.as_deref()).await;
    deleted.map(|()| Outcome::Done).map_err(|error| StageError::new("FailedDelete", describe(&error)))
}
