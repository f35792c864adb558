//! RuntimeClass: a pod takes over the overhead and the placement of its class
//! (`plugin/pkg/admission/runtimeclass`).

use serde_json::{Map, Value, json};

use crate::{Context, Operation, Plugin, Refusal, Request, items, text};

pub struct RuntimeClass;

impl Plugin for RuntimeClass {
    fn admit(&self, context: &Context, request: &Request<'_>, pod: &mut Value) -> Result<(), Refusal> {
        let Some(class) = class_of(context, request, pod)? else { return Ok(()) };
        let fixed = fixed(&class);
        if !fixed.is_null() {
            let own = &pod["spec"]["overhead"];
            if own.as_object().is_some_and(|own| !own.is_empty()) && *own != fixed {
                let why = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
                return Err(request.forbidden(Some(pod), why));
            }
            pod["spec"]["overhead"] = fixed;
        }
        place(request, pod, &class["scheduling"])
    }

    fn validate(&self, context: &Context, request: &Request<'_>, pod: Option<&Value>) -> Result<(), Refusal> {
        let Some(pod) = pod.filter(|_| is_ours(request)) else { return Ok(()) };
        let wanted = class_of(context, request, pod)?.map_or(Value::Null, |class| fixed(&class));
        let own = &pod["spec"]["overhead"];
        let why = match wanted {
            Value::Null if !own.is_null() => {
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
            }
            wanted if wanted != *own => "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
            _ => return Ok(()),
        };
        Err(request.forbidden(Some(pod), why))
    }
}

fn is_ours(request: &Request<'_>) -> bool {
    request.is("", "pods", "") && request.operation == Operation::Create
}

/// The class that a new pod names.
fn class_of(context: &Context, request: &Request<'_>, pod: &Value) -> Result<Option<Value>, Refusal> {
    let name = text(pod, "/spec/runtimeClassName");
    if name.is_empty() || !is_ours(request) {
        return Ok(None);
    }
    match context.lookup.get("node.k8s.io", "runtimeclasses", "", name) {
        Some(class) => Ok(Some(class)),
        None => Err(request.forbidden(Some(pod), &format!("pod rejected: RuntimeClass {name:?} not found"))),
    }
}

fn fixed(class: &Value) -> Value {
    class.pointer("/overhead/podFixed").cloned().unwrap_or_default()
}

/// Nodes that run the class are selected, and their taints tolerated.
fn place(request: &Request<'_>, pod: &mut Value, scheduling: &Value) -> Result<(), Refusal> {
    let wanted = scheduling["nodeSelector"].as_object();
    let mut selector: Map<String, Value> = pod["spec"]["nodeSelector"].as_object().cloned().unwrap_or_default();
    for (key, value) in wanted.into_iter().flatten() {
        if let Some(own) = selector.get(key).filter(|own| *own != value) {
            let shown = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let why = format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {}; pod.spec.nodeSelector[{key}] = {}",
                shown(value),
                shown(own)
            );
            return Err(request.forbidden(Some(pod), &why));
        }
        selector.insert(key.clone(), value.clone());
    }
    if wanted.is_some_and(|wanted| !wanted.is_empty()) {
        pod["spec"]["nodeSelector"] = Value::Object(selector);
    }
    let mut tolerations: Vec<Value> = items(pod, "/spec/tolerations").cloned().collect();
    let before = tolerations.len();
    for toleration in items(scheduling, "/tolerations") {
        if !tolerations.contains(toleration) {
            tolerations.push(toleration.clone());
        }
    }
    if tolerations.len() > before {
        pod["spec"]["tolerations"] = json!(tolerations);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::Cluster;

    #[test]
    fn a_pod_takes_over_what_its_class_says() {
        let class = json!({
            "handler": "h", "overhead": { "podFixed": { "cpu": "250m" } },
            "scheduling": { "nodeSelector": { "a": "b" }, "tolerations": [{ "key": "k", "operator": "Exists" }] },
        });
        let cluster = Cluster::with("runtimeclasses", "", "small", class);
        let pod = |spec: serde_json::Value| json!({ "metadata": { "name": "p" }, "spec": spec });
        let admitted = cluster.created("pods", pod(json!({ "runtimeClassName": "small" }))).unwrap();
        assert_eq!(admitted["spec"]["overhead"], json!({ "cpu": "250m" }));
        assert_eq!(admitted["spec"]["nodeSelector"], json!({ "a": "b" }));
        assert!(
            admitted["spec"]["tolerations"].as_array().unwrap().contains(&json!({ "key": "k", "operator": "Exists" }))
        );
        let refusal = |spec| cluster.created("pods", pod(spec)).unwrap_err().message;
        assert!(
            refusal(json!({ "runtimeClassName": "none" })).ends_with("pod rejected: RuntimeClass \"none\" not found")
        );
        let text = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
        assert!(refusal(json!({ "runtimeClassName": "small", "overhead": { "cpu": "1" } })).ends_with(text));
        let text = "conflict: runtimeClass.scheduling.nodeSelector[a] = b; pod.spec.nodeSelector[a] = c";
        assert!(refusal(json!({ "runtimeClassName": "small", "nodeSelector": { "a": "c" } })).ends_with(text));
        let text = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
        assert!(refusal(json!({ "overhead": { "cpu": "1" } })).ends_with(text));
    }
}
