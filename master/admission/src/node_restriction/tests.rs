use serde_json::{Value, json};

use crate::Operation::{self, Create, Delete, Update};
use crate::testing::{Cluster, node_user, on};
use crate::{Refusal, Request};

fn admit(request: &Request<'_>, object: &Value) -> Result<(), Refusal> {
    Cluster::new().chain().admit(request, &mut object.clone())
}

fn why(result: Result<(), Refusal>) -> String {
    let refusal = result.unwrap_err();
    assert_eq!((refusal.code, refusal.reason), (403, "Forbidden"));
    refusal.message.split_once(" is forbidden: ").unwrap().1.to_owned()
}

#[test]
fn a_node_modifies_only_itself() {
    let user = node_user("n1");
    let node = json!({ "metadata": { "name": "n2" } });
    for operation in [Create, Update] {
        let request = Request { old: Some(&node), ..on(&user, operation, "nodes", "", "n2") };
        assert_eq!(why(admit(&request, &node)), "node \"n1\" is not allowed to modify node \"n2\"");
    }
    let request = on(&user, Delete, "nodes", "", "n2");
    assert_eq!(
        why(Cluster::new().chain().validate(&request, None)),
        "node \"n1\" is not allowed to modify node \"n2\""
    );
    admit(&on(&user, Create, "nodes", "", "n1"), &json!({ "metadata": { "name": "n1" } })).unwrap();
    admit(&on(&user, Create, "nodes", "", ""), &json!({ "metadata": { "name": "n1" } })).unwrap();
}

#[test]
fn a_node_describes_its_own_devices_only() {
    let user = node_user("n1");
    let of = |node: &str| json!({ "metadata": { "name": "s" }, "spec": { "nodeName": node, "driver": "d" } });
    let slices = |operation| Request { group: "resource.k8s.io", ..on(&user, operation, "resourceslices", "", "s") };
    admit(&slices(Create), &of("n1")).unwrap();
    assert_eq!(
        why(admit(&slices(Create), &of("n2"))),
        "can only create ResourceSlice with the same NodeName as the requesting node"
    );
    let delete = |node: &str| {
        let old = of(node);
        Cluster::new().chain().validate(&Request { old: Some(&old), ..slices(Delete) }, None)
    };
    delete("n1").unwrap();
    assert_eq!(why(delete("n2")), "can only delete ResourceSlice with the same NodeName as the requesting node");
}

#[test]
fn labels_that_steer_pods_are_not_a_nodes_to_set() {
    let user = node_user("n1");
    let old = json!({ "metadata": { "name": "n1", "labels": { "node-role.kubernetes.io/control-plane": "" } } });
    let with = |label: &str| json!({ "metadata": { "name": "n1", "labels": { label: "x" } } });
    for allowed in [
        "kubernetes.io/hostname",
        "kubernetes.io/arch",
        "topology.kubernetes.io/zone",
        "node.kubernetes.io/instance-type",
        "kubelet.kubernetes.io/any",
        "x.node.kubernetes.io/any",
        "example.org/any",
        "plain",
    ] {
        admit(&on(&user, Create, "nodes", "", "n1"), &with(allowed)).unwrap();
    }
    for forbidden in [
        "node-restriction.kubernetes.io/x",
        "a.node-restriction.kubernetes.io/x",
        "node-role.kubernetes.io/control-plane",
        "kubernetes.io/other",
        "x.k8s.io/other",
    ] {
        assert_eq!(
            why(admit(&on(&user, Create, "nodes", "", "n1"), &with(forbidden))),
            format!("node \"n1\" is not allowed to set the following labels: {forbidden}")
        );
    }
    let request = Request { old: Some(&old), ..on(&user, Update, "nodes", "", "n1") };
    admit(&request, &old).unwrap();
    assert_eq!(
        why(admit(&request, &with("kubernetes.io/os"))),
        "is not allowed to modify labels: node-role.kubernetes.io/control-plane"
    );
}

#[test]
fn taints_and_owners_stay() {
    let user = node_user("n1");
    let old = json!({ "metadata": { "name": "n1" }, "spec": { "taints": [{ "key": "k", "effect": "NoSchedule" }] } });
    let request = Request { old: Some(&old), ..on(&user, Update, "nodes", "", "n1") };
    let mut new = old.clone();
    new["spec"]["taints"] = json!([]);
    assert_eq!(why(admit(&request, &new)), "node \"n1\" is not allowed to modify taints");
    let mut new = old.clone();
    new["metadata"]["ownerReferences"] = json!([{ "kind": "ConfigMap" }]);
    assert_eq!(why(admit(&request, &new)), "node \"n1\" is not allowed to modify ownerReferences");
}

fn mirror(change: impl FnOnce(&mut Value)) -> Value {
    let mut pod = json!({
        "metadata": {
            "name": "static",
            "annotations": { "kubernetes.io/config.mirror": "h" },
            "ownerReferences": [{ "apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "uid-n1", "controller": true }],
        },
        "spec": { "nodeName": "n1", "containers": [{ "name": "a" }] },
    });
    change(&mut pod);
    pod
}

#[test]
fn a_node_creates_mirror_pods_only() {
    let user = node_user("n1");
    let judge = |pod: Value| admit(&on(&user, Create, "pods", "default", "static"), &pod);
    judge(mirror(|_| {})).unwrap();
    let owner = "node \"n1\" can only create pods with an owner reference set to itself";
    let cases: [(Value, &str); 8] = [
        (
            mirror(|pod| pod["metadata"]["annotations"] = json!({})),
            "pod does not have \"kubernetes.io/config.mirror\" annotation, node \"n1\" can only create mirror pods",
        ),
        (
            mirror(|pod| pod["spec"]["nodeName"] = json!("n2")),
            "node \"n1\" can only create pods with spec.nodeName set to itself",
        ),
        (mirror(|pod| pod["metadata"]["ownerReferences"] = json!([])), owner),
        (mirror(|pod| pod["metadata"]["ownerReferences"][0]["name"] = json!("n2")), owner),
        (
            mirror(|pod| pod["metadata"]["ownerReferences"][0]["uid"] = json!("old")),
            "node n1 UID mismatch: expected old got uid-n1",
        ),
        (
            mirror(|pod| pod["metadata"]["ownerReferences"][0]["controller"] = json!(false)),
            "node \"n1\" can only create pods with a controller owner reference set to itself",
        ),
        (
            mirror(|pod| pod["spec"]["containers"][0]["envFrom"] = json!([{ "configMapRef": { "name": "c" } }])),
            "node \"n1\" can not create pods that reference configmaps",
        ),
        (
            mirror(|pod| {
                pod["spec"]["volumes"] = json!([{ "name": "v", "persistentVolumeClaim": { "claimName": "c" } }])
            }),
            "node \"n1\" can not create pods that reference persistentvolumeclaims",
        ),
    ];
    for (pod, wanted) in cases {
        assert!(why(judge(pod.clone())).ends_with(wanted), "{pod}");
    }
    // The ServiceAccount plugin comes before.
    let secret = mirror(|pod| pod["spec"]["volumes"] = json!([{ "name": "v", "secret": { "secretName": "s" } }]));
    assert_eq!(why(judge(secret)), "a mirror pod may not reference secrets");
    let account = mirror(|pod| pod["spec"]["serviceAccountName"] = json!("default"));
    assert_eq!(why(judge(account)), "a mirror pod may not reference service accounts");
}

#[test]
fn pods_of_other_nodes_are_out_of_reach() {
    let user = node_user("n1");
    let chain = Cluster::new().chain();
    chain.validate(&on(&user, Delete, "pods", "default", "mine"), None).unwrap();
    assert_eq!(
        why(chain.validate(&on(&user, Delete, "pods", "default", "other"), None)),
        "node \"n1\" can only delete pods with spec.nodeName set to itself"
    );
    assert_eq!(chain.validate(&on(&user, Delete, "pods", "default", "none"), None).unwrap_err().code, 404);

    let pod = |node: &str, labels: Value| json!({ "metadata": { "name": "p", "labels": labels }, "spec": { "nodeName": node } });
    let status = |old: &Value, new: &Value| {
        let request = Request { subresource: "status", old: Some(old), ..on(&user, Update, "pods", "default", "p") };
        admit(&request, new)
    };
    let (mine, other) = (pod("n1", json!({})), pod("n2", json!({})));
    status(&mine, &mine).unwrap();
    assert_eq!(
        why(status(&other, &other)),
        "node \"n1\" can only update pod status for pods with spec.nodeName set to itself"
    );
    assert_eq!(
        why(status(&mine, &pod("n1", json!({ "a": "b" })))),
        "node \"n1\" cannot update labels through pod status"
    );
    let mut extended = mine.clone();
    extended["status"] = json!({ "extendedResourceClaimStatus": { "resourceClaimName": "of-others" } });
    assert_eq!(why(status(&mine, &extended)), "node \"n1\" cannot update extended resource claim status");

    let sub = |operation, subresource, name| {
        let request = Request { subresource, old: Some(&mine), ..on(&user, operation, "pods", "default", name) };
        admit(&request, &json!({}))
    };
    sub(Create, "eviction", "mine").unwrap();
    assert_eq!(why(sub(Create, "eviction", "other")), "node n1 can only evict pods with spec.nodeName set to itself");
    assert_eq!(
        why(sub(Create, "binding", "mine")),
        "unexpected pod subresource \"binding\", only 'status' and 'eviction' are allowed"
    );
    assert_eq!(
        why(sub(Update, "", "mine")),
        "unexpected operation \"UPDATE\", node \"n1\" can only create and delete mirror pods"
    );
}

#[test]
fn tokens_are_for_pods_of_the_node() {
    let user = node_user("n1");
    let judge = |spec: Value| {
        let request = Request { subresource: "token", ..on(&user, Create, "serviceaccounts", "default", "default") };
        admit(&request, &json!({ "spec": spec }))
    };
    let bound = |name: &str, uid: &str| json!({ "boundObjectRef": { "apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid } });
    assert_eq!(why(judge(json!({}))), "node requested token not bound to a pod");
    assert_eq!(why(judge(bound("mine", ""))), "node requested token with a pod binding without a uid");
    assert_eq!(judge(bound("none", "u")).unwrap_err().code, 404);
    assert_eq!(
        why(judge(bound("mine", "old"))),
        "the UID in the bound object reference (old) does not match the UID in record. The object might have been deleted and then recreated"
    );
    assert_eq!(
        why(judge(bound("other", "uid-other"))),
        "node requested token bound to a pod scheduled on a different node"
    );
    judge(bound("mine", "uid-mine")).unwrap();
    let mut foreign = bound("mine", "uid-mine");
    foreign["audiences"] = json!(["vault"]);
    assert_eq!(
        why(judge(foreign)),
        "audience \"vault\" not found in pod spec volume, system:node:n1 is not authorized to request tokens for this audience"
    );
}

#[test]
fn a_lease_is_the_nodes_own() {
    let user = node_user("n1");
    let lease = |namespace, name: &str, operation: Operation| {
        let object = json!({ "metadata": { "name": name } });
        let path_name = if operation == Create { "" } else { name };
        let request = Request {
            group: "coordination.k8s.io",
            old: Some(&object),
            ..on(&user, operation, "leases", namespace, path_name)
        };
        admit(&request, &object)
    };
    lease("kube-node-lease", "n1", Create).unwrap();
    lease("kube-node-lease", "n1", Update).unwrap();
    let other = "can only access node lease with the same name as the requesting node";
    assert_eq!(why(lease("kube-node-lease", "n2", Create)), other);
    assert_eq!(why(lease("kube-node-lease", "n2", Update)), other);
    assert_eq!(
        why(lease("default", "n1", Create)),
        "can only access leases in the \"kube-node-lease\" system namespace"
    );
}

#[test]
fn others_are_not_restricted() {
    let user = crate::testing::admin();
    admit(&on(&user, Create, "nodes", "", "n2"), &json!({ "metadata": { "name": "n2" } })).unwrap();
}

#[test]
fn of_a_claim_a_node_changes_how_large_its_volume_is() {
    let user = node_user("n1");
    let old = json!({
        "metadata": { "name": "c", "resourceVersion": "7", "labels": { "a": "b" } },
        "spec": { "volumeName": "v" }, "status": { "phase": "Bound", "capacity": { "storage": "1Gi" } },
    });
    let with = |pointer: &str, value: Value| {
        let mut new = old.clone();
        let (parent, field) = pointer.rsplit_once('/').unwrap();
        new.pointer_mut(parent).unwrap()[field] = value;
        let update = on(&user, Update, "persistentvolumeclaims", "default", "c");
        admit(&Request { subresource: "status", old: Some(&old), ..update }, &new)
    };
    for (pointer, value) in [
        ("/status/capacity", json!({ "storage": "2Gi" })),
        ("/status/conditions", json!([{ "type": "FileSystemResizePending", "status": "True" }])),
        ("/status/allocatedResources", json!({ "storage": "2Gi" })),
        ("/status/allocatedResourceStatuses", json!({ "storage": "NodeResizeInProgress" })),
        ("/metadata/resourceVersion", json!("")),
        ("/metadata/annotations", json!({})),
    ] {
        with(pointer, value).unwrap();
    }
    let refused = "node \"n1\" is not allowed to update fields other than status.quantity and status.conditions";
    for (pointer, value) in [
        ("/metadata/labels", json!({ "a": "c" })),
        ("/metadata/finalizers", json!(["x/y"])),
        ("/metadata/ownerReferences", json!([{ "kind": "Pod" }])),
        ("/status/phase", json!("Lost")),
        ("/spec/volumeName", json!("w")),
    ] {
        assert_eq!(why(with(pointer, value)), refused, "{pointer}");
    }
    let main = on(&user, Update, "persistentvolumeclaims", "default", "c");
    assert_eq!(why(admit(&Request { old: Some(&old), ..main }, &old)), "may only update PVC status");
}
