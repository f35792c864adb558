use serde_json::{Value, json};

use crate::{Kind, Registry};

fn kind(api_version: &str, name: &str) -> &'static Kind {
    Registry::builtin().by_kind(api_version, name).unwrap()
}

fn pod(original: Value, patch: Value) -> Value {
    kind("v1", "Pod").strategic_merge(&json!({ "spec": original }), &json!({ "spec": patch })).unwrap()["spec"].clone()
}

#[test]
fn maps_merge_and_null_deletes() {
    let original = json!({ "metadata": { "labels": { "a": "1", "b": "2" } }, "spec": { "hostname": "x" } });
    let patch = json!({ "metadata": { "labels": { "b": null, "c": "3", "d": null } } });
    let merged = kind("v1", "Pod").strategic_merge(&original, &patch).unwrap();
    assert_eq!(merged["metadata"]["labels"], json!({ "a": "1", "c": "3" }));
    assert_eq!(merged["spec"]["hostname"], "x");
}

#[test]
fn containers_merge_by_name_and_new_ones_come_first() {
    let original = json!({ "containers": [{ "name": "a", "image": "1", "tty": true }, { "name": "b", "image": "2" }] });
    let merged = pod(original, json!({ "containers": [{ "name": "c", "image": "3" }, { "name": "a", "image": "9" }] }));
    assert_eq!(
        merged["containers"],
        json!([{ "name": "c", "image": "3" }, { "name": "a", "image": "9", "tty": true }, { "name": "b", "image": "2" }])
    );
}

#[test]
fn elements_are_deleted_and_lists_replaced_by_directive() {
    let original = json!({ "containers": [{ "name": "a" }, { "name": "b" }] });
    let merged = pod(original.clone(), json!({ "containers": [{ "name": "a", "$patch": "delete" }] }));
    assert_eq!(merged["containers"], json!([{ "name": "b" }]));
    let merged = pod(original, json!({ "containers": [{ "name": "z" }, { "$patch": "replace" }] }));
    assert_eq!(merged["containers"], json!([{ "name": "z" }]));
}

#[test]
fn maps_are_replaced_or_emptied_by_directive() {
    let original = json!({ "nodeSelector": { "a": "1" } });
    let merged = pod(original.clone(), json!({ "nodeSelector": { "$patch": "replace", "b": "2" } }));
    assert_eq!(merged["nodeSelector"], json!({ "b": "2" }));
    let merged = pod(original, json!({ "nodeSelector": { "$patch": "delete" } }));
    assert_eq!(merged["nodeSelector"], json!({}));
}

#[test]
fn atomic_lists_are_replaced() {
    let original = json!({ "containers": [{ "name": "a", "args": ["x", "y"] }], "tolerations": [{ "key": "k" }] });
    let patch = json!({ "containers": [{ "name": "a", "args": ["z"] }], "tolerations": [{ "key": "l" }] });
    let merged = pod(original, patch);
    assert_eq!(merged["containers"][0]["args"], json!(["z"]));
    assert_eq!(merged["tolerations"], json!([{ "key": "l" }]));
}

#[test]
fn primitive_lists_merge_and_shrink() {
    let original = json!({ "metadata": { "finalizers": ["a", "b"] } });
    let pod = kind("v1", "Pod");
    let merged = pod.strategic_merge(&original, &json!({ "metadata": { "finalizers": ["c", "a"] } })).unwrap();
    assert_eq!(merged["metadata"]["finalizers"], json!(["c", "a", "b"]));
    let patch = json!({ "metadata": { "$deleteFromPrimitiveList/finalizers": ["a"] } });
    let merged = pod.strategic_merge(&original, &patch).unwrap();
    assert_eq!(merged["metadata"]["finalizers"], json!(["b"]));
}

#[test]
fn the_order_of_elements_is_set() {
    let original = json!({ "containers": [{ "name": "a" }, { "name": "b" }, { "name": "server" }] });
    let patch = json!({
        "$setElementOrder/containers": [{ "name": "b" }, { "name": "new" }, { "name": "a" }],
        "containers": [{ "name": "new", "image": "i" }],
    });
    let merged = pod(original, patch);
    let names: Vec<&str> =
        merged["containers"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["b", "new", "a", "server"]);
}

#[test]
fn retain_keys_drops_the_rest() {
    let original = json!({ "spec": { "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1 } } } });
    let patch = json!({ "spec": { "strategy": { "$retainKeys": ["type"], "type": "Recreate" } } });
    let merged = kind("apps/v1", "Deployment").strategic_merge(&original, &patch).unwrap();
    assert_eq!(merged["spec"]["strategy"], json!({ "type": "Recreate" }));
}

#[test]
fn volumes_change_their_source() {
    let original = json!({ "volumes": [{ "name": "v", "emptyDir": {} }] });
    let patch =
        json!({ "volumes": [{ "name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": { "path": "/x" } }] });
    assert_eq!(pod(original, patch)["volumes"], json!([{ "name": "v", "hostPath": { "path": "/x" } }]));
}

#[test]
fn service_ports_merge_by_port() {
    let original = json!({ "spec": { "ports": [{ "port": 80, "name": "a" }, { "port": 443, "name": "b" }] } });
    let patch = json!({ "spec": { "ports": [{ "port": 443, "name": "tls" }] } });
    let merged = kind("v1", "Service").strategic_merge(&original, &patch).unwrap();
    assert_eq!(merged["spec"]["ports"], json!([{ "port": 80, "name": "a" }, { "port": 443, "name": "tls" }]));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let pod = kind("v1", "Pod");
    for patch in [
        json!([]),
        json!({ "spec": { "$patch": "explode" } }),
        json!({ "spec": { "containers": [{ "image": "x" }] } }),
        json!({ "spec": { "containers": [{ "$patch": "delete" }] } }),
        json!({ "spec": { "$setElementOrder/containers": [], "containers": [{ "name": "a" }] } }),
        json!({ "spec": { "$retainKeys": 7 } }),
    ] {
        let original = json!({ "spec": { "containers": [{ "name": "a" }] } });
        assert!(pod.strategic_merge(&original, &patch).is_err(), "{patch}");
    }
}

#[test]
fn a_patch_applied_twice_changes_nothing_more() {
    let original = json!({ "spec": { "containers": [{ "name": "a", "env": [{ "name": "X", "value": "1" }] }] } });
    let patch =
        json!({ "spec": { "containers": [{ "name": "b" }, { "name": "a", "env": [{ "name": "Y", "value": "2" }] }] } });
    let pod = kind("v1", "Pod");
    let once = pod.strategic_merge(&original, &patch).unwrap();
    assert_eq!(pod.strategic_merge(&once, &patch).unwrap(), once);
}
