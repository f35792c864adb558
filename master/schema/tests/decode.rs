//! Reading bodies: types, unknown and duplicate fields, canonical values, and what Go's encoder leaves out or adds.
// Helpers of tests: clippy.toml excepts only the test functions themselves.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use schema::{DecodeError, FieldValidation, Kind, Registry};
use serde_json::{Value, json};

fn kind(api_version: &str, kind: &str) -> &'static Kind {
    Registry::builtin().by_kind(api_version, kind).unwrap()
}

fn decode(kind: &Kind, object: Value) -> Value {
    kind.decode_value(object, FieldValidation::Strict).unwrap().value
}

#[test]
fn unknown_and_duplicate_fields_are_named() {
    let pod = kind("v1", "Pod");
    let body = br#"{"metadata":{"name":"p","name":"q","labels":{"a":"1","a":"2"}},"spec":{"foo":1,"containers":[{"name":"a","imag":"i"}]}}"#;
    let Err(DecodeError::Strict(found)) = pod.decode(body, FieldValidation::Strict) else { panic!("not strict") };
    assert_eq!(
        found,
        [
            r#"duplicate field "metadata.name""#,
            r#"duplicate field "metadata.labels.a""#,
            r#"unknown field "spec.foo""#,
            r#"unknown field "spec.containers[0].imag""#,
        ]
    );
    let decoded = pod.decode(body, FieldValidation::Warn).unwrap();
    assert_eq!(decoded.warnings, found);
    assert_eq!(decoded.value["metadata"]["name"], "q");
    assert_eq!(decoded.value["spec"]["foo"], Value::Null);
    assert!(pod.decode(body, FieldValidation::Ignore).unwrap().warnings.is_empty());
    let error = pod.decode(br#"{"spec":{"foo":1}}"#, FieldValidation::Strict).unwrap_err();
    assert_eq!(error.to_string(), r#"strict decoding error: unknown field "spec.foo""#);
}

#[test]
fn what_is_wrong_is_told_once_and_in_the_order_of_the_text() {
    let body = br#"{"spec":{"unknownField":"foo","replicas":1,"replicas":2,"replicas":3,"a":1}}"#;
    let error = kind("apps/v1", "Deployment").decode(body, FieldValidation::Strict).unwrap_err();
    let told = r#"unknown field "spec.unknownField", duplicate field "spec.replicas", unknown field "spec.a""#;
    assert_eq!(error.to_string(), format!("strict decoding error: {told}"));
}

#[test]
fn wrong_types_are_told_as_go_tells_them() {
    let deployment = kind("apps/v1", "Deployment");
    for (body, text) in [
        (
            json!({ "spec": { "replicas": "3" } }),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            json!({ "spec": { "template": { "spec": { "containers": [{ "image": 1 }] } } } }),
            "json: cannot unmarshal number into Go struct field Container.spec.template.spec.containers.image of type \
             string",
        ),
        (
            json!({ "spec": { "template": { "spec": { "containers": { "name": "a" } } } } }),
            "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type \
             []v1.Container",
        ),
        (
            json!({ "metadata": { "labels": { "a": 1 } } }),
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (json!([]), "json: cannot unmarshal array into Go value of type v1.Deployment"),
        (
            json!({ "metadata": { "creationTimestamp": "today" } }),
            "parsing time \"today\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"today\" as \"2006\"",
        ),
        (
            json!({ "spec": { "template": { "spec": { "containers": [{ "resources": { "limits": { "cpu": "a" } } }] } } } }),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
    ] {
        let error = deployment.decode_value(body.clone(), FieldValidation::Warn).unwrap_err();
        assert_eq!(error.to_string(), text, "{body}");
    }
    let secret = kind("v1", "Secret");
    let error = secret.decode_value(json!({ "data": { "a": "%%%%" } }), FieldValidation::Warn).unwrap_err();
    assert_eq!(error.to_string(), "illegal base64 data at input byte 0");
    assert!(matches!(secret.decode(b"{", FieldValidation::Warn), Err(DecodeError::Syntax(_))));
}

#[test]
fn values_become_canonical() {
    let pod = decode(
        kind("v1", "Pod"),
        json!({
            "metadata": { "creationTimestamp": "2026-01-01T02:00:00+02:00" },
            "spec": { "containers": [{ "resources": { "limits": { "cpu": "0.5", "memory": "1024Mi", "x.io/y": 2 } } }] },
        }),
    );
    assert_eq!(pod["metadata"]["creationTimestamp"], "2026-01-01T00:00:00Z");
    let limits = &pod["spec"]["containers"][0]["resources"]["limits"];
    assert_eq!(*limits, json!({ "cpu": "500m", "memory": "1Gi", "x.io/y": "2" }));
    let lease =
        decode(kind("coordination.k8s.io/v1", "Lease"), json!({ "spec": { "renewTime": "2026-01-01T00:00:00Z" } }));
    assert_eq!(lease["spec"]["renewTime"], "2026-01-01T00:00:00.000000Z");
}

#[test]
fn zero_values_go_and_come_as_in_go() {
    let pod = decode(
        kind("v1", "Pod"),
        json!({
            "spec": {
                "hostNetwork": false,
                "nodeName": "",
                "volumes": [],
                "enableServiceLinks": false,
                "securityContext": {},
                "affinity": null,
                "containers": [{ "name": "a" }],
            },
        }),
    );
    assert_eq!(
        pod,
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {},
            "spec": {
                "enableServiceLinks": false,
                "securityContext": {},
                "containers": [{ "name": "a", "resources": {} }],
            },
            "status": {},
        })
    );
    let service = decode(kind("v1", "Service"), json!({ "spec": { "ports": [{ "port": 80 }] } }));
    assert_eq!(service["status"], json!({ "loadBalancer": {} }));
    assert_eq!(service["spec"]["ports"][0], json!({ "port": 80, "targetPort": 0 }));
}
