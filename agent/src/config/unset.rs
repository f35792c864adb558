//! What upstream takes for "not set", and what it makes of that (`SetDefaults_KubeletConfiguration`).

use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::gates::{self, Gates};
use super::kubelet::KubeletConfiguration;
use super::validate;

/// Numbers of which 0 is no value; of those that are pointers upstream it is one.
const NOT_ZERO: [&str; 7] =
    ["eventBurst", "kubeAPIBurst", "maxOpenFiles", "maxPods", "nodeLeaseDurationSeconds", "port", "registryBurst"];
/// The one text of which empty says something: pods get no resolv.conf of the machine's.
const MAY_BE_EMPTY: &str = "resolvConf";

/// Without nulls and zero durations, which kubeadm's rendering of a configuration is full of.
pub(super) fn dropped(document: Value) -> Value {
    match document {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, value)| !value.is_null() && value != "0s")
            .map(|(name, value)| (name, dropped(value)))
            .collect(),
        other => other,
    }
}

/// Without what upstream replaces by its defaults, and with those that depend on whether another field is set.
pub(super) fn defaulted(document: Value) -> Value {
    let Value::Object(mut fields) = document else { return document };
    fields.retain(|name, value| {
        let is_empty = *value == "" && name != MAY_BE_EMPTY;
        let is_zero = *value == 0 && NOT_ZERO.contains(&name.as_str());
        !(is_empty || is_zero)
    });
    if let Some(Value::Object(authorization)) = fields.get_mut("authorization") {
        authorization.retain(|name, value| name != "mode" || *value != "");
    }
    let update = fields.get("nodeStatusUpdateFrequency").cloned();
    if let Some(update) = update.filter(|_| !fields.contains_key("nodeStatusReportFrequency")) {
        fields.insert("nodeStatusReportFrequency".into(), update);
    }
    let set = fields.get("featureGates");
    let gates = set.and_then(|gates| Gates::deserialize(gates).ok()).unwrap_or_default();
    let policy = "imagePullCredentialsVerificationPolicy";
    if !fields.contains_key(policy) && !gates::is_on(&gates, validate::IMAGES_GATE) {
        fields.insert(policy.into(), validate::IMAGES_WITHOUT_GATE.into());
    }
    Value::Object(fields)
}

/// The first field that cannot be read, and why.
pub(super) fn culprit(document: &Value) -> Option<String> {
    document.as_object()?.iter().find_map(|(name, value)| {
        let alone = Value::Object(Map::from_iter([(name.clone(), value.clone())]));
        KubeletConfiguration::deserialize(&alone).err().map(|error| format!("{name}: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn zeros_are_unset_where_upstream_has_no_pointer() {
        let document = json!({"port": 0, "maxPods": 0, "healthzPort": 0, "eventRecordQPS": 0, "address": "", "resolvConf": "",
            "authorization": {"mode": ""}, "nodeStatusUpdateFrequency": "5s"});
        assert_eq!(
            defaulted(document),
            json!({"healthzPort": 0, "eventRecordQPS": 0, "resolvConf": "", "authorization": {}, "nodeStatusUpdateFrequency": "5s",
                "nodeStatusReportFrequency": "5s"})
        );
    }

    #[test]
    fn without_its_gate_images_are_for_everybody() {
        let gate = json!({"featureGates": {"KubeletEnsureSecretPulledImages": false}});
        assert_eq!(defaulted(gate)["imagePullCredentialsVerificationPolicy"], "NeverVerify");
        assert_eq!(defaulted(json!({})), json!({}));
    }
}
