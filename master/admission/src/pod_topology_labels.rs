//! PodTopologyLabels: a pod gets the zone and the region of its node as labels, when it is bound or made for a node
//! (KEP-4742; `plugin/pkg/admission/podtopologylabels`).

use serde_json::{Value, json};

use crate::{Context, Operation, Plugin, Refusal, Request, text};

const LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

pub struct PodTopologyLabels;

impl Plugin for PodTopologyLabels {
    fn admit(&self, context: &Context, request: &Request<'_>, object: &mut Value) -> Result<(), Refusal> {
        if (request.group, request.resource, request.operation) != ("", "pods", Operation::Create) {
            return Ok(());
        }
        let node = match request.subresource {
            "" => text(object, "/spec/nodeName"),
            "binding" if text(object, "/target/kind") == "Node" => text(object, "/target/name"),
            _ => return Ok(()),
        };
        // A node that is not there has no labels.
        let Some(node) = context.lookup.get("", "nodes", "", node) else { return Ok(()) };
        for label in LABELS {
            if let Some(value) = node["metadata"]["labels"][label].as_str() {
                object["metadata"]["labels"][label] = json!(value);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::{Cluster, admin, on};
    use crate::{Operation, Request};

    #[test]
    fn bindings_and_pods_of_a_node_have_its_topology() {
        let labels = json!({ "topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r", "x": "y" });
        let cluster = Cluster::with("nodes", "", "far", json!({ "metadata": { "labels": labels } }));
        let user = admin();
        let labels = |subresource: &str, mut object: Value| {
            let request = on(&user, Operation::Create, "pods", "default", "p");
            cluster.chain().admit(&Request { subresource, ..request }, &mut object).unwrap();
            object["metadata"]["labels"].clone()
        };
        let wanted = json!({ "topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r" });
        assert_eq!(labels("binding", json!({ "target": { "kind": "Node", "name": "far" } })), wanted);
        assert_eq!(labels("binding", json!({ "target": { "kind": "Node", "name": "n1" } })), Value::Null);
        let pod = json!({ "metadata": { "labels": { "topology.kubernetes.io/zone": "mine" } }, "spec": { "nodeName": "far" } });
        assert_eq!(labels("", pod), wanted);
        assert_eq!(labels("", json!({ "spec": {} })), Value::Null);
    }
}
