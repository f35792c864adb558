//! Whether the node takes a pod (pkg/kubelet/lifecycle, `GeneralPredicates`): resources, host ports. What the scheduler
//! has checked against labels and taints is not checked again: the pod is bound, and NoExecute is the controller's.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::quantity::Quantity;
use api::resources::{self, ResourceList};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use pod::Admission;

use super::Context;

/// Asks for one pod, with all that were admitted before it.
#[must_use]
pub fn admit(pod: &Arc<Pod>, context: &Context) -> Admission {
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
    decide(pod, &others, &context.config.allocatable)
}

fn decide(pod: &Pod, others: &[Arc<Pod>], allocatable: &ResourceList) -> Admission {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let mut used = ResourceList::new();
    let specs: Vec<&PodSpec> = others.iter().filter_map(|other| other.spec.as_ref()).collect();
    for other in &specs {
        resources::add(&mut used, &resources::requests(other));
    }
    let count = Quantity::new(i64::try_from(specs.len()).unwrap_or(i64::MAX), api::quantity::Format::DecimalSi);
    let one = Quantity::new(1, api::quantity::Format::DecimalSi);
    if let Some(max) = allocatable.get("pods").filter(|max| count.plus(&one) > **max) {
        return insufficient("pods", &one, &count, max);
    }
    for (name, request) in resources::requests(spec).iter().filter(|(_, request)| !request.is_zero()) {
        let have = allocatable.get(name).copied().unwrap_or(Quantity::ZERO);
        let taken = used.get(name).copied().unwrap_or(Quantity::ZERO);
        if taken.plus(request) > have {
            return insufficient(name, request, &taken, &have);
        }
    }
    if ports_clash(spec, &specs) {
        return Admission::Rejected {
            reason: "NodePorts".to_owned(),
            message: "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
                .to_owned(),
        };
    }
    Admission::Admitted
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

    fn node() -> ResourceList {
        [("cpu".to_owned(), "2".parse().unwrap()), ("pods".to_owned(), "2".parse().unwrap())].into()
    }

    #[test]
    fn what_fits_is_admitted() {
        assert_eq!(decide(&pod("1", Some(80)), &[pod("1", Some(81))], &node()), Admission::Admitted);
    }

    #[test]
    fn refusals_are_worded_as_the_kubelet_does() {
        let refused = |answer| match answer {
            Admission::Rejected { reason, message } => (reason, message),
            Admission::Admitted => panic!("admitted"),
        };
        let (reason, message) = refused(decide(&pod("1500m", None), &[pod("1", None)], &node()));
        assert_eq!(reason, "OutOfcpu");
        assert!(message.ends_with("requested: 1500, used: 1000, capacity: 2000"), "{message}");
        assert_eq!(refused(decide(&pod("1m", None), &[pod("0", None), pod("0", None)], &node())).0, "OutOfpods");
        assert_eq!(refused(decide(&pod("1m", Some(80)), &[pod("1m", Some(80))], &node())).0, "NodePorts");
    }
}
