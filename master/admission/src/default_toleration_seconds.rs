//! DefaultTolerationSeconds: a pod that says nothing about it stays five minutes on a node that is not ready or unreachable.

use serde_json::{Value, json};

use crate::{Context, Operation, Plugin, Refusal, Request, items, text};

const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];
const NO_EXECUTE: &str = "NoExecute";
const SECONDS: i64 = 300;

pub struct DefaultTolerationSeconds;

impl Plugin for DefaultTolerationSeconds {
    fn admit(&self, _: &Context, request: &Request<'_>, pod: &mut Value) -> Result<(), Refusal> {
        let is_write = matches!(request.operation, Operation::Create | Operation::Update);
        if !request.is("", "pods", "") || !is_write {
            return Ok(());
        }
        for taint in TAINTS {
            if items(pod, "/spec/tolerations").any(|toleration| tolerates(toleration, taint)) {
                continue;
            }
            let toleration =
                json!({ "key": taint, "operator": "Exists", "effect": NO_EXECUTE, "tolerationSeconds": SECONDS });
            let tolerations = items(pod, "/spec/tolerations").cloned().chain([toleration]).collect();
            pod["spec"]["tolerations"] = tolerations;
        }
        Ok(())
    }
}

/// An empty key or effect matches all.
fn tolerates(toleration: &Value, taint: &str) -> bool {
    let key = text(toleration, "/key");
    let effect = text(toleration, "/effect");
    (key == taint || key.is_empty()) && (effect == NO_EXECUTE || effect.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::{Cluster, admin, on};

    fn tolerations(before: Value) -> Vec<String> {
        let mut pod = json!({ "metadata": { "name": "p" }, "spec": { "tolerations": before } });
        let (cluster, user) = (Cluster::new(), admin());
        DefaultTolerationSeconds
            .admit(cluster.context(), &on(&user, Operation::Create, "pods", "", "p"), &mut pod)
            .unwrap();
        items(&pod, "/spec/tolerations").map(|t| format!("{}:{}", text(t, "/key"), t["tolerationSeconds"])).collect()
    }

    #[test]
    fn adds_what_is_not_tolerated_yet() {
        let both = ["node.kubernetes.io/not-ready:300", "node.kubernetes.io/unreachable:300"];
        assert_eq!(tolerations(json!(null)), both);
        assert_eq!(tolerations(json!([{ "operator": "Exists" }])), [":null"]);
        assert_eq!(
            tolerations(
                json!([{ "key": "node.kubernetes.io/not-ready", "operator": "Exists", "tolerationSeconds": 5 }])
            ),
            ["node.kubernetes.io/not-ready:5", "node.kubernetes.io/unreachable:300"]
        );
        assert_eq!(tolerations(json!([{ "key": TAINTS[0], "operator": "Exists", "effect": "NoSchedule" }])).len(), 3);
    }
}
