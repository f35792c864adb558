//! PodResizeValidator: a pod is resized only to what its node could hold (`plugin/pkg/admission/podresize`).

use api::resources::{self, ResourceList};
use k8s_openapi::api::core::v1::PodSpec;
use serde_json::{Value, json};

use crate::{Context, Operation, Plugin, Refusal, Request, text};

pub struct PodResizeValidator;

impl Plugin for PodResizeValidator {
    fn validate(&self, context: &Context, request: &Request<'_>, pod: Option<&Value>) -> Result<(), Refusal> {
        let is_ours = request.is("", "pods", "resize") && request.operation == Operation::Update;
        let (Some(pod), Some(old)) = (pod.filter(|_| is_ours), request.old) else { return Ok(()) };
        let generation = |pod: &Value| pod.pointer("/metadata/generation").cloned();
        let name = text(pod, "/spec/nodeName");
        if name.is_empty() || generation(pod) == generation(old) {
            return Ok(());
        }
        let Some(node) = context.lookup.get("", "nodes", "", name) else {
            return Err(request.forbidden(Some(pod), &format!("node {name:?} not found")));
        };
        let refused = |reason: &str, why: &str| {
            let mut refusal = request.forbidden(Some(pod), why);
            refusal.details["causes"] = json!([{ "reason": reason }]);
            Err(refusal)
        };
        if let Some(os) = node.pointer("/metadata/labels/kubernetes.io~1os").and_then(Value::as_str)
            && os != "linux"
        {
            let why = format!("pod resize is only supported on linux nodes, node {name:?} is {os:?}");
            return refused("UnsupportedPlatform", &why);
        }
        match too_much(pod, &node) {
            Some(why) => refused("NodeCapacity", &why),
            None => Ok(()),
        }
    }
}

/// What the pod asks for beyond all that the node can give.
fn too_much(pod: &Value, node: &Value) -> Option<String> {
    let spec: PodSpec = serde_json::from_value(pod["spec"].clone()).ok()?;
    let allocatable = node.pointer("/status/allocatable").cloned().unwrap_or_default();
    let allocatable = serde_json::from_value(allocatable).ok();
    let (requests, allocatable) = (resources::requests(&spec), resources::read(allocatable.as_ref()));
    let amount = |list: &ResourceList, name| list.get(name).copied().unwrap_or(api::quantity::Quantity::ZERO);
    let beyond = ["cpu", "memory"].into_iter().filter_map(|name| {
        let (asked, most) = (amount(&requests, name), amount(&allocatable, name));
        let number = |q: api::quantity::Quantity| if name == "cpu" { q.milli_value() } else { q.value() };
        (asked > most).then(|| format!("{name}, requested: {}, allocatable: {}", number(asked), number(most)))
    });
    let beyond: Vec<String> = beyond.collect();
    (!beyond.is_empty()).then(|| format!("node didn't have enough allocatable resources: {}", beyond.join("; ")))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::Cluster;

    fn pod(cpu: &str, generation: i64, node: &str) -> Value {
        let container = json!({ "name": "c", "resources": { "requests": { "cpu": cpu, "memory": "1Gi" } } });
        let spec = json!({ "nodeName": node, "containers": [container] });
        json!({ "metadata": { "name": "p", "namespace": "default", "generation": generation }, "spec": spec })
    }

    #[test]
    fn no_more_than_the_node_has() {
        let status = json!({ "allocatable": { "cpu": "2", "memory": "1Gi" } });
        let cluster = Cluster::with("nodes", "", "small", json!({ "status": status }));
        let resized = |from: Value, to: Value| cluster.resized(&from, &to);
        assert!(resized(pod("1", 1, "small"), pod("2", 2, "small")).is_ok());
        // What is too much already may stay, and what runs nowhere yet is the scheduler's matter.
        assert!(resized(pod("3", 1, "small"), pod("3", 1, "small")).is_ok());
        assert!(resized(pod("1", 1, ""), pod("9", 2, "")).is_ok());
        let refusal = resized(pod("1", 1, "small"), pod("2001m", 2, "small")).unwrap_err();
        assert_eq!(
            refusal.message,
            "pods \"p\" is forbidden: node didn't have enough allocatable resources: cpu, requested: 2001, allocatable: 2000"
        );
        assert_eq!((refusal.code, &refusal.details["causes"][0]["reason"]), (403, &json!("NodeCapacity")));
        assert!(resized(pod("1", 1, "gone"), pod("2", 2, "gone")).unwrap_err().message.contains("not found"));
    }
}
