//! TaintNodesByCondition: a new node takes no pods until the node controller has seen it ready.

use serde_json::{Value, json};

use crate::{Context, Operation, Plugin, Refusal, Request, items, text};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const NO_SCHEDULE: &str = "NoSchedule";

pub struct TaintNodesByCondition;

impl Plugin for TaintNodesByCondition {
    fn admit(&self, _: &Context, request: &Request<'_>, node: &mut Value) -> Result<(), Refusal> {
        if !request.is("", "nodes", "") || request.operation != Operation::Create {
            return Ok(());
        }
        let tainted = items(node, "/spec/taints")
            .any(|taint| text(taint, "/key") == NOT_READY && text(taint, "/effect") == NO_SCHEDULE);
        if !tainted {
            let taint = json!({ "key": NOT_READY, "effect": NO_SCHEDULE });
            let taints = items(node, "/spec/taints").cloned().chain([taint]).collect();
            node["spec"]["taints"] = taints;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::Operation::{Create, Update};
    use crate::testing::{Cluster, node_user, on};

    #[test]
    fn a_new_node_is_tainted_once() {
        let cluster = Cluster::new();
        let user = node_user("n1");
        let mut node = json!({ "metadata": { "name": "n1" } });
        for _ in 0..2 {
            cluster.chain().admit(&on(&user, Create, "nodes", "", "n1"), &mut node).unwrap();
        }
        assert_eq!(node["spec"]["taints"], json!([{ "key": "node.kubernetes.io/not-ready", "effect": "NoSchedule" }]));
    }

    #[test]
    fn an_update_is_left_alone() {
        let cluster = Cluster::new();
        let user = node_user("n1");
        let mut node = json!({ "metadata": { "name": "n1" } });
        let old = node.clone();
        let request = crate::Request { old: Some(&old), ..on(&user, Update, "nodes", "", "n1") };
        cluster.chain().admit(&request, &mut node).unwrap();
        assert_eq!(node, old);
    }
}
