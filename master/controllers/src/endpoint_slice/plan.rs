//! How existing slices become the wanted endpoints with the fewest writes. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::select::{Group, service_labels};
use super::{MANAGED_BY, SERVICE_NAME};
use crate::owner::controller_reference;

/// The most endpoints in a slice (kube-controller-manager's --max-endpoints-per-slice).
pub(crate) const MOST: usize = 100;

/// The writes. Created slices have a generated name.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Changes {
    pub(crate) create: Vec<EndpointSlice>,
    pub(crate) update: Vec<EndpointSlice>,
    pub(crate) delete: Vec<Arc<EndpointSlice>>,
}

/// What all slices of a Service have in common.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) namespace: Option<String>,
    pub(crate) prefix: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) owner: OwnerReference,
}

impl Identity {
    pub(crate) fn of(service: &Service, manager: &str) -> Self {
        let name = service.metadata.name.clone().unwrap_or_default();
        let mut labels = service_labels(service);
        labels.insert(SERVICE_NAME.into(), name.clone());
        labels.insert(MANAGED_BY.into(), manager.into());
        let owner = controller_reference(service);
        Self { namespace: service.metadata.namespace.clone(), prefix: format!("{name}-"), labels, owner }
    }
}

/// An existing slice on its way to what it becomes.
struct Draft {
    slice: Arc<EndpointSlice>,
    endpoints: Vec<Endpoint>,
    changed: bool,
}

/// Keeps endpoints in the slices that they are in; fills slices that change anyway before others, and makes new slices last.
pub(crate) fn reconcile(identity: &Identity, existing: &[Arc<EndpointSlice>], wanted: Vec<Group>) -> Changes {
    let mut changes = Changes::default();
    let mut open: Vec<Arc<EndpointSlice>> = existing.to_vec();
    for group in wanted {
        let belongs = |slice: &Arc<EndpointSlice>| {
            slice.address_type == group.address_type
                && same_ports(slice.ports.as_deref().unwrap_or_default(), &group.ports)
        };
        let (mine, others) = open.into_iter().partition(belongs);
        open = others;
        reconcile_group(identity, mine, group, &mut changes);
    }
    // Slices of ports or families that the Service no longer has. One of them is turned into a new one where possible.
    for slice in open {
        let reusable = changes.create.iter().position(|new| new.address_type == slice.address_type);
        match reusable {
            Some(at) => {
                let mut new = changes.create.remove(at);
                new.metadata.name.clone_from(&slice.metadata.name);
                new.metadata.generate_name = None;
                new.metadata.resource_version.clone_from(&slice.metadata.resource_version);
                changes.update.push(new);
            }
            None => changes.delete.push(slice),
        }
    }
    changes
}

fn reconcile_group(identity: &Identity, existing: Vec<Arc<EndpointSlice>>, group: Group, changes: &mut Changes) {
    let mut missing: BTreeMap<String, Endpoint> =
        group.endpoints.into_iter().map(|endpoint| (key(&endpoint), endpoint)).collect();
    let mut drafts: Vec<Draft> = existing.into_iter().map(|slice| keep(identity, slice, &mut missing)).collect();
    let mut rest: Vec<Endpoint> = missing.into_values().collect();
    for draft in drafts.iter_mut().filter(|draft| draft.changed) {
        fill(draft, &mut rest);
    }
    // What fits into one slice more goes to the fullest one that has room for all of it: only one more write.
    if !rest.is_empty() && rest.len() < MOST {
        let roomy = drafts.iter_mut().filter(|draft| !draft.changed && draft.endpoints.len() + rest.len() <= MOST);
        if let Some(draft) = roomy.max_by_key(|draft| draft.endpoints.len()) {
            fill(draft, &mut rest);
        }
    }
    let any_left = drafts.iter().any(|draft| !draft.endpoints.is_empty()) || !rest.is_empty();
    let mut spare_kept = any_left;
    for draft in drafts {
        if draft.endpoints.is_empty() && spare_kept {
            changes.delete.push(draft.slice);
            continue;
        }
        // Without any endpoint, one empty slice stays.
        spare_kept = true;
        if draft.changed {
            changes.update.push(slice_with(
                identity,
                Some(&draft.slice),
                draft.slice.address_type.as_str(),
                &group.ports,
                draft.endpoints,
            ));
        }
    }
    while !rest.is_empty() || !spare_kept {
        let chunk: Vec<Endpoint> = rest.drain(..rest.len().min(MOST)).collect();
        changes.create.push(slice_with(identity, None, group.address_type, &group.ports, chunk));
        spare_kept = true;
    }
}

/// Keeps those endpoints of a slice that are still wanted, in their present form, and takes them off the wanted ones.
fn keep(identity: &Identity, slice: Arc<EndpointSlice>, missing: &mut BTreeMap<String, Endpoint>) -> Draft {
    let present = slice.endpoints.as_deref().unwrap_or_default();
    let mut changed = slice.metadata.labels.as_ref() != Some(&identity.labels);
    let mut endpoints = Vec::with_capacity(present.len());
    for endpoint in present {
        match missing.remove(&key(endpoint)) {
            Some(wanted) => {
                changed |= &wanted != endpoint;
                endpoints.push(wanted);
            }
            None => changed = true,
        }
    }
    Draft { slice, endpoints, changed }
}

fn fill(draft: &mut Draft, rest: &mut Vec<Endpoint>) {
    let room = MOST.saturating_sub(draft.endpoints.len()).min(rest.len());
    if room > 0 {
        draft.endpoints.extend(rest.drain(..room));
        draft.changed = true;
    }
}

fn slice_with(
    identity: &Identity,
    old: Option<&EndpointSlice>,
    address_type: &str,
    ports: &[EndpointPort],
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    let old = old.map(|old| &old.metadata);
    EndpointSlice {
        metadata: ObjectMeta {
            namespace: identity.namespace.clone(),
            name: old.and_then(|old| old.name.clone()),
            resource_version: old.and_then(|old| old.resource_version.clone()),
            generate_name: old.is_none().then(|| identity.prefix.clone()),
            labels: Some(identity.labels.clone()),
            owner_references: Some(vec![identity.owner.clone()]),
            ..ObjectMeta::default()
        },
        address_type: address_type.to_owned(),
        ports: Some(ports.to_vec()),
        endpoints: Some(endpoints),
    }
}

/// Endpoints are the same when address and pod are.
fn key(endpoint: &Endpoint) -> String {
    let target = endpoint.target_ref.as_ref();
    let uid = target.and_then(|target| target.uid.as_deref()).unwrap_or_default();
    format!("{}|{uid}", endpoint.addresses.join(","))
}

fn same_ports(a: &[EndpointPort], b: &[EndpointPort]) -> bool {
    a.len() == b.len() && a.iter().all(|port| b.iter().any(|other| same_port(port, other)))
}

fn same_port(a: &EndpointPort, b: &EndpointPort) -> bool {
    a.name.as_deref().unwrap_or_default() == b.name.as_deref().unwrap_or_default()
        && a.port == b.port
        && a.protocol.as_deref().unwrap_or("TCP") == b.protocol.as_deref().unwrap_or("TCP")
        && a.app_protocol == b.app_protocol
}
