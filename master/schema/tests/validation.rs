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

/// `digestedName` of a kubelet's first certificate.
#[test]
fn a_certificate_request_may_be_named_by_a_digest() {
    let kind = kind("certificates.k8s.io/v1 CertificateSigningRequest");
    let of_name = |name: &str| {
        let object = prepared(kind, json!({ "metadata": { "name": name }, "spec": {} }));
        let errors = kind.validate_create(&object);
        errors.iter().map(ToString::to_string).filter(|error| error.starts_with("metadata.name")).collect::<Vec<_>>()
    };
    assert_eq!(of_name("node-csr-CsvP336q5CZevhYa15_zNLMC838rHwFJ_Y1LUzZ107k"), [""; 0]);
    assert_eq!(of_name("a/b").len(), 1);
}

fn pod(image: &str, node: &str) -> Value {
    json!({
        "metadata": { "name": "p", "namespace": "default", "uid": "u", "resourceVersion": "1" },
        "spec": { "nodeName": node, "containers": [{ "name": "a", "image": image }] },
    })
}

#[test]
fn annotations_of_app_armor_stay() {
    let kind = kind("v1 Pod");
    let annotated = |value: Option<&str>| {
        let mut pod = pod("a:1", "n1");
        if let Some(value) = value {
            pod["metadata"]["annotations"] = json!({ "container.apparmor.security.beta.kubernetes.io/a": value });
        }
        pod
    };
    for (before, after, expected) in [
        (None, Some("unconfined"), "may not add AppArmor annotations"),
        (Some("unconfined"), Some("runtime/default"), "may not remove or update AppArmor annotations"),
        (Some("unconfined"), None, "may not remove or update AppArmor annotations"),
    ] {
        let mut old = prepared(kind, annotated(before));
        let field = "metadata.annotations[container.apparmor.security.beta.kubernetes.io/a]";
        old["spec"]["containers"][0].as_object_mut().unwrap().remove("securityContext");
        let errors = update_errors(kind, Part::Main, annotated(after), &old);
        assert_eq!(errors, [format!("{field}: Forbidden: {expected}")]);
    }
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
fn where_a_gated_pod_may_run_is_narrowed_only() {
    let kind = kind("v1 Pod");
    let zone = json!({ "key": "zone", "operator": "In", "values": ["a", "b"] });
    let disk = json!({ "key": "disk", "operator": "Exists" });
    let gated = |affinity: Value, selector: Value| {
        let mut pod = pod("a:1", "");
        let spec = pod["spec"].as_object_mut().unwrap();
        spec.insert("schedulingGates".into(), json!([{ "name": "x.io/wait" }]));
        spec.insert("affinity".into(), affinity);
        spec.insert("nodeSelector".into(), selector);
        pod
    };
    let required = |terms: &[&[&Value]]| {
        let terms: Vec<Value> = terms.iter().map(|one| json!({ "matchExpressions": one })).collect();
        json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } } })
    };
    let changed = |old: &Value, new: Value| {
        let old = prepared(kind, gated(old.clone(), json!({ "a": "b" })));
        update_errors(kind, Part::Main, gated(new, json!({ "a": "b", "c": "d" })), &old)
    };
    let one = required(&[&[&zone]]);
    assert_eq!(changed(&one, required(&[&[&zone, &disk]])), [""; 0]);
    assert_eq!(changed(&json!({}), one.clone()), [""; 0]);
    assert_eq!(changed(&Value::Null, one.clone()), [""; 0]);
    let path = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    let refused = |new: Value, field: &str, why: &str| {
        let errors = changed(&one, new);
        assert!(errors.len() == 1 && errors[0].starts_with(field) && errors[0].ends_with(why), "{errors:?}");
    };
    let mutation = "only additions are allowed (no mutations or deletions)";
    refused(required(&[&[&disk, &zone]]), &format!("{path}[0]: Invalid value: "), mutation);
    let deletion = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
    refused(required(&[&[&zone], &[&disk]]), &format!("{path}: Invalid value: "), deletion);
    refused(json!({}), &format!("{path}: Invalid value: "), deletion);
    // All else of it stays, and so does that of a pod that nothing holds back.
    let mut more = required(&[&[&zone, &disk]]);
    more["podAffinity"] = json!({ "requiredDuringSchedulingIgnoredDuringExecution": [
        { "topologyKey": "zone", "labelSelector": { "matchLabels": { "a": "b" } } } ] });
    refused(more, "spec: Forbidden: pod updates may not change fields other than", "");
    let old = prepared(kind, gated(one.clone(), json!({ "a": "b" })));
    let errors = update_errors(kind, Part::Main, gated(one.clone(), json!({ "a": "c" })), &old);
    assert!(errors.len() == 1 && errors[0].contains("only additions to spec.nodeSelector are allowed"), "{errors:?}");
}

#[test]
fn a_status_that_does_not_say_of_which_generation_it_is_keeps_what_was_said() {
    let kind = kind("v1 Pod");
    let mut old = prepared(kind, pod("a:1", "n1"));
    let seen =
        |type_: &str, generation: Value| json!({ "type": type_, "status": "True", "observedGeneration": generation });
    old["status"] =
        json!({ "observedGeneration": 2, "conditions": [seen("Ready", 2.into()), seen("Other", 1.into())] });
    let mut new = old.clone();
    let conditions = [seen("Other", Value::Null), seen("Ready", 3.into()), seen("New", Value::Null)];
    new["status"] = json!({ "conditions": conditions });
    kind.prepare_update(Part::Status, &mut new, &old);
    assert_eq!(new["status"]["observedGeneration"], 2);
    let generations: Vec<&Value> =
        new["status"]["conditions"].as_array().unwrap().iter().map(|one| &one["observedGeneration"]).collect();
    assert_eq!(generations, [&json!(1), &json!(3), &Value::Null]);
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

/// A pod on a node, of two containers that ask for cpu, memory and storage.
fn burstable() -> Value {
    let container = |name: &str| {
        let requests = json!({ "cpu": "100m", "memory": "64Mi", "ephemeral-storage": "1Gi" });
        json!({ "name": name, "image": "a:1", "resources": { "requests": requests } })
    };
    json!({
        "metadata": { "name": "p", "namespace": "default", "uid": "u", "resourceVersion": "1" },
        "spec": { "nodeName": "n1", "containers": [container("a"), container("b")] },
    })
}

#[test]
fn a_resize_changes_cpu_and_memory_only() {
    let kind = kind("v1 Pod");
    let old = prepared(kind, burstable());
    let resized = |change: &dyn Fn(&mut Value)| {
        let mut pod = burstable();
        change(&mut pod["spec"]["containers"]);
        update_errors(kind, Part::Other("resize"), pod, &old)
    };
    let requests = |amounts: Value| move |c: &mut Value| c[0]["resources"]["requests"] = amounts.clone();
    let more = json!({ "cpu": "200m", "memory": "0.125Gi", "ephemeral-storage": "1Gi" });
    assert_eq!(resized(&requests(more)), Vec::<String>::new());
    let limited = json!({ "cpu": "1", "memory": "1Gi" });
    assert_eq!(resized(&|c| c[1]["resources"]["limits"] = limited.clone()), Vec::<String>::new());
    // What is no part of a resize is left as it was.
    assert_eq!(resized(&|c| c[0]["image"] = "a:2".into()), Vec::<String>::new());
    let one = |errors: Vec<String>, expected: &str| {
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].contains(expected), "{errors:?}");
    };
    let storage = json!({ "cpu": "100m", "memory": "64Mi", "ephemeral-storage": "2Gi" });
    one(resized(&requests(storage)), "spec: Forbidden: only cpu and memory resources are mutable");
    let less = json!({ "cpu": "100m", "ephemeral-storage": "1Gi" });
    one(
        resized(&requests(less)),
        "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
    );
    let swapped = resized(&|c| c.as_array_mut().unwrap().swap(0, 1));
    assert_eq!(swapped.len(), 2);
    assert_eq!(swapped[0], "spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize");
    let fewer = resized(&|c| drop(c.as_array_mut().unwrap().pop()));
    one(fewer, "spec.containers: Forbidden: containers may not be added or removed on resize");
    let same = json!({ "cpu": "100m", "memory": "64Mi" });
    let guaranteed = resized(&|c| {
        for index in 0..2 {
            c[index]["resources"]["limits"] = same.clone();
        }
    });
    one(guaranteed, "Pod QOS Class may not change as a result of resizing");
}

#[test]
fn what_cannot_be_resized_says_why() {
    let kind = kind("v1 Pod");
    let mut more = burstable();
    more["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "1".into();
    let mut mirror = prepared(kind, burstable());
    mirror["metadata"]["annotations"] = json!({ "kubernetes.io/config.mirror": "x" });
    let errors = update_errors(kind, Part::Other("resize"), more.clone(), &mirror);
    assert_eq!(errors, ["[]: Forbidden: static pods cannot be resized"]);
    let mut unable = prepared(kind, burstable());
    unable["status"]["containerStatuses"] = json!([{ "name": "a", "state": { "running": {} } }]);
    let errors = update_errors(kind, Part::Other("resize"), more.clone(), &unable);
    assert_eq!(errors, ["spec: Forbidden: Pod running on node without support for resize"]);
    // Requests of the pod as a whole can be added, and grow, but never go.
    let mut whole = burstable();
    whole["spec"]["resources"] = json!({ "requests": { "cpu": "1", "memory": "1Gi" } });
    let old = prepared(kind, burstable());
    assert_eq!(update_errors(kind, Part::Other("resize"), whole.clone(), &old), Vec::<String>::new());
    let old = prepared(kind, whole);
    let errors = update_errors(kind, Part::Other("resize"), burstable(), &old);
    assert_eq!(errors, ["spec.resources: Forbidden: pod-level resources cannot be removed"]);
}

#[test]
fn service_networks_stay_and_one_of_the_other_family_may_join() {
    let kind = kind("networking.k8s.io/v1 ServiceCIDR");
    let object = |cidrs: &[&str]| json!({ "metadata": { "name": "x", "uid": "u", "resourceVersion": "1" }, "spec": { "cidrs": cidrs } });
    let (v4, v6) = ("10.0.0.0/8", "2001:db8::/64");
    let old = prepared(kind, object(&[v4]));
    let errors = |cidrs: &[&str]| update_errors(kind, Part::Main, object(cidrs), &old);
    assert_eq!(errors(&[v4]), Vec::<String>::new());
    assert_eq!(errors(&[v4, v6]), Vec::<String>::new());
    assert_eq!(errors(&[v6]), ["spec.cidrs[0]: Invalid value: \"2001:db8::/64\": field is immutable"]);
    let twice = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
    let refused = format!("spec.cidrs: Invalid value: [\"10.0.0.0/8\",\"11.0.0.0/8\"]: {twice}");
    assert_eq!(errors(&[v4, "11.0.0.0/8"]), [refused]);
    assert_eq!(errors(&[]), ["spec.cidrs: Invalid value: null: field is immutable"]);
}

#[test]
fn the_owner_of_an_address_stays() {
    let kind = kind("networking.k8s.io/v1 IPAddress");
    let object = |name: &str| {
        json!({
            "metadata": { "name": "10.0.0.1", "uid": "u", "resourceVersion": "1" },
            "spec": { "parentRef": { "resource": "services", "namespace": "default", "name": name } },
        })
    };
    let old = prepared(kind, object("a"));
    assert_eq!(update_errors(kind, Part::Main, object("a"), &old), Vec::<String>::new());
    let errors = update_errors(kind, Part::Main, object("b"), &old);
    assert!(matches!(errors.as_slice(), [only] if only.ends_with("field is immutable")), "{errors:?}");
}

#[test]
fn a_claim_keeps_what_it_asks_for_and_what_it_was_given() {
    let kind = kind("resource.k8s.io/v1 ResourceClaim");
    let claim = |class: &str, status: Value| {
        json!({
            "metadata": { "name": "c", "namespace": "default", "uid": "u", "resourceVersion": "1" },
            "spec": { "devices": { "requests": [{ "name": "r", "exactly": { "deviceClassName": class } }] } },
            "status": status,
        })
    };
    let result = |device: &str| json!({ "request": "r", "driver": "d", "pool": "p", "device": device });
    let given = |device: &str| {
        let said = json!({ "driver": "d", "pool": "p", "device": device });
        json!({ "allocation": { "devices": { "results": [result(device)] } }, "devices": [said] })
    };
    let old = prepared(kind, claim("a", json!({})));
    assert_eq!(old["spec"]["devices"]["requests"][0]["exactly"]["count"], 1);
    let errors = update_errors(kind, Part::Main, claim("b", json!({})), &old);
    assert!(errors[0].starts_with("spec: Invalid value") && errors[0].ends_with("field is immutable"), "{errors:?}");
    let held = json!({ "reservedFor": [{ "resource": "pods", "name": "p", "uid": "u" }] });
    assert_eq!(
        update_errors(kind, Part::Status, claim("a", held), &old),
        ["status.reservedFor: Forbidden: may not be specified when `allocated` is not set"]
    );
    assert_eq!(update_errors(kind, Part::Status, claim("a", given("x")), &old), Vec::<String>::new());
    let mut strange = given("x");
    strange["devices"][0]["device"] = "y".into();
    assert_eq!(
        update_errors(kind, Part::Status, claim("a", strange), &old),
        ["status.devices[0]: Invalid value: \"d/p/y\": must be an allocated device in the claim"]
    );
    let mut old = old;
    old["status"] = given("x");
    let errors = update_errors(kind, Part::Status, claim("a", given("y")), &old);
    assert!(errors[0].starts_with("status.allocation: Invalid value"), "{errors:?}");
    // What was said of a device goes when the device does.
    let mut taken = kind.decode_value(claim("a", json!({ "devices": given("x")["devices"] })), FieldValidation::Strict);
    let object = &mut taken.as_mut().unwrap().value;
    kind.prepare_update(Part::Status, object, &old);
    assert_eq!(object["status"]["devices"], json!([]));
}
