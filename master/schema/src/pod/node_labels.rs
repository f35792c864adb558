//! Labels of nodes that have become others (upstream's `pkg/api/node`).

use serde_json::Value;

use crate::errors::Path;
use crate::names::label_value;
use crate::value::Fields;
use crate::warnings::Warnings;

/// What is said of a label that is deprecated.
pub(crate) fn deprecated(label: &str) -> Option<&'static str> {
    Some(match label {
        "beta.kubernetes.io/arch" => "deprecated since v1.14; use \"kubernetes.io/arch\" instead",
        "beta.kubernetes.io/os" => "deprecated since v1.14; use \"kubernetes.io/os\" instead",
        "failure-domain.beta.kubernetes.io/region" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead"
        }
        "failure-domain.beta.kubernetes.io/zone" => {
            "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead"
        }
        "beta.kubernetes.io/instance-type" => {
            "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead"
        }
        "app.kubernetes.io/created-by" => "deprecated since v1.9",
        "scheduler.alpha.kubernetes.io/preferAvoidPods" => "deprecated since v1.22; use Taints and Tolerations instead",
        "node-role.kubernetes.io/master" => "use \"node-role.kubernetes.io/control-plane\" instead",
        _ => return None,
    })
}

/// Upstream's `GetWarningsForNodeSelectorTerm`; of terms that only prefer, validation leaves the values unchecked.
pub(crate) fn term(term: &Value, is_preference: bool, path: &Path, warnings: &mut Warnings) {
    let at = path.child("matchExpressions");
    for (index, expression) in term.list("matchExpressions").iter().enumerate() {
        let path = at.index(index);
        let key = expression.text("key");
        if let Some(text) = deprecated(key) {
            warnings.of(&path.child("key"), format_args!("{key} is {text}"));
        }
        if !is_preference {
            continue;
        }
        let values = path.child("values");
        for (index, value) in expression.list("values").iter().filter_map(Value::as_str).enumerate() {
            for text in label_value(value) {
                warnings.of(&values.index(index), format_args!("{value} is invalid, {text}"));
            }
        }
    }
}

/// Upstream's `GetWarningsForNodeSelector`: a label selector of nodes.
pub(crate) fn selector(selector: &Value, path: &Path, warnings: &mut Warnings) {
    term(selector, false, path, warnings);
    let at = path.child("matchLabels");
    for (label, _) in selector.entries("matchLabels") {
        if let Some(text) = deprecated(label) {
            warnings.of(&at.child(label), text);
        }
    }
}
