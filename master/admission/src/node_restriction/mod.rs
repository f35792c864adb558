//! NodeRestriction: a node writes its own Node and Lease, the status of its own pods, and asks for tokens of pods that run
//! on it; nothing else (`plugin/pkg/admission/noderestriction`).

mod claim;
mod node;
mod pod;

use auth::{node_identity, pki};
use serde_json::Value;

use crate::{Context, Operation, Plugin, Refusal, Request, text};

const NODE_LEASES: &str = "kube-node-lease";
const NODE_SIGNERS: [&str; 2] = ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"];

pub struct NodeRestriction;

impl NodeRestriction {
    fn check(context: &Context, request: &Request<'_>, object: Option<&Value>) -> Result<(), Refusal> {
        let Some(node) = node_identity(request.user) else { return Ok(()) };
        if node.is_empty() {
            let why = format!("could not determine node from user {:?}", request.user.username);
            return Err(request.forbidden(object, &why));
        }
        match (request.group, request.resource) {
            ("", "pods") => pod::check(context, request, object, node),
            ("", "nodes") => node::check(request, object, node),
            ("", "persistentvolumeclaims") => claim::check(request, object, node),
            ("", "serviceaccounts") => pod::check_token_request(context, request, object, node),
            ("coordination.k8s.io", "leases") => lease(request, object, node),
            ("storage.k8s.io", "csinodes") => csi_node(request, object, node),
            ("resource.k8s.io", "resourceslices") => resource_slice(request, object, node),
            ("certificates.k8s.io", "certificatesigningrequests") => certificate_request(request, object, node),
            _ => Ok(()),
        }
    }
}

impl Plugin for NodeRestriction {
    /// Early, so that a node learns nothing from later refusals.
    fn admit(&self, context: &Context, request: &Request<'_>, object: &mut Value) -> Result<(), Refusal> {
        Self::check(context, request, Some(object))
    }

    fn validate(&self, context: &Context, request: &Request<'_>, object: Option<&Value>) -> Result<(), Refusal> {
        // What was created has passed in `admit`; since then TaintNodesByCondition and others have changed it.
        if request.operation == Operation::Create { Ok(()) } else { Self::check(context, request, object) }
    }
}

fn lease(request: &Request<'_>, object: Option<&Value>, node: &str) -> Result<(), Refusal> {
    if request.namespace != NODE_LEASES {
        let why = format!("can only access leases in the {NODE_LEASES:?} system namespace");
        return Err(request.forbidden(object, &why));
    }
    if written_name(request, object) != node {
        return Err(request.forbidden(object, "can only access node lease with the same name as the requesting node"));
    }
    Ok(())
}

fn csi_node(request: &Request<'_>, object: Option<&Value>, node: &str) -> Result<(), Refusal> {
    if written_name(request, object) != node {
        return Err(request.forbidden(object, "can only access CSINode with the same name as the requesting node"));
    }
    Ok(())
}

/// A node describes its own devices only. Others than these operations are the Node authorizer's to judge.
fn resource_slice(request: &Request<'_>, object: Option<&Value>, node: &str) -> Result<(), Refusal> {
    let (slice, what) = match request.operation {
        Operation::Create => (object, "create"),
        Operation::Delete => (request.old, "delete"),
        Operation::Update | Operation::Connect => return Ok(()),
    };
    if slice.map_or("", |slice| text(slice, "/spec/nodeName")) == node {
        return Ok(());
    }
    let why = format!("can only {what} ResourceSlice with the same NodeName as the requesting node");
    Err(request.forbidden(object, &why))
}

/// On create the object names itself.
fn written_name<'a>(request: &Request<'a>, object: Option<&'a Value>) -> &'a str {
    match object {
        Some(object) if request.operation == Operation::Create => text(object, "/metadata/name"),
        _ => request.name,
    }
}

/// A node asks for certificates in its own name only.
fn certificate_request(request: &Request<'_>, object: Option<&Value>, node: &str) -> Result<(), Refusal> {
    let Some(csr) = object.filter(|_| request.operation == Operation::Create) else { return Ok(()) };
    if !NODE_SIGNERS.contains(&text(csr, "/spec/signerName")) {
        return Ok(());
    }
    let subject = pki::csr_subject(text(csr, "/spec/request"))
        .map_err(|error| request.forbidden(object, &format!("unable to parse csr: {error}")))?;
    let wanted = format!("system:node:{node}");
    if subject.common_name.as_deref() != Some(wanted.as_str()) {
        return Err(request.forbidden(object, &format!("can only create a node CSR with CN={wanted}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
