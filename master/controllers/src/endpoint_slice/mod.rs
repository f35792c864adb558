//! EndpointSlice and Endpoints: which addresses stand behind a Service.

mod legacy;
mod mirror;
mod plan;
mod select;
#[cfg(test)]
mod tests;
mod trigger;

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt as _};
use machinery::{Change, Outcome, Retry, WorkQueue, key_of, split_key};
use serde_json::json;

use crate::context::{Caches, Context};
use crate::trim::pods_on;
use trigger::Triggers;

/// Names the Service of a slice.
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Names who writes a slice.
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const NAME: &str = "endpointslice-controller";
const MANAGER: &str = "endpointslice-controller.k8s.io";
const WORKERS: usize = 5;

pub(crate) use legacy::start as start_endpoints;
pub(crate) use mirror::start as start_mirroring;

struct Controller {
    client: Client,
    caches: Caches,
    triggers: Triggers,
}

pub(crate) fn start(context: &mut Context) {
    let (queue, caches) = observed(context);
    let to = queue.clone();
    caches.endpoint_slices.on_change(move |change| {
        let slice = change.object();
        if is_managed_by(slice, MANAGER)
            && let Some(key) = service_key(slice)
        {
            to.add(key);
        }
    });
    let controller = Controller { client: context.client(NAME), caches, triggers: Triggers::default() };
    context.spawn_workers(NAME, queue, WORKERS, controller, |it, key| async move { it.reconcile(&key).await });
}

/// A queue that has a Service when it changes, or when one of its pods changes in what a slice says, or a node its zone.
fn observed(context: &Context) -> (Arc<WorkQueue>, Caches) {
    let (queue, caches) = (WorkQueue::new(), context.caches.clone());
    let to = queue.clone();
    caches.services.on_change(move |change| to.add(key_of(&change.object().metadata)));
    let (to, services) = (queue.clone(), caches.services.clone());
    caches.pods.on_change(move |change| {
        let pod = change.object();
        let relabelled = change.old().filter(|old| old.metadata.labels != pod.metadata.labels);
        if relabelled.is_none() && change.old().is_some_and(|old| !select::differs(old, pod)) {
            return;
        }
        for service in services.in_namespace(pod.metadata.namespace.as_deref().unwrap_or_default()) {
            if select::selects(&service, pod) || relabelled.is_some_and(|old| select::selects(&service, old)) {
                to.add(key_of(&service.metadata));
            }
        }
    });
    let (to, services, pods) = (queue.clone(), caches.services.clone(), caches.pods.clone());
    caches.nodes.on_change(move |change| {
        let zone = change.object().metadata.labels.as_ref().and_then(|labels| labels.get(select::ZONE));
        let old = change.old().and_then(|old| old.metadata.labels.as_ref()?.get(select::ZONE));
        let moved = match &change {
            Change::Updated(..) => zone != old,
            Change::Added(_) | Change::Deleted(_) => zone.is_some(),
        };
        if !moved {
            return;
        }
        // Those that have a pod there: of pods that come later they hear by themselves.
        for pod in pods_on(&pods, &change.object().name_any()) {
            let all = services.in_namespace(pod.metadata.namespace.as_deref().unwrap_or_default());
            all.iter().filter(|service| select::selects(service, &pod)).for_each(|one| to.add(key_of(&one.metadata)));
        }
    });
    (queue, caches)
}

fn is_managed_by(slice: &EndpointSlice, manager: &str) -> bool {
    let labels = slice.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(MANAGED_BY)).map(String::as_str) == Some(manager)
}

fn service_key(slice: &EndpointSlice) -> Option<String> {
    let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(format!("{}/{service}", slice.metadata.namespace.as_deref().unwrap_or_default()))
}

impl Controller {
    async fn reconcile(&self, key: &str) -> Result<Outcome, Retry<kube::Error>> {
        let mut slices = self.caches.endpoint_slices.indexed(key);
        slices.retain(|slice| is_managed_by(slice, MANAGER) && slice.metadata.deletion_timestamp.is_none());
        slices.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
        let service = self.caches.services.get(key).filter(|service| select::has_selector(service));
        let Some(service) = service.filter(|service| service.metadata.deletion_timestamp.is_none()) else {
            self.triggers.forget(key);
            // A deleted Service's slices go with it; one that lost its selector keeps them, as upstream.
            return Ok(Outcome::Done);
        };
        let pods = pods_of(&self.caches, &service);
        let zone_of = |node: &str| {
            let node = self.caches.nodes.get(node)?;
            node.metadata.labels.as_ref()?.get(select::ZONE).filter(|zone| !zone.is_empty()).cloned()
        };
        let wanted = select::wanted(&service, &pods, &zone_of);
        let mut changes = plan::reconcile(&plan::Identity::of(&service, MANAGER), &slices, wanted);
        let trigger =
            self.triggers.of(key, &service, &pods).map(|time| [(trigger::ANNOTATION.to_owned(), time)].into());
        for slice in changes.create.iter_mut().chain(&mut changes.update) {
            slice.metadata.annotations.clone_from(&trigger);
        }
        apply(&self.client, split_key(key).0, changes).await?;
        Ok(Outcome::Done)
    }
}

/// The pods that the Service selects, in a stable order.
fn pods_of(caches: &Caches, service: &Service) -> Vec<Arc<Pod>> {
    let mut pods = caches.pods.in_namespace(service.metadata.namespace.as_deref().unwrap_or_default());
    pods.retain(|pod| select::selects(service, pod));
    pods
}

/// Writes the changes: first what adds, then what takes away, so that no address is missing in between.
async fn apply(client: &Client, namespace: &str, changes: plan::Changes) -> Result<(), kube::Error> {
    let api = Api::<EndpointSlice>::namespaced(client.clone(), namespace);
    for slice in &changes.create {
        match api.create(&PostParams::default(), slice).await {
            Ok(_) => (),
            Err(error) if machinery::is_namespace_terminating(&error) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    for slice in &changes.update {
        let meta = &slice.metadata;
        let trigger = meta.annotations.as_ref().and_then(|all| all.get(trigger::ANNOTATION));
        let patch = json!({
            "metadata": {
                "resourceVersion": meta.resource_version, "labels": meta.labels, "ownerReferences": meta.owner_references,
                "annotations": {trigger::ANNOTATION: trigger},
            },
            "endpoints": slice.endpoints.as_deref().unwrap_or_default(),
            "ports": slice.ports.as_deref().unwrap_or_default(),
        });
        api.patch(meta.name.as_deref().unwrap_or_default(), &PatchParams::default(), &Patch::Merge(patch)).await?;
    }
    for slice in &changes.delete {
        let only_this = Preconditions { uid: slice.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams::default().preconditions(only_this);
        match api.delete(slice.metadata.name.as_deref().unwrap_or_default(), &params).await {
            Ok(_) => (),
            Err(error) if machinery::is_not_found(&error) => (),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Address families of a Service, as EndpointSlice.addressType has them.
fn families(service: &Service) -> BTreeSet<&'static str> {
    let families = service.spec.as_ref().and_then(|spec| spec.ip_families.as_ref());
    let named = families.into_iter().flatten().map(|family| if family == "IPv6" { "IPv6" } else { "IPv4" });
    let mut all: BTreeSet<_> = named.collect();
    if all.is_empty() {
        all.insert("IPv4");
    }
    all
}
