use expressions::Ty;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use serde_json::{Value, json};

use super::plan::{Checked, GroupVersionKind, choose, is_due, resources, warnings};

fn policy(rules: Value, validations: Value) -> ValidatingAdmissionPolicy {
    serde_json::from_value(json!({
        "metadata": { "name": "p", "generation": 2 },
        "spec": {
            "matchConstraints": { "resourceRules": rules }, "validations": validations,
            "variables": [{ "name": "count", "expression": "object.spec.replicas" }],
        },
        "status": { "observedGeneration": 1 },
    }))
    .unwrap()
}

fn rule(groups: &[&str], resources: &[&str]) -> Value {
    json!({ "apiGroups": groups, "apiVersions": ["v1"], "resources": resources, "operations": ["*"] })
}

fn kind(group: &str, kind: &str) -> GroupVersionKind {
    GroupVersionKind { group: group.into(), version: "v1".into(), kind: kind.into() }
}

#[test]
fn what_does_not_fit_is_told_for_each_type() {
    let policy = policy(
        json!([]),
        json!([
            { "expression": "variables.count > 1" },
            { "expression": "object.spec.replicas > '1'", "messageExpression": "'got ' + object.spec.replicas" },
        ]),
    );
    let spec = Ty::object("Deployment.spec", &[("replicas", Ty::Int)]);
    let deployment = Ty::object("Deployment", &[("spec", spec)]);
    let kinds = vec![(kind("apps", "Deployment"), deployment.clone()), (kind("", "Other"), deployment)];
    let found = warnings(&policy, &Checked { kinds, params: None });
    let fields: Vec<&str> = found.iter().map(|one| one.field_ref.as_str()).collect();
    assert_eq!(fields, ["spec.validations[1].expression", "spec.validations[1].messageExpression"]);
    let issue = "ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, string)'\n \
                 | object.spec.replicas > '1'\n | .....................^\n";
    assert_eq!(found[0].warning, format!("apps/v1, Kind=Deployment: {issue}\n/v1, Kind=Other: {issue}"));
    assert!(is_due(&policy));
}

#[test]
fn wildcards_and_subresources_name_no_type() {
    let named = |rules: Value| resources(&policy(rules, json!([]))).iter().map(|one| one.path()).collect::<Vec<_>>();
    assert_eq!(
        named(json!([rule(&["apps", ""], &["b", "a", "a/status", "*"])])),
        ["/api/v1", "/api/v1", "/apis/apps/v1", "/apis/apps/v1",]
    );
    assert!(named(json!([rule(&["*"], &["a"])])).is_empty());
    let mut kinds = vec![kind("b", "B"), kind("a", "A"), kind("b", "B")];
    choose(&mut kinds);
    assert_eq!(kinds, [kind("a", "A"), kind("b", "B")]);
}
