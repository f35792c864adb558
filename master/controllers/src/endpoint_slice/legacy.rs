//! Endpoints (v1), for those who still read them.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::pod::is_terminal;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use machinery::{Outcome, Retry, key_of, split_key};
use serde_json::json;

use super::mirror::is_leader;
use super::trigger::{self, Triggers};
use super::{families, observed, pods_of, select};
use crate::context::{Caches, Context};
use crate::pods;

const NAME: &str = "endpoint-controller";
const WORKERS: usize = 5;
/// The most addresses in an Endpoints object.
const MOST: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";

struct Controller {
    client: Client,
    caches: Caches,
    triggers: Triggers,
}

pub(crate) fn start(context: &mut Context) {
    let (queue, caches) = observed(context);
    let to = queue.clone();
    let services = caches.services.clone();
    caches.endpoints.on_change(move |change| {
        let key = key_of(&change.object().metadata);
        if services.get(&key).is_some() {
            to.add(key);
        }
    });
    // Services that went while nobody looked (`checkLeftoverEndpoints`).
    let (to, endpoints) = (queue.clone(), caches.endpoints.clone());
    context.spawn_synced(async move {
        endpoints.all().iter().filter(|one| !is_leader(one)).for_each(|one| to.add(key_of(&one.metadata)));
    });
    let controller = Controller { client: context.client(NAME), caches, triggers: Triggers::default() };
    context.spawn_workers(NAME, queue, WORKERS, controller, |it, key| async move { it.reconcile(&key).await });
}

impl Controller {
    async fn reconcile(&self, key: &str) -> Result<Outcome, Retry<kube::Error>> {
        let (namespace, name) = split_key(key);
        let api = Api::<Endpoints>::namespaced(self.client.clone(), namespace);
        let Some(service) = self.caches.services.get(key) else {
            self.triggers.forget(key);
            // Whoever made them: a Service that is made anew must not begin with them.
            machinery::unless_gone(api.delete(name, &DeleteParams::default()).await)?;
            return Ok(Outcome::Done);
        };
        if !select::has_selector(&service) || service.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        let pods = pods_of(&self.caches, &service);
        let trigger = self.triggers.of(key, &service, &pods);
        let mut wanted = endpoints(&service, &pods);
        match self.caches.endpoints.get(key) {
            Some(known) if is_same(&known, &wanted) => (),
            Some(known) => {
                let over = wanted.metadata.annotations.as_ref().and_then(|all| all.get(OVER_CAPACITY));
                let patch = json!({
                    "metadata": {
                        "resourceVersion": known.metadata.resource_version,
                        "labels": wanted.metadata.labels,
                        "annotations": {OVER_CAPACITY: over, trigger::ANNOTATION: trigger},
                    },
                    "subsets": wanted.subsets.unwrap_or_default(),
                });
                api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
            }
            None => {
                let annotations = wanted.metadata.annotations.get_or_insert_default();
                annotations.extend(trigger.map(|time| (trigger::ANNOTATION.to_owned(), time)));
                match api.create(&PostParams::default(), &wanted).await {
                    Ok(_) => (),
                    Err(error) if machinery::is_namespace_terminating(&error) => (),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(Outcome::Done)
    }
}

fn is_same(known: &Endpoints, wanted: &Endpoints) -> bool {
    let over =
        |endpoints: &Endpoints| endpoints.metadata.annotations.as_ref().and_then(|all| all.get(OVER_CAPACITY)).cloned();
    known.subsets.as_deref().unwrap_or_default() == wanted.subsets.as_deref().unwrap_or_default()
        && known.metadata.labels == wanted.metadata.labels
        && over(known) == over(wanted)
}

/// The Endpoints of a Service: addresses grouped by the ports that they serve. Terminating pods are left out.
pub(crate) fn endpoints(service: &Service, pods: &[Arc<Pod>]) -> Endpoints {
    let family = families(service).into_iter().next().unwrap_or("IPv4");
    let mut by_ports: BTreeMap<Vec<PortKey>, (Vec<EndpointAddress>, Vec<EndpointAddress>)> = BTreeMap::new();
    let mut count = 0;
    for pod in pods.iter().filter(|pod| belongs(service, pod)) {
        let Some(ip) = select::address(pod, family) else { continue };
        count += 1;
        if count > MOST {
            continue;
        }
        let address = EndpointAddress {
            ip,
            hostname: select::hostname(service, pod),
            node_name: pods::node_name(pod).map(str::to_owned),
            target_ref: Some(select::target(pod)),
        };
        let ready = select::publishes_not_ready(service) || pods::is_ready(pod);
        let lists = by_ports.entry(ports(service, pod)).or_default();
        if ready { lists.0.push(address) } else { lists.1.push(address) }
    }
    let subsets: Vec<EndpointSubset> = by_ports.into_iter().map(|(ports, lists)| subset(ports, lists)).collect();
    let mut labels = select::service_labels(service);
    labels.insert(MANAGED_BY.into(), NAME.into());
    Endpoints {
        metadata: ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: (count > MOST).then(|| [(OVER_CAPACITY.to_owned(), "truncated".to_owned())].into()),
            ..ObjectMeta::default()
        },
        subsets: Some(subsets).filter(|all| !all.is_empty()),
    }
}

/// Name, number, protocol, application protocol.
type PortKey = (Option<String>, i32, String, Option<String>);

fn belongs(service: &Service, pod: &Pod) -> bool {
    if pod.metadata.deletion_timestamp.is_some() && !select::publishes_not_ready(service) {
        return false;
    }
    !is_terminal(pod)
}

fn ports(service: &Service, pod: &Pod) -> Vec<PortKey> {
    let all = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let mut found: Vec<PortKey> = all
        .filter_map(|port| {
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
            Some((port.name.clone(), select::target_port(port, pod)?, protocol, port.app_protocol.clone()))
        })
        .collect();
    found.sort();
    found
}

fn subset(ports: Vec<PortKey>, lists: (Vec<EndpointAddress>, Vec<EndpointAddress>)) -> EndpointSubset {
    let sorted = |mut addresses: Vec<EndpointAddress>| {
        addresses.sort_by(|a, b| a.ip.cmp(&b.ip));
        Some(addresses).filter(|all| !all.is_empty())
    };
    let ports = ports.into_iter().map(|(name, port, protocol, app_protocol)| EndpointPort {
        name,
        port,
        protocol: Some(protocol),
        app_protocol,
    });
    let ports: Vec<EndpointPort> = ports.collect();
    EndpointSubset {
        addresses: sorted(lists.0),
        not_ready_addresses: sorted(lists.1),
        ports: Some(ports).filter(|all| !all.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_api::FakeApi;

    #[tokio::test]
    async fn endpoints_go_with_their_service_whoever_made_them() {
        let (api, caches) = (FakeApi::new("1"), Caches::default());
        let made = json!({ "metadata": { "name": "s", "namespace": "n" }, "subsets": [{ "addresses": [{ "ip": "192.0.2.1" }] }] });
        caches.endpoints.apply(serde_json::from_value(made).unwrap());
        let controller = Controller { client: api.client(), caches, triggers: Triggers::default() };
        let delete = "DELETE /api/v1/namespaces/n/endpoints/s";
        let service = json!({ "metadata": { "name": "s", "namespace": "n" }, "spec": {} });
        controller.caches.services.apply(serde_json::from_value(service).unwrap());
        controller.reconcile("n/s").await.unwrap();
        assert!(api.taken().is_empty(), "one without selector keeps them: {:?}", api.taken());
        controller.caches.services.delete("n/s");
        controller.reconcile("n/s").await.unwrap();
        assert_eq!(api.taken(), [delete]);
    }
}
