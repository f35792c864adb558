//! Which requests are approved without a human, and what the well-known signers accept. Pure.
//!
//! Signers and their rules: kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests. Serving
//! certificates are approved here too, which kube-controller-manager leaves to others: `agent join` needs one, and the
//! requester can only get its own name and the addresses that its Node has.

use std::collections::BTreeSet;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;

use super::request::Request;

pub(super) const API_CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub(super) const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub(super) const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
const NODE_PREFIX: &str = "system:node:";
const NODES: &str = "system:nodes";

/// What is needed before a request may be approved.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Approval<'a> {
    /// It is for somebody else to decide.
    None,
    /// The requester may `create` this subresource of certificatesigningrequests.
    Review { subresource: &'static str, message: &'static str },
    /// The names are those of this node.
    Serving { node: &'a str },
}

/// Why a signer refuses a request.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum Refusal {
    #[error("usages did not match {0}")]
    Usages(String),
    #[error("organization in the CSR must be exactly {NODES}")]
    Organization,
    #[error("subject common name does not begin with {NODE_PREFIX}")]
    CommonName,
    #[error("subject common name is not the requesting user {0}")]
    NotOwn(String),
    #[error("DNS names, IP addresses, email addresses and URIs are not allowed")]
    Names,
    #[error("at least one DNS name or IP address is needed, and nothing else is allowed")]
    NoNames,
    #[error("{0} is not a name or address of the node")]
    Foreign(String),
}

/// Recognises the requests of nodes.
pub(super) fn recognise<'a>(csr: &'a CertificateSigningRequest, request: &Request) -> Approval<'a> {
    let user = csr.spec.username.as_deref().unwrap_or_default();
    match csr.spec.signer_name.as_str() {
        KUBELET_CLIENT if kubelet_client(csr, request).is_ok() => {
            if user == request.common_name {
                let message = "Auto approving self kubelet client certificate after SubjectAccessReview.";
                Approval::Review { subresource: "selfnodeclient", message }
            } else {
                let message = "Auto approving kubelet client certificate after SubjectAccessReview.";
                Approval::Review { subresource: "nodeclient", message }
            }
        }
        KUBELET_SERVING if kubelet_serving(csr, request).is_ok() => {
            user.strip_prefix(NODE_PREFIX).map_or(Approval::None, |node| Approval::Serving { node })
        }
        _ => Approval::None,
    }
}

/// Rules of kubernetes.io/kube-apiserver-client-kubelet.
pub(super) fn kubelet_client(csr: &CertificateSigningRequest, request: &Request) -> Result<(), Refusal> {
    node_subject(request)?;
    if !request.dns_names.is_empty() || !request.addresses.is_empty() || request.other_names > 0 {
        return Err(Refusal::Names);
    }
    usages(csr, "client auth", true)
}

/// Rules of kubernetes.io/kubelet-serving.
pub(super) fn kubelet_serving(csr: &CertificateSigningRequest, request: &Request) -> Result<(), Refusal> {
    node_subject(request)?;
    let user = csr.spec.username.as_deref().unwrap_or_default();
    if user != request.common_name {
        return Err(Refusal::NotOwn(user.to_owned()));
    }
    if (request.dns_names.is_empty() && request.addresses.is_empty()) || request.other_names > 0 {
        return Err(Refusal::NoNames);
    }
    usages(csr, "server auth", true)
}

/// Rules of kubernetes.io/kube-apiserver-client: any subject, only client usages.
pub(super) fn api_client(csr: &CertificateSigningRequest) -> Result<(), Refusal> {
    usages(csr, "client auth", false)
}

/// Whether all names and addresses of a serving request are the Node's.
pub(super) fn serving_names_match(request: &Request, node: &Node) -> Result<(), Refusal> {
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
    let own = |name: &str| {
        node.metadata.name.as_deref() == Some(name) || addresses.iter().any(|address| address.address == name)
    };
    let has_address = |wanted: &std::net::IpAddr| {
        addresses.iter().any(|address| address.address.parse::<std::net::IpAddr>().ok().as_ref() == Some(wanted))
    };
    if let Some(foreign) = request.dns_names.iter().find(|name| !own(name)) {
        return Err(Refusal::Foreign(foreign.clone()));
    }
    match request.addresses.iter().find(|address| !has_address(address)) {
        Some(foreign) => Err(Refusal::Foreign(foreign.to_string())),
        None => Ok(()),
    }
}

fn node_subject(request: &Request) -> Result<(), Refusal> {
    if request.organizations != [NODES] {
        return Err(Refusal::Organization);
    }
    match request.common_name.strip_prefix(NODE_PREFIX) {
        Some(name) if !name.is_empty() => Ok(()),
        _ => Err(Refusal::CommonName),
    }
}

/// `purpose` is needed; beside it only the two usages of keys, of which a signature is needed too when `strict`.
fn usages(csr: &CertificateSigningRequest, purpose: &str, strict: bool) -> Result<(), Refusal> {
    let asked: BTreeSet<&str> = csr.spec.usages.iter().flatten().map(String::as_str).collect();
    let allowed = [purpose, "digital signature", "key encipherment"];
    let fits = asked.contains(purpose)
        && asked.iter().all(|usage| allowed.contains(usage))
        && (!strict || asked.contains("digital signature"));
    if fits { Ok(()) } else { Err(Refusal::Usages(allowed.join(", "))) }
}
