//! Whether the node takes a pod (pkg/kubelet/lifecycle, `GeneralPredicates`, and pkg/kubelet/sysctl). A pod that has
//! something in the runtime was admitted before and is not asked again: labels may change under it.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::quantity::Quantity;
use api::resources::{self, ResourceList};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use pod::Admission;

use super::node::OwnNode;
use super::{Context, PodsConfig, sysctls};

/// Asks for one pod, with all that were admitted before it. `None` while it is not known what the Node says.
#[must_use]
pub fn admit(pod: &Arc<Pod>, context: &Context) -> Option<Admission> {
    // A static pod may be what the API server is made of: the node is then what it will register as.
    let at_first = || Arc::new(OwnNode { labels: context.config.node_labels.clone(), ..OwnNode::default() });
    let known = context.node.borrow().clone();
    let node = known.or_else(|| api::pod::is_static(pod).then(at_first))?;
    let others: Vec<_> = context
        .registry
        .entries()
        .into_iter()
        .filter(|(uid, entry)| entry.admitted && Some(uid.as_str()) != pod.metadata.uid.as_deref())
        .filter(|(_, entry)| {
            let phase = entry.status.as_ref().and_then(|status| status.phase.as_deref());
            !api::pod::is_terminal_phase(phase)
        })
        .map(|(_, entry)| entry.pod)
        .collect();
    Some(decide(pod, &others, &node, &context.config))
}

/// The answer, and of several refusals upstream's first.
fn decide(pod: &Pod, others: &[Arc<Pod>], node: &OwnNode, config: &PodsConfig) -> Admission {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    if let Some(message) = sysctls::forbidden(pod, &config.allowed_unsafe_sysctls) {
        return Admission::Rejected { reason: "SysctlForbidden".to_owned(), message };
    }
    let specs: Vec<&PodSpec> = others.iter().filter_map(|other| other.spec.as_ref()).collect();
    let refusal = exhausted(spec, &specs, &config.allocatable)
        .or_else(|| mismatch(pod, spec, node, &config.node_name))
        .or_else(|| {
            let clash = ports_clash(spec, &specs);
            clash.then(|| failed("NodePorts", "node(s) didn't have free ports for the requested pod ports"))
        })
        .or_else(|| {
            let tolerations = spec.tolerations.as_deref().unwrap_or_default();
            let checked = if api::pod::is_static(pod) { [].as_slice() } else { &node.taints };
            let taint = api::taints::first_untolerated(checked, tolerations, &["NoExecute"]);
            taint.map(|_| failed("TaintToleration", "node(s) had taints that the pod didn't tolerate"))
        });
    refusal.unwrap_or(Admission::Admitted)
}

fn failed(predicate: &str, why: &str) -> Admission {
    Admission::Rejected { reason: predicate.to_owned(), message: format!("Predicate {predicate} failed: {why}") }
}

/// Labels: the node selector and the required node affinity.
fn mismatch(pod: &Pod, spec: &PodSpec, node: &OwnNode, name: &str) -> Option<Admission> {
    if api::affinity::pod_allows_node(spec, &node.labels, name) {
        return None;
    }
    tracing::debug!(pod = %api::pod::full_name(pod), "labels of this node do not match");
    Some(failed("NodeAffinity", "node(s) didn't match Pod's node affinity/selector"))
}

/// Resources: the first that the node has not enough of.
fn exhausted(spec: &PodSpec, others: &[&PodSpec], allocatable: &ResourceList) -> Option<Admission> {
    let mut used = ResourceList::new();
    for other in others {
        resources::add(&mut used, &resources::requests(other));
    }
    let count = Quantity::new(i64::try_from(others.len()).unwrap_or(i64::MAX), api::quantity::Format::DecimalSi);
    let one = Quantity::new(1, api::quantity::Format::DecimalSi);
    if let Some(max) = allocatable.get("pods").filter(|max| count.plus(&one) > **max) {
        return Some(insufficient("pods", &one, &count, max));
    }
    let requests = resources::requests(spec);
    requests.iter().filter(|(_, request)| !request.is_zero()).find_map(|(name, request)| {
        let have = allocatable.get(name).copied().unwrap_or(Quantity::ZERO);
        let taken = used.get(name).copied().unwrap_or(Quantity::ZERO);
        (taken.plus(request) > have).then(|| insufficient(name, request, &taken, &have))
    })
}

fn insufficient(name: &str, requested: &Quantity, used: &Quantity, capacity: &Quantity) -> Admission {
    let number = |quantity: &Quantity| if name == "cpu" { quantity.milli_value() } else { quantity.value() };
    Admission::Rejected {
        reason: format!("OutOf{name}"),
        message: format!(
            "Node didn't have enough resource: {name}, requested: {}, used: {}, capacity: {}",
            number(requested),
            number(used),
            number(capacity)
        ),
    }
}

type HostPort = (String, i32, String);

fn host_ports(spec: &PodSpec) -> BTreeSet<HostPort> {
    let ports = api::pod::ports(spec).filter_map(|port| {
        let number = port.host_port.filter(|number| *number > 0)?;
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        Some((protocol, number, port.host_ip.clone().unwrap_or_default()))
    });
    ports.collect()
}

/// An address that is not set is every address.
fn ports_clash(spec: &PodSpec, others: &[&PodSpec]) -> bool {
    let any = |ip: &str| matches!(ip, "" | "0.0.0.0" | "::");
    let clash = |a: &HostPort, b: &HostPort| (&a.0, a.1) == (&b.0, b.1) && (a.2 == b.2 || any(&a.2) || any(&b.2));
    let own = host_ports(spec);
    !own.is_empty()
        && others.iter().any(|other| host_ports(other).iter().any(|theirs| own.iter().any(|ours| clash(ours, theirs))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(cpu: &str, port: Option<i32>) -> Arc<Pod> {
        Arc::new(
            serde_json::from_value(serde_json::json!({"spec": {"containers": [{
                "name": "c", "resources": {"requests": {"cpu": cpu}},
                "ports": [{"containerPort": 80, "hostPort": port}]
            }]}}))
            .unwrap(),
        )
    }

    fn config() -> PodsConfig {
        PodsConfig {
            node_name: "n1".into(),
            allocatable: [("cpu".to_owned(), "2".parse().unwrap()), ("pods".to_owned(), "2".parse().unwrap())].into(),
            allowed_unsafe_sysctls: vec!["net.core.*".into()],
            ..PodsConfig::new(&crate::config::tests::minimal(), ResourceList::new(), 2, 1 << 30)
        }
    }

    fn node() -> OwnNode {
        OwnNode {
            labels: [("disk".to_owned(), "ssd".to_owned())].into(),
            taints: serde_json::from_value(serde_json::json!([{"key": "k", "effect": "NoSchedule"}])).unwrap(),
            ..OwnNode::default()
        }
    }

    fn answer(pod: &Pod, others: &[Arc<Pod>], node: &OwnNode) -> (String, String) {
        match decide(pod, others, node, &config()) {
            Admission::Rejected { reason, message } => (reason, message),
            Admission::Admitted => ("Admitted".to_owned(), String::new()),
        }
    }

    #[test]
    fn what_fits_is_admitted() {
        assert_eq!(answer(&pod("1", Some(80)), &[pod("1", Some(81))], &node()).0, "Admitted");
    }

    #[test]
    fn refusals_are_worded_as_the_kubelet_does() {
        let (reason, message) = answer(&pod("1500m", None), &[pod("1", None)], &node());
        assert_eq!(reason, "OutOfcpu");
        assert_eq!(message, "Node didn't have enough resource: cpu, requested: 1500, used: 1000, capacity: 2000");
        assert_eq!(answer(&pod("1m", None), &[pod("0", None), pod("0", None)], &node()).0, "OutOfpods");
        let (reason, message) = answer(&pod("1m", Some(80)), &[pod("1m", Some(80))], &node());
        assert_eq!(reason, "NodePorts");
        assert_eq!(message, "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports");
    }

    fn with(spec: serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({"spec": spec})).unwrap()
    }

    #[test]
    fn labels_and_taints_of_the_node_count() {
        let selecting = |value: &str| with(serde_json::json!({"containers": [], "nodeSelector": {"disk": value}}));
        assert_eq!(answer(&selecting("ssd"), &[], &node()).0, "Admitted");
        let (reason, message) = answer(&selecting("hdd"), &[], &node());
        assert_eq!(reason, "NodeAffinity");
        assert_eq!(message, "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector");
        let affine = with(serde_json::json!({"containers": [], "affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": [
                {"key": "metadata.name", "operator": "In", "values": ["n2"]}]}]}}}}));
        assert_eq!(answer(&affine, &[], &node()).0, "NodeAffinity");

        let mut tainted = node();
        tainted.taints.extend(
            serde_json::from_value::<Vec<_>>(serde_json::json!([{"key": "k", "effect": "NoExecute"}])).unwrap(),
        );
        let (reason, message) = answer(&with(serde_json::json!({"containers": []})), &[], &tainted);
        assert_eq!(reason, "TaintToleration");
        assert_eq!(message, "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate");
        let tolerant = with(serde_json::json!({"containers": [], "tolerations": [{"operator": "Exists"}]}));
        assert_eq!(answer(&tolerant, &[], &tainted).0, "Admitted");
    }

    #[test]
    fn unsafe_sysctls_need_the_administrators_word() {
        let asking = |name: &str| {
            let sysctls = serde_json::json!([{"name": name, "value": "1"}]);
            with(serde_json::json!({"containers": [], "securityContext": {"sysctls": sysctls}}))
        };
        assert_eq!(answer(&asking("net.core.somaxconn"), &[], &node()).0, "Admitted");
        let (reason, message) = answer(&asking("kernel.msgmax"), &[], &node());
        assert_eq!(reason, "SysctlForbidden");
        assert_eq!(message, "forbidden sysctl: \"kernel.msgmax\" not allowlisted");
    }
}
