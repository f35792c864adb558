//! Which certificates a master has, and for whom.

use std::net::IpAddr;

use anyhow::Result;
use auth::pki::{Leaf, Usage};

use crate::settings::Settings;

/// The user by which the API server talks to kubelets; a default binding gives it `system:kubelet-api-admin`.
pub const KUBELET_CLIENT: &str = "kube-apiserver-kubelet-client";
/// The only one whom aggregated API servers believe when he says who asks.
pub const PROXY_CLIENT: &str = auth::front_proxy::NAME;
/// As kubeadm has it: bound to cluster-admin by RBAC, so that it can be revoked.
const ADMINS: &str = "kubeadm:cluster-admins";

/// The API server's serving certificate: every name it is called by, inside and outside the cluster.
pub fn serving(settings: &Settings, hostname: &str) -> Result<Leaf<'static>> {
    const NAMES: [&str; 5] = [
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "localhost",
    ];
    let mut dns_names: Vec<String> = NAMES.iter().map(ToString::to_string).collect();
    let mut addresses =
        vec![settings.kubernetes_service_ip()?, settings.advertise_address, IpAddr::from([127, 0, 0, 1])];
    let local = settings.local_endpoint().ip();
    if !addresses.contains(&local) {
        addresses.push(local);
    }
    let more = settings.cert_sans.iter().map(String::as_str).chain([hostname]).filter(|name| !name.is_empty());
    for name in more {
        match name.parse() {
            Ok(address) if !addresses.contains(&address) => addresses.push(address),
            Err(_) if !dns_names.iter().any(|known| known == name) => dns_names.push(name.to_owned()),
            _ => {}
        }
    }
    Ok(Leaf { common_name: "kube-apiserver", organization: None, dns_names, addresses, usage: Usage::Server })
}

pub fn kubelet_client() -> Leaf<'static> {
    client(KUBELET_CLIENT, None)
}

pub fn proxy_client() -> Leaf<'static> {
    client(PROXY_CLIENT, None)
}

pub fn admin() -> Leaf<'static> {
    client("kubernetes-admin", Some(ADMINS))
}

/// For the day on which somebody has broken the RBAC rules: above all authorization.
pub fn super_admin() -> Leaf<'static> {
    client("kubernetes-super-admin", Some(auth::names::PRIVILEGED_GROUP))
}

fn client(common_name: &'static str, organization: Option<&'static str>) -> Leaf<'static> {
    Leaf { common_name, organization, dns_names: Vec::new(), addresses: Vec::new(), usage: Usage::Client }
}
