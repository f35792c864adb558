use serde_json::{Value, json};

use super::{ApplyError, Manager};
use crate::{FieldValidation, Kind, Registry};

fn kind(api_version: &str, name: &str) -> &'static Kind {
    Registry::builtin().by_kind(api_version, name).unwrap()
}

fn by(name: &str) -> Manager {
    at(name, "", 0)
}

fn at(name: &str, subresource: &str, second: i64) -> Manager {
    let now = jiff::Timestamp::from_second(1_700_000_000 + second).unwrap();
    Manager { name: name.into(), subresource: subresource.into(), now }
}

fn config_map(data: &Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "c", "namespace": "n" }, "data": data })
}

fn applied(old: Option<&Value>, config: &Value, by: &Manager) -> Value {
    let object = tried(old, config, by, false).unwrap_or_else(|error| panic!("{error}"));
    stored(config, object)
}

fn tried(old: Option<&Value>, config: &Value, by: &Manager, force: bool) -> Result<Value, ApplyError> {
    kind_of(config).apply(old, config, by, force)
}

fn kind_of(object: &Value) -> &'static Kind {
    kind(object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap())
}

/// Decoded and defaulted, with the uid that a stored object has.
fn stored(like: &Value, object: Value) -> Value {
    let kind = kind_of(like);
    let mut object = kind.decode_value(object, FieldValidation::Strict).unwrap().value;
    kind.default(&mut object);
    object["metadata"]["uid"] = "u".into();
    object
}

fn created(object: Value, by: &Manager) -> Value {
    let mut new = stored(&object.clone(), object);
    kind_of(&new).track(None, &mut new, by);
    new
}

fn updated(old: &Value, by: &Manager, change: impl FnOnce(&mut Value)) -> Value {
    let mut new = old.clone();
    change(&mut new);
    kind_of(old).track(Some(old), &mut new, by);
    new
}

/// `manager operation` with the fields of each entry.
fn owners(object: &Value) -> Value {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let entry = |e: &Value| {
        let mut name = format!("{} {}", e["manager"].as_str().unwrap(), e["operation"].as_str().unwrap());
        if let Some(subresource) = e["subresource"].as_str() {
            name += &format!(" {subresource}");
        }
        (name, e["fieldsV1"].clone())
    };
    entries.iter().map(entry).collect::<serde_json::Map<_, _>>().into()
}

fn refusal(old: &Value, config: &Value, by: &Manager) -> String {
    tried(Some(old), config, by, false).unwrap_err().to_string()
}

fn deployment(replicas: i64, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": "d", "namespace": "n", "labels": { "app": "d" } },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": "d" } },
            "template": {
                "metadata": { "labels": { "app": "d" } },
                "spec": { "containers": [{ "name": "main", "image": image, "ports": [{ "containerPort": 80 }] }] },
            },
        },
    })
}

/// As kube-apiserver 1.36 writes it for `kubectl create`.
#[test]
fn a_create_owns_every_field_and_every_default() {
    let object = created(deployment(2, "nginx"), &by("kubectl-create"));
    let container = json!({
        ".": {}, "f:image": {}, "f:imagePullPolicy": {}, "f:name": {}, "f:resources": {},
        "f:ports": {
            ".": {},
            "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": { ".": {}, "f:containerPort": {}, "f:protocol": {} },
        },
        "f:terminationMessagePath": {}, "f:terminationMessagePolicy": {},
    });
    let wanted = json!({
        "f:metadata": { "f:labels": { ".": {}, "f:app": {} } },
        "f:spec": {
            "f:progressDeadlineSeconds": {}, "f:replicas": {}, "f:revisionHistoryLimit": {}, "f:selector": {},
            "f:strategy": { "f:rollingUpdate": { ".": {}, "f:maxSurge": {}, "f:maxUnavailable": {} }, "f:type": {} },
            "f:template": {
                "f:metadata": { "f:labels": { ".": {}, "f:app": {} } },
                "f:spec": {
                    "f:containers": { "k:{\"name\":\"main\"}": container },
                    "f:dnsPolicy": {}, "f:restartPolicy": {}, "f:schedulerName": {}, "f:securityContext": {},
                    "f:terminationGracePeriodSeconds": {},
                },
            },
        },
    });
    assert_eq!(owners(&object), json!({ "kubectl-create Update": wanted }));
    let entry = &object["metadata"]["managedFields"][0];
    assert_eq!((&entry["apiVersion"], &entry["time"]), (&json!("apps/v1"), &json!("2023-11-14T22:13:20Z")));
}

#[test]
fn an_update_takes_what_it_changes() {
    let old = created(config_map(&json!({ "a": "1", "b": "1" })), &by("one"));
    let new = updated(&old, &at("two", "", 5), |o| o["data"] = json!({ "a": "2" }));
    let wanted = json!({
        "one Update": { "f:data": {} },
        "two Update": { "f:data": { "f:a": {} } },
    });
    assert_eq!(owners(&new), wanted);
    let same = updated(&new, &at("three", "", 9), |_| {});
    assert_eq!(same, new);
}

#[test]
fn the_status_is_owned_through_its_subresource() {
    let old = created(deployment(1, "nginx"), &by("me"));
    let ready = |o: &mut Value| o["status"]["readyReplicas"] = 1.into();
    let through = updated(&old, &at("controller", "status", 1), ready);
    assert_eq!(owners(&through)["controller Update status"], json!({ "f:status": { "f:readyReplicas": {} } }));
    let beside = updated(&old, &by("me2"), ready);
    assert_eq!(owners(&beside), owners(&old));
}

#[test]
fn applies_create_merge_and_take_away() {
    let first = applied(None, &config_map(&json!({ "a": "1", "b": "1" })), &by("one"));
    let wanted = json!({ "one Apply": { "f:data": { "f:a": {}, "f:b": {} } } });
    assert_eq!(owners(&first), wanted);
    let second = applied(Some(&first), &config_map(&json!({ "b": "1", "c": "1" })), &by("two"));
    assert_eq!(second["data"], json!({ "a": "1", "b": "1", "c": "1" }));
    // Nobody else owns `a`; `b` stays for the other.
    let third = applied(Some(&second), &config_map(&json!({ "d": "1" })), &by("one"));
    assert_eq!(third["data"], json!({ "b": "1", "c": "1", "d": "1" }));
    let last = applied(
        Some(&third),
        &json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "c" } }),
        &by("two"),
    );
    assert_eq!(last["data"], json!({ "d": "1" }));
    assert_eq!(owners(&last), json!({ "one Apply": { "f:data": { "f:d": {} } } }));
}

#[test]
fn conflicts_are_named_and_can_be_forced() {
    let old = applied(None, &config_map(&json!({ "a": "1", "b": "1" })), &by("one"));
    let old = updated(&old, &by("hand"), |o| o["data"]["b"] = "2".into());
    let config = config_map(&json!({ "a": "9" }));
    let text = "Apply failed with 1 conflict: conflict with \"one\": .data.a";
    assert_eq!(refusal(&old, &config, &by("two")), text);
    let both = config_map(&json!({ "a": "9", "b": "9" }));
    let text = "Apply failed with 2 conflicts: conflicts with \"hand\" using v1:\n- .data.b\nconflicts with \"one\":\n- .data.a";
    assert_eq!(refusal(&old, &both, &by("two")), text);
    let ApplyError::Conflicts(list) = tried(Some(&old), &both, &by("two"), false).unwrap_err() else { panic!() };
    assert_eq!(list.len(), 2);
    let forced = tried(Some(&old), &both, &by("two"), true).unwrap();
    assert_eq!(forced["data"], json!({ "a": "9", "b": "9" }));
    assert_eq!(owners(&forced), json!({ "two Apply": { "f:data": { "f:a": {}, "f:b": {} } } }));
    // The same value is no conflict, and is owned by both.
    let shared = applied(Some(&old), &config_map(&json!({ "a": "1" })), &by("two"));
    assert_eq!(owners(&shared)["one Apply"], owners(&shared)["two Apply"]);
}

#[test]
fn list_items_are_merged_by_their_keys() {
    let config = |containers: Value| {
        let mut object = deployment(1, "x");
        object["spec"]["template"]["spec"]["containers"] = containers;
        object
    };
    let old = applied(None, &config(json!([{ "name": "a", "image": "1" }, { "name": "b", "image": "1" }])), &by("one"));
    let sidecar = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "d", "namespace": "n" },
        "spec": { "template": { "spec": { "containers": [{ "name": "s", "image": "s" }, { "name": "a", "tty": true }] } } },
    });
    let new = applied(Some(&old), &sidecar, &by("two"));
    let list = |o: &Value| -> Vec<String> {
        let all = o["spec"]["template"]["spec"]["containers"].as_array().unwrap().iter();
        all.map(|c| format!("{}:{}:{}", c["name"], c["image"], c["tty"]).replace('"', "")).collect()
    };
    assert_eq!(list(&new), ["s:s:null", "a:1:true", "b:1:null"]);
    let gone = applied(Some(&new), &config(json!([{ "name": "a", "image": "2" }])), &by("one"));
    assert_eq!(list(&gone), ["s:s:null", "a:2:true"]);
    let conflict = refusal(&new, &config(json!([{ "name": "s", "image": "t" }])), &by("one"));
    assert!(
        conflict.ends_with("conflict with \"two\": .spec.template.spec.containers[name=\"s\"].image"),
        "{conflict}"
    );
}

#[test]
fn sets_and_atomic_fields() {
    let pod = |finalizers: Value, selector: Value| {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "s", "namespace": "n", "finalizers": finalizers },
            "spec": { "selector": selector, "ports": [{ "port": 80 }] },
        })
    };
    let old = applied(None, &pod(json!(["x.io/a", "x.io/b"]), json!({ "a": "1" })), &by("one"));
    let owned = &owners(&old)["one Apply"];
    assert_eq!(owned["f:metadata"]["f:finalizers"], json!({ "v:\"x.io/a\"": {}, "v:\"x.io/b\"": {} }));
    assert_eq!(owned["f:spec"]["f:selector"], json!({}));
    assert_eq!(
        owned["f:spec"]["f:ports"],
        json!({ "k:{\"port\":80,\"protocol\":\"TCP\"}": { ".": {}, "f:port": {} } })
    );
    let new = applied(Some(&old), &pod(json!(["x.io/b"]), json!({ "b": "1" })), &by("one"));
    assert_eq!(new["metadata"]["finalizers"], json!(["x.io/b"]));
    assert_eq!(new["spec"]["selector"], json!({ "b": "1" }));
    let text = refusal(&old, &pod(json!(["x.io/c"]), json!({ "c": "1" })), &by("two"));
    assert_eq!(text, "Apply failed with 1 conflict: conflict with \"one\": .spec.selector");
}

#[test]
fn what_does_not_fit_is_refused() {
    let cases = [
        (json!({ "data": { "a": 1 } }), ".data.a: expected string, got &value.valueUnstructured{Value:1}"),
        (json!({ "dat": {} }), ".dat: field not declared in schema"),
        (
            json!({ "data": "x", "immutable": "y" }),
            "errors:\n  .data: expected map, got &{x}\n  .immutable: expected boolean, got &{y}",
        ),
        (
            json!({ "metadata": { "name": "c", "namespace": "n", "ownerReferences": [{ "uid": "1" }, { "uid": "1" }] } }),
            ".metadata.ownerReferences: duplicate entries for key [uid=\"1\"]",
        ),
    ];
    for (more, why) in cases {
        let mut config =
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "c", "namespace": "n" } });
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let text = tried(None, &config, &by("m"), false).unwrap_err().to_string();
        assert_eq!(text, format!("failed to create typed patch object (n/c; /v1, Kind=ConfigMap): {why}"));
    }
    let other = json!({ "apiVersion": "v2", "kind": "ConfigMap", "metadata": { "name": "c" } });
    let error = kind("v1", "ConfigMap").apply(None, &other, &by("m"), false).unwrap_err();
    assert_eq!(error, ApplyError::BadRequest("invalid object type: /v2, Kind=ConfigMap".into()));
    let mut given = config_map(&json!({}));
    given["metadata"]["managedFields"] = json!([{}]);
    assert_eq!(tried(None, &given, &by("m"), false).unwrap_err().to_string(), "metadata.managedFields must be nil");
}

#[test]
fn who_was_there_before_the_first_apply_keeps_what_he_had() {
    let mut old = stored(&config_map(&json!({})), config_map(&json!({ "a": "1" })));
    let new = applied(Some(&old), &config_map(&json!({ "b": "1" })), &by("one"));
    assert_eq!(owners(&new)["before-first-apply Update"], json!({ "f:data": { ".": {}, "f:a": {} } }));
    // Updates of an object without owners are not followed.
    old = updated(&old, &by("two"), |o| o["data"]["a"] = "2".into());
    assert_eq!(owners(&old), json!({}));
}

#[test]
fn owners_can_be_given_and_forgotten_by_a_request_but_not_through_a_subresource() {
    let old = created(config_map(&json!({ "a": "1" })), &by("one"));
    for empty in [json!([]), json!([{}])] {
        let reset = |o: &mut Value| o["metadata"]["managedFields"] = empty.clone();
        assert_eq!(owners(&updated(&old, &by("two"), reset)), json!({}));
        assert_eq!(owners(&updated(&old, &at("two", "status", 1), reset)), owners(&old));
    }
    let renamed = updated(&old, &by("two"), |o| o["metadata"]["managedFields"][0]["manager"] = "three".into());
    assert_eq!(owners(&renamed), json!({ "three Update": { "f:data": { ".": {}, "f:a": {} } } }));
    let lost = updated(&old, &by("two"), |o| {
        o["metadata"].as_object_mut().unwrap().remove("managedFields");
    });
    assert_eq!(owners(&lost), owners(&old));
}

#[test]
fn updaters_beyond_ten_are_merged_oldest_first() {
    let mut object = created(config_map(&json!({ "k0": "0" })), &at("m0", "", 0));
    for n in 1..13 {
        object = updated(&object, &at(&format!("m{n}"), "", n), |o| o["data"][format!("k{n}")] = "0".into());
    }
    let found = owners(&object);
    let names: Vec<&String> = found.as_object().unwrap().keys().collect();
    assert_eq!(names.len(), 10, "{names:?}");
    let ancient = json!({ "f:data": { ".": {}, "f:k0": {}, "f:k1": {}, "f:k2": {}, "f:k3": {} } });
    assert_eq!(found["ancient-changes Update"], ancient);
}

#[test]
fn from_client_side_apply_to_server_side_apply() {
    let mut config = config_map(&json!({ "a": "1" }));
    let last = format!("{config}\n");
    config["metadata"]["annotations"] = json!({ "kubectl.kubernetes.io/last-applied-configuration": last });
    let old = created(config, &by("kubectl-client-side-apply"));
    let changed = config_map(&json!({ "a": "2" }));
    // Only kubectl's own name inherits what kubectl applied.
    assert!(refusal(&old, &changed, &by("other")).contains("kubectl-client-side-apply"));
    let new = applied(Some(&old), &changed, &by("kubectl"));
    assert_eq!(new["data"], json!({ "a": "2" }));
    let kept = new["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(kept).unwrap(), changed);
    // What somebody changed meanwhile is his.
    let touched = updated(&old, &by("hand"), |o| o["data"]["a"] = "3".into());
    assert_eq!(
        refusal(&touched, &changed, &by("kubectl")),
        "Apply failed with 1 conflict: conflict with \"hand\" using v1: .data.a"
    );
}

#[test]
fn an_apply_that_changes_nothing_is_no_write() {
    let config = deployment(2, "nginx");
    let old = applied(None, &config, &at("one", "", 0));
    let mut again = applied(Some(&old), &config, &at("one", "", 60));
    kind_of(&config).settle(&mut again, &old);
    assert_eq!(again, old);
}

#[test]
fn what_is_laid_over_an_object_is_merged_and_owned_by_nobody() {
    let live = created(deployment(1, "a"), &by("kubectl"));
    let mut config =
        json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "annotations": { "x": "y" } } });
    config["spec"] = json!({ "template": { "spec": { "containers": [{ "name": "side", "image": "b" }] } } });
    let kind = kind_of(&live);
    let laid = kind.overlay(&live, &config).unwrap();
    let names: Vec<&str> = laid
        .pointer("/spec/template/spec/containers")
        .unwrap()
        .as_array()
        .unwrap()
        .iter()
        .map(|container| container["name"].as_str().unwrap())
        .collect();
    assert_eq!((names.len(), names.contains(&"side")), (2, true));
    assert_eq!(laid["metadata"]["annotations"]["x"], "y");
    assert_eq!((owners(&laid), &laid["spec"]["replicas"]), (owners(&live), &json!(1)));
    config["spec"] = json!({ "template": { "spec": { "tolerations": [] } } });
    let refused = kind.overlay(&live, &config).unwrap_err();
    let wanted =
        "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: .spec.template.spec.tolerations";
    assert_eq!(refused, wanted);
    config["spec"] = json!({ "replicas": "x" });
    assert!(kind.overlay(&live, &config).unwrap_err().starts_with("failed to convert patch object to typed object: "));
}
