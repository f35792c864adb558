//! Which requests are approved without a human, and what the well-known signers accept. Pure.
//!
//! Signers and their rules: kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests. Serving
//! certificates are approved here too, which kube-controller-manager leaves to others: `agent join` needs one, and the
//! requester can only get its own name and the addresses that its Node has. A node writes those itself: what is
//! somebody else's it does not get ([`Reserved`]; docs/adr/0010-serving-certificates.md).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;

use super::request::Request;
use crate::context::ApiServerNames;

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
    #[error("{0} is a name or address of the API server")]
    ApiServer(String),
    #[error("{0} is a name of Services")]
    ServiceName(String),
    #[error("{0} is an address of Services")]
    ServiceAddress(IpAddr),
    #[error("{address} is an address of node {node}, too")]
    OtherNode { address: IpAddr, node: String },
}

/// What is not a node's to be certified as, whatever its Node says.
pub(super) struct Reserved<'a> {
    pub(super) api_server: &'a ApiServerNames,
    /// Addresses of Services.
    pub(super) services: &'a [IpNet],
    /// All Nodes, among them the requester's.
    pub(super) nodes: &'a [Arc<Node>],
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

/// Whether all names and addresses of a serving request are the Node's, and nobody else's.
pub(super) fn serving_names_match(request: &Request, node: &Node, reserved: &Reserved<'_>) -> Result<(), Refusal> {
    let at_home = reserved.is_of_the_api_server(node);
    for name in &request.dns_names {
        if !is_own_name(name, node) {
            return Err(Refusal::Foreign(name.clone()));
        }
        reserved.check_name(name, at_home)?;
    }
    for address in request.addresses.iter().map(IpAddr::to_canonical) {
        if !addresses(node).any(|own| own == address) {
            return Err(Refusal::Foreign(address.to_string()));
        }
        reserved.check_address(address, node, at_home)?;
    }
    Ok(())
}

impl Reserved<'_> {
    /// Whether the node is on the API server's machine, whose names and addresses it shares: it knows that machine's boot id, and is
    /// the only one that does (Nodes can be read, and what is read can be told).
    fn is_of_the_api_server(&self, node: &Node) -> bool {
        let here = |node: &Node| !self.api_server.boot_id.is_empty() && boot_id(node) == self.api_server.boot_id;
        here(node) && self.nodes.iter().filter(|other| here(other)).all(|other| name(other) == name(node))
    }

    fn check_name(&self, asked: &str, at_home: bool) -> Result<(), Refusal> {
        let plain = plain(asked);
        // Whose it would be is not for us to know: `*` stands for many names.
        if !plain.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_')) {
            return Err(Refusal::Foreign(asked.to_owned()));
        }
        let ApiServerNames { dns_names, domain, .. } = self.api_server;
        let is_under =
            |domain: &str| plain == domain || plain.strip_suffix(domain).is_some_and(|left| left.ends_with('.'));
        if matches!(plain.as_str(), "kubernetes" | "kubernetes.default") {
            return Err(Refusal::ApiServer(asked.to_owned()));
        }
        if is_under("svc") || is_under(domain) {
            return Err(Refusal::ServiceName(asked.to_owned()));
        }
        let is_api_server = dns_names.iter().any(|own| self::plain(own) == plain);
        if is_api_server && !at_home { Err(Refusal::ApiServer(asked.to_owned())) } else { Ok(()) }
    }

    fn check_address(&self, address: IpAddr, node: &Node, at_home: bool) -> Result<(), Refusal> {
        if self.services.iter().any(|range| range.contains(&address)) {
            return Err(Refusal::ServiceAddress(address));
        }
        if !at_home && self.api_server.addresses.iter().any(|own| own.to_canonical() == address) {
            return Err(Refusal::ApiServer(address.to_string()));
        }
        let is_other = |other: &&Arc<Node>| name(other) != name(node) && addresses(other).any(|its| its == address);
        match self.nodes.iter().find(is_other) {
            Some(other) => Err(Refusal::OtherNode { address, node: name(other).to_owned() }),
            None => Ok(()),
        }
    }
}

/// The Node's name, or one of those in its status.
fn is_own_name(asked: &str, node: &Node) -> bool {
    let named = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let mut named = named.filter(|one| matches!(one.type_.as_str(), "Hostname" | "InternalDNS" | "ExternalDNS"));
    name(node) == asked || named.any(|one| one.address == asked)
}

fn addresses(node: &Node) -> impl Iterator<Item = IpAddr> {
    let all = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    all.filter_map(|one| one.address.parse::<IpAddr>().ok()).map(|address| address.to_canonical())
}

fn name(node: &Node) -> &str {
    node.metadata.name.as_deref().unwrap_or_default()
}

fn boot_id(node: &Node) -> &str {
    node.status.as_ref().and_then(|status| status.node_info.as_ref()).map_or("", |info| info.boot_id.as_str())
}

/// As clients compare names: whatever their case, and with or without the dot of the root.
fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
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
