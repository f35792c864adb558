//! Which labels a node may give to its own Node: what a kubelet refuses when it starts, and `NodeRestriction` when it writes.

/// Nobody but administrators sets these (admission plugin `NodeRestriction`).
const RESTRICTED_DOMAIN: &str = "node-restriction.kubernetes.io";
/// Labels of Kubernetes' own domains that a kubelet sets (`k8s.io/kubelet/pkg/apis.IsKubeletLabel`).
const KUBELET_LABELS: [&str; 12] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/windows-build",
];
const KUBELET_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];

/// Whether a node may set the label of this key.
#[must_use]
pub fn is_a_nodes(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let within = |parent: &str| domain == parent || domain.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'));
    let is_kubernetes = within("kubernetes.io") || within("k8s.io");
    let is_kubelet = KUBELET_LABELS.contains(&key) || KUBELET_DOMAINS.into_iter().any(within);
    !within(RESTRICTED_DOMAIN) && (!is_kubernetes || is_kubelet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_own_labels_are_a_nodes_only_where_a_kubelet_sets_them() {
        for key in ["a", "example.com/a", "notkubernetes.io/a", "kubernetes.io/arch", "x.kubelet.kubernetes.io/a"] {
            assert!(is_a_nodes(key), "{key}");
        }
        for key in
            ["node-role.kubernetes.io/worker", "kubernetes.io/a", "k8s.io/a", "x.node-restriction.kubernetes.io/a"]
        {
            assert!(!is_a_nodes(key), "{key}");
        }
    }
}
