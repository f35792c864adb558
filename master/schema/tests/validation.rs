//! What upstream says of bad objects, word for word.
// Helpers of tests: clippy.toml excepts only the test functions themselves.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use schema::{FieldValidation, Kind, Part, Registry};
use serde_json::{Value, json};

fn kind(name: &str) -> &'static Kind {
    let (api_version, kind) = name.split_once(' ').unwrap();
    Registry::builtin().by_kind(api_version, kind).unwrap()
}

/// Decoded, defaulted and prepared as the API server does it.
fn prepared(kind: &Kind, object: Value) -> Value {
    let mut object = kind.decode_value(object, FieldValidation::Strict).unwrap().value;
    kind.default(&mut object);
    kind.prepare_create(&mut object);
    object
}

fn update_errors(kind: &Kind, part: Part, object: Value, old: &Value) -> Vec<String> {
    let mut object = kind.decode_value(object, FieldValidation::Strict).unwrap().value;
    kind.default(&mut object);
    kind.prepare_update(part, &mut object, old);
    kind.validate_update(part, &object, old).iter().map(ToString::to_string).collect()
}

#[test]
fn texts_of_new_objects() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("golden/validation.json")).unwrap();
    let mut wrong = Vec::new();
    for case in cases {
        let kind = kind(case["kind"].as_str().unwrap());
        let object = prepared(kind, case["object"].clone());
        let found: Vec<String> = kind.validate_create(&object).iter().map(ToString::to_string).collect();
        let expected: Vec<String> = serde_json::from_value(case["errors"].clone()).unwrap();
        if found != expected {
            wrong.push(format!("{}\n  expected {expected:#?}\n  found {found:#?}", case["case"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn pod(image: &str, node: &str) -> Value {
    json!({
        "metadata": { "name": "p", "namespace": "default", "uid": "u", "resourceVersion": "1" },
        "spec": { "nodeName": node, "containers": [{ "name": "a", "image": image }] },
    })
}

#[test]
fn pods_change_their_images_only() {
    let kind = kind("v1 Pod");
    let old = prepared(kind, pod("a:1", "n1"));
    assert_eq!(update_errors(kind, Part::Main, pod("a:1", "n1"), &old), Vec::<String>::new());
    let mut changed = pod("a:2", "n1");
    changed["spec"]["containers"][0]["imagePullPolicy"] = "IfNotPresent".into();
    assert_eq!(update_errors(kind, Part::Main, changed, &old), Vec::<String>::new());
    let errors = update_errors(kind, Part::Main, pod("a:1", "n2"), &old);
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0].starts_with(
            "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,\
             `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
             tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n"
        ),
        "{errors:?}"
    );
    let mut two = pod("a:1", "n1");
    two["spec"]["containers"] = json!([{ "name": "a", "image": "a:1" }, { "name": "b", "image": "b" }]);
    assert_eq!(
        update_errors(kind, Part::Main, two, &old),
        ["spec.containers: Forbidden: pod updates may not add or remove containers"]
    );
}

#[test]
fn selectors_roles_and_identities_are_for_good() {
    let deployment = |label: &str| {
        json!({
            "metadata": { "name": "d", "namespace": "default", "uid": "u" },
            "spec": {
                "selector": { "matchLabels": { "app": label } },
                "template": {
                    "metadata": { "labels": { "app": label } },
                    "spec": { "containers": [{ "name": "a", "image": "i" }] },
                },
            },
        })
    };
    let apps = kind("apps/v1 Deployment");
    let old = prepared(apps, deployment("x"));
    assert_eq!(
        update_errors(apps, Part::Main, deployment("y"), &old),
        ["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"y\"}}: field is immutable"]
    );
    let mut other = deployment("x");
    other["metadata"]["uid"] = "v".into();
    assert_eq!(
        update_errors(apps, Part::Main, other, &old),
        ["metadata.uid: Invalid value: \"v\": field is immutable"]
    );

    let binding = |role: &str| {
        json!({
            "metadata": { "name": "b", "namespace": "default" },
            "roleRef": { "kind": "Role", "name": role },
        })
    };
    let rbac = kind("rbac.authorization.k8s.io/v1 RoleBinding");
    let old = prepared(rbac, binding("x"));
    assert_eq!(
        update_errors(rbac, Part::Main, binding("y"), &old),
        [
            "roleRef: Invalid value: {\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"Role\",\"name\":\"y\"}: cannot \
          change roleRef"
        ]
    );
}

#[test]
fn frozen_data_stays() {
    let kind = kind("v1 ConfigMap");
    let map = |value: &str, immutable: bool| {
        json!({
            "metadata": { "name": "c", "namespace": "default" },
            "data": { "k": value },
            "immutable": immutable,
        })
    };
    let old = prepared(kind, map("1", true));
    assert_eq!(
        update_errors(kind, Part::Main, map("2", false), &old),
        [
            "immutable: Forbidden: field is immutable when `immutable` is set",
            "data: Forbidden: field is immutable when `immutable` is set"
        ]
    );
}

#[test]
fn what_is_being_deleted_takes_no_new_finalizer() {
    let kind = kind("v1 ConfigMap");
    let mut old = prepared(kind, json!({ "metadata": { "name": "c", "namespace": "default" } }));
    old["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    let new = json!({ "metadata": { "name": "c", "namespace": "default", "finalizers": ["x.io/y"] } });
    assert_eq!(
        update_errors(kind, Part::Main, new, &old),
        ["metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new \
          finalizers []string{\"x.io/y\"}"]
    );
}
