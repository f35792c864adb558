//! Mirrors hand-written Endpoints of Services without selector into EndpointSlices.

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort};
use kube::Client;
use machinery::{Outcome, Retry, WorkQueue, key_of, split_key};

use super::plan::{Changes, Identity};
use super::select::{Group, has_selector};
use super::{apply, is_managed_by, plan, service_key};
use crate::context::{Caches, Context};
use crate::owner::controller_reference;

const NAME: &str = "endpointslicemirroring-controller";
const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Endpoints that are leader election records are not mirrored.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const WORKERS: usize = 2;

struct Controller {
    client: Client,
    caches: Caches,
}

pub(crate) fn start(context: &mut Context) {
    let queue = WorkQueue::new();
    let caches = context.caches.clone();
    let to = queue.clone();
    caches.services.on_change(move |change| to.add(key_of(&change.object().metadata)));
    let to = queue.clone();
    caches.endpoints.on_change(move |change| to.add(key_of(&change.object().metadata)));
    let to = queue.clone();
    caches.endpoint_slices.on_change(move |change| {
        if is_managed_by(change.object(), MANAGER)
            && let Some(key) = service_key(change.object())
        {
            to.add(key);
        }
    });
    let controller = Controller { client: context.client(NAME), caches };
    context.spawn_workers(NAME, queue, WORKERS, controller, |it, key| async move { it.reconcile(&key).await });
}

impl Controller {
    async fn reconcile(&self, key: &str) -> Result<Outcome, Retry<kube::Error>> {
        let mut slices = self.caches.endpoint_slices.indexed(key);
        slices.retain(|slice| is_managed_by(slice, MANAGER) && slice.metadata.deletion_timestamp.is_none());
        let service = self.caches.services.get(key).filter(|service| !has_selector(service));
        let endpoints = self.caches.endpoints.get(key).filter(|endpoints| is_mirrored(endpoints));
        let changes = match service.zip(endpoints) {
            Some((service, endpoints)) => {
                let mut identity = Identity::of(&service, MANAGER);
                identity.owner = controller_reference(&*endpoints);
                plan::reconcile(&identity, &slices, groups(&endpoints))
            }
            None => Changes { delete: slices, ..Changes::default() },
        };
        apply(&self.client, split_key(key).0, changes).await?;
        Ok(Outcome::Done)
    }
}

fn is_mirrored(endpoints: &Endpoints) -> bool {
    let meta = &endpoints.metadata;
    let skipped = meta.labels.as_ref().and_then(|labels| labels.get(SKIP_MIRROR)).is_some_and(|value| value == "true");
    !skipped && !is_leader(endpoints) && meta.deletion_timestamp.is_none()
}

/// Whether they are no endpoints, but say who leads.
pub(super) fn is_leader(endpoints: &Endpoints) -> bool {
    endpoints.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(LEADER))
}

/// The groups of endpoints that Endpoints describe; each address family is a group of its own.
pub(crate) fn groups(endpoints: &Endpoints) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let ports = ports(subset);
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let all = ready.chain(subset.not_ready_addresses.iter().flatten().map(|address| (address, false)));
        for (address, ready) in all {
            let family = if address.ip.contains(':') { "IPv6" } else { "IPv4" };
            let endpoint = endpoint(address, ready);
            match groups.iter_mut().find(|group| group.address_type == family && group.ports == ports) {
                Some(group) => group.endpoints.push(endpoint),
                None => {
                    groups.push(Group { address_type: family, ports: ports.clone(), endpoints: vec![endpoint] });
                }
            }
        }
    }
    groups
}

fn ports(subset: &EndpointSubset) -> Vec<EndpointPort> {
    let all = subset.ports.iter().flatten().map(|port| EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
        app_protocol: port.app_protocol.clone(),
    });
    all.collect()
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}
