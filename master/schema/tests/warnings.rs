//! What clients are told of valid objects, word for word as upstream does.
// Helpers of tests: clippy.toml excepts only the test functions themselves.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use schema::{FieldValidation, Kind, Part, Registry};
use serde_json::{Value, json};

fn kind(name: &str) -> &'static Kind {
    let (api_version, kind) = name.split_once(' ').unwrap();
    Registry::builtin().by_kind(api_version, kind).unwrap()
}

fn decoded(kind: &Kind, object: Value) -> Value {
    let mut object = kind.decode_value(object, FieldValidation::Strict).unwrap().value;
    kind.default(&mut object);
    object
}

/// Decoded, defaulted and prepared as the API server does it.
fn made(kind: &Kind, object: Value) -> Value {
    let mut object = decoded(kind, object);
    kind.prepare_create(&mut object);
    object
}

fn of_create(kind: &Kind, object: Value) -> Vec<String> {
    let object = decoded(kind, object);
    let mut told = kind.warnings_unprepared(&object);
    let mut prepared = object;
    kind.prepare_create(&mut prepared);
    told.extend(kind.warnings(Part::Main, &prepared, None));
    told
}

fn of_update(kind: &Kind, part: Part, object: Value, old: &Value) -> Vec<String> {
    let mut object = decoded(kind, object);
    kind.prepare_update(part, &mut object, old);
    kind.warnings(part, &object, Some(old))
}

/// Each case is of a new object; of a change where there is an `old` one, of its status where it says so.
#[test]
fn texts() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("golden/warnings.json")).unwrap();
    let mut wrong = Vec::new();
    for case in cases {
        let kind = kind(case["kind"].as_str().unwrap());
        let (object, old) = (case["object"].clone(), case.get("old").map(|old| made(kind, old.clone())));
        let part = if case["part"] == "status" { Part::Status } else { Part::Main };
        let found = match old {
            Some(old) => of_update(kind, part, object, &old),
            None => of_create(kind, object),
        };
        let expected: Vec<String> = serde_json::from_value(case["warnings"].clone()).unwrap();
        if found != expected {
            wrong.push(format!("{}\n  expected {expected:#?}\n  found {found:#?}", case["case"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn pod_spec(spec: Value) -> Value {
    let mut whole = json!({ "containers": [{ "name": "a", "image": "i" }] });
    whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    whole
}

/// What makes pods from a template, by where that is.
fn makers(template: &Value) -> Vec<(&'static Kind, Value, &'static str)> {
    let labels = json!({ "app": "x" });
    let selector = json!({ "matchLabels": labels });
    let metadata = json!({ "name": "x", "namespace": "default" });
    let object = |spec: Value| json!({ "metadata": metadata, "spec": spec });
    let job = json!({ "template": template });
    vec![
        (kind("apps/v1 Deployment"), object(json!({ "selector": selector, "template": template })), "spec.template"),
        (kind("apps/v1 ReplicaSet"), object(json!({ "selector": selector, "template": template })), "spec.template"),
        (kind("apps/v1 StatefulSet"), object(json!({ "selector": selector, "template": template })), "spec.template"),
        (kind("apps/v1 DaemonSet"), object(json!({ "selector": selector, "template": template })), "spec.template"),
        (
            kind("v1 ReplicationController"),
            object(json!({ "selector": labels, "template": template })),
            "spec.template",
        ),
        (kind("v1 PodTemplate"), json!({ "metadata": metadata, "template": template }), "template"),
        (kind("batch/v1 Job"), object(job.clone()), "spec.template"),
        (
            kind("batch/v1 CronJob"),
            object(json!({ "schedule": "@daily", "jobTemplate": { "spec": job } })),
            "spec.jobTemplate.spec.template",
        ),
    ]
}

#[test]
fn templates_are_told_of_when_they_are_new_or_change() {
    let of = |spec: Value| json!({ "metadata": { "labels": { "app": "x" } }, "spec": pod_spec(spec) });
    let bad = json!({ "nodeSelector": { "beta.kubernetes.io/os": "linux" } });
    let other = json!({ "nodeSelector": { "beta.kubernetes.io/os": "windows" } });
    let changed = makers(&of(other));
    for ((kind, object, path), (_, change, _)) in makers(&of(bad)).into_iter().zip(changed) {
        let text = "deprecated since v1.14; use \"kubernetes.io/os\" instead";
        let expected = [format!("{path}.spec.nodeSelector[beta.kubernetes.io/os]: {text}")];
        let old = made(kind, object);
        assert_eq!(kind.warnings(Part::Main, &old, None), expected, "{kind:?}");
        assert_eq!(of_update(kind, Part::Main, old.clone(), &old), [""; 0], "{kind:?} unchanged");
        assert_eq!(of_update(kind, Part::Main, change, &old), expected, "{kind:?} changed");
        if kind.has_status() {
            assert_eq!(of_update(kind, Part::Status, old.clone(), &old), [""; 0], "{kind:?} status");
        }
    }
    for (kind, object, _) in makers(&of(json!({}))) {
        assert_eq!(kind.warnings(Part::Main, &made(kind, object), None), [""; 0], "{kind:?}");
    }
}

#[test]
fn nodes_keep_the_source_of_their_configuration_and_are_told_of_it() {
    let kind = kind("v1 Node");
    let node = json!({ "metadata": { "name": "n" }, "spec": { "configSource": {} }, "status": { "config": {} } });
    let mut old = made(kind, node.clone());
    assert_eq!((old["spec"].get("configSource"), old["status"].get("config")), (None, None));
    assert_eq!(of_update(kind, Part::Main, node.clone(), &old), [""; 0]);
    old["spec"]["configSource"] = json!({});
    assert_eq!(of_update(kind, Part::Main, node, &old), ["spec.configSource: the feature is removed"]);
}

#[test]
fn a_hostile_pod_makes_no_texts_without_end() {
    let kind = kind("v1 Pod");
    let ports: Vec<Value> = (0..20_000).map(|_| json!({ "containerPort": 80 })).collect();
    let spec = json!({ "containers": [{ "name": "a", "image": "i", "ports": ports }] });
    let pod = made(kind, json!({ "metadata": { "name": "p", "namespace": "default" }, "spec": spec }));
    let told = kind.warnings(Part::Main, &pod, None);
    assert_eq!(told.len(), 256);
}

#[test]
fn versions_that_are_deprecated_say_so() {
    let text = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice";
    assert_eq!(kind("v1 Endpoints").deprecation(), Some(text));
    assert_eq!(kind("discovery.k8s.io/v1 EndpointSlice").deprecation(), None);
}

#[test]
fn keys_are_those_of_their_certificates() {
    let kind = kind("v1 Secret");
    let problem = |certificate: &str, key: &str| {
        let data = json!({ "tls.crt": certificate, "tls.key": key });
        let metadata = json!({ "name": "s", "namespace": "default" });
        let secret = json!({ "metadata": metadata, "type": "kubernetes.io/tls", "stringData": data });
        kind.warnings(Part::Main, &made(kind, secret), None).join(", ")
    };
    let (rsa, ec, ed) =
        (include_str!("golden/tls/rsa.crt"), include_str!("golden/tls/ec.crt"), include_str!("golden/tls/ed.crt"));
    let (rsa_key, ec_key, other_key, ed_key) = (
        include_str!("golden/tls/rsa.pkcs8.key"),
        include_str!("golden/tls/ec.pkcs8.key"),
        include_str!("golden/tls/other.key"),
        include_str!("golden/tls/ed.key"),
    );
    for (certificate, key) in [
        (rsa, rsa_key),
        (rsa, include_str!("golden/tls/rsa.pkcs1.key")),
        (ec, ec_key),
        (ec, include_str!("golden/tls/ec.sec1.key")),
        (ed, ed_key),
        (&format!("{rsa}{ec}"), rsa_key),
    ] {
        assert_eq!(problem(certificate, key), "");
    }
    assert_eq!(problem(ec, other_key), "tls: private key does not match public key");
    for (certificate, key) in [(rsa, ec_key), (ec, rsa_key), (ed, ec_key), (rsa, ed_key)] {
        assert_eq!(problem(certificate, key), "tls: private key type does not match public key type");
    }
    assert_eq!(problem(rsa, "x"), "tls: failed to find any PEM data in key input");
    assert_eq!(problem(rsa, rsa), "tls: found a certificate rather than a key in the PEM for the private key");
    let switched = "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched";
    assert_eq!(problem(rsa_key, rsa), switched);
    let request = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n";
    let skipped = "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the following types: [CERTIFICATE REQUEST]";
    assert_eq!(problem(request, rsa_key), skipped);
    let broken = "-----BEGIN PRIVATE KEY-----\nMAMCAQA=\n-----END PRIVATE KEY-----\n";
    assert_eq!(problem(rsa, broken), "tls: failed to parse private key");
    let certificate = "-----BEGIN CERTIFICATE-----\nAgEA\n-----END CERTIFICATE-----\n";
    assert_eq!(problem(certificate, rsa_key), "x509: malformed certificate");
}
