//! NodeDeclaredFeatureValidator: a pod changes only in ways that its node says it can follow (KEP-5328,
//! `plugin/pkg/admission/nodedeclaredfeatures`).

use serde_json::Value;

use crate::{Context, Operation, Plugin, Refusal, Request, items, text};

pub struct NodeDeclaredFeatureValidator;

impl Plugin for NodeDeclaredFeatureValidator {
    fn validate(&self, context: &Context, request: &Request<'_>, pod: Option<&Value>) -> Result<(), Refusal> {
        let is_pod = request.is("", "pods", "") || request.is("", "pods", "resize");
        let is_ours = is_pod && request.operation == Operation::Update;
        let (Some(pod), Some(old)) = (pod.filter(|_| is_ours), request.old) else { return Ok(()) };
        let generation = |pod: &Value| pod.pointer("/metadata/generation").cloned();
        let name = text(pod, "/spec/nodeName");
        if name.is_empty() || generation(pod) == generation(old) {
            return Ok(());
        }
        let required = required(pod, old);
        if required.is_empty() {
            return Ok(());
        }
        let Some(node) = context.lookup.get("", "nodes", "", name) else {
            return Err(request.forbidden(Some(pod), &format!("node {name:?} not found")));
        };
        let has = |feature: &&str| items(&node, "/status/declaredFeatures").any(|has| has.as_str() == Some(feature));
        let missing: Vec<&str> = required.into_iter().filter(|feature| !has(feature)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let missing = missing.join(", ");
        let why = format!("pod update requires features {missing} which are not available on node {name:?}");
        Err(request.forbidden(Some(pod), &why))
    }
}

/// What a node must be able to do to follow the change.
fn required(pod: &Value, old: &Value) -> Vec<&'static str> {
    let of_pod = |pod: &Value| pod.pointer("/spec/resources").cloned();
    let pod_level = (of_pod(pod) != of_pod(old)).then_some("InPlacePodLevelResourcesVerticalScaling");
    let mut init = items(old, "/spec/initContainers").zip(items(pod, "/spec/initContainers"));
    let is_resized = init.any(|(old, new)| old["restartPolicy"] != "Always" && old["resources"] != new["resources"]);
    pod_level.into_iter().chain(is_resized.then_some("InPlacePodVerticalScalingInitContainers")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::Cluster;

    fn pod(generation: i64, of_pod: &str, of_init: &str, policy: Option<&str>) -> Value {
        let requests = |cpu: &str| json!({ "requests": { "cpu": cpu } });
        let init = json!([{ "name": "i", "restartPolicy": policy, "resources": requests(of_init) }]);
        let spec = json!({ "nodeName": "old", "resources": requests(of_pod), "initContainers": init });
        json!({ "metadata": { "name": "p", "generation": generation }, "spec": spec })
    }

    #[test]
    fn no_change_that_the_node_cannot_follow() {
        let status = json!({
            "allocatable": { "cpu": "4", "memory": "1Gi" },
            "declaredFeatures": ["InPlacePodVerticalScalingInitContainers"],
        });
        let cluster = Cluster::with("nodes", "", "old", json!({ "status": status }));
        let resized = |to: Value| cluster.resized(&pod(1, "1", "1", None), &to);
        assert!(resized(pod(2, "1", "500m", None)).is_ok(), "it can do that");
        let refusal = resized(pod(2, "2", "1", None)).unwrap_err();
        assert_eq!(
            refusal.message,
            "pods \"p\" is forbidden: pod update requires features InPlacePodLevelResourcesVerticalScaling which are not \
             available on node \"old\""
        );
        let unable = Cluster::with("nodes", "", "old", json!({ "status": { "allocatable": { "cpu": "4" } } }));
        let sidecar = |cpu: &str, generation| pod(generation, "1", cpu, Some("Always"));
        assert!(unable.resized(&sidecar("1", 1), &sidecar("500m", 2)).is_ok(), "any node can resize sidecars");
        let refusal = unable.resized(&pod(1, "1", "1", None), &pod(2, "1", "2", None)).unwrap_err();
        assert!(refusal.message.contains("InPlacePodVerticalScalingInitContainers"), "{}", refusal.message);
    }
}
