use serde_json::{Value, json};

use super::*;
use crate::Observer as _;

fn graph() -> Arc<NodeGraph> {
    let graph = Arc::new(NodeGraph::new());
    observe(&graph, "web", Some(&pod("n1")));
    graph
}

fn observe(graph: &NodeGraph, name: &str, pod: Option<&Value>) {
    graph.observe("", "pods", "default", name, pod);
}

/// A pod that refers to something of every kind.
fn pod(node: &str) -> Value {
    json!({
        "metadata": { "name": "web" },
        "spec": {
            "nodeName": node,
            "serviceAccountName": "app",
            "imagePullSecrets": [{ "name": "pull" }],
            "initContainers": [{ "envFrom": [{ "secretRef": { "name": "from" } }, { "configMapRef": { "name": "from-map" } }] }],
            "containers": [{ "env": [
                { "valueFrom": { "secretKeyRef": { "name": "key", "key": "k" } } },
                { "valueFrom": { "configMapKeyRef": { "name": "key-map", "key": "k" } } },
            ] }],
            "volumes": [
                { "name": "a", "secret": { "secretName": "volume" } },
                { "name": "b", "configMap": { "name": "volume-map" } },
                { "name": "c", "persistentVolumeClaim": { "claimName": "claim" } },
                { "name": "d", "ephemeral": { "volumeClaimTemplate": {} } },
                { "name": "e", "projected": { "sources": [
                    { "secret": { "name": "projected" } },
                    { "configMap": { "name": "kube-root-ca.crt" } },
                ] } },
            ],
        },
    })
}

/// `Ok` or the reason, of `verb resource[.group][/subresource] namespace/name [selector]`.
fn judge(graph: &Arc<NodeGraph>, node: &str, request: &str) -> Result<(), String> {
    let user = UserInfo::new(format!("system:node:{node}"), &[names::NODES_GROUP]);
    let mut words = request.split_whitespace();
    let verb = words.next().unwrap();
    let resource = words.next().unwrap();
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
    let (namespace, name) = words.next().unwrap_or("/").split_once('/').unwrap();
    let attributes = Attributes {
        group,
        version: "v1",
        resource,
        subresource,
        namespace,
        name,
        field_selector: words.next().unwrap_or_default(),
        ..Attributes::of(&user, verb)
    };
    match NodeAuthorizer::new(Arc::clone(graph)).unwrap().authorize(&attributes) {
        Decision::Allow(_) => Ok(()),
        Decision::NoOpinion(reason) => Err(reason),
    }
}

#[test]
fn a_node_reads_what_its_pods_name() {
    let graph = graph();
    for (resource, names) in [
        ("secrets", vec!["pull", "from", "key", "volume", "projected"]),
        ("configmaps", vec!["from-map", "key-map", "volume-map", "kube-root-ca.crt"]),
        ("persistentvolumeclaims", vec!["claim", "web-d"]),
        ("pods", vec!["web"]),
    ] {
        for name in names {
            let request = format!("get {resource} default/{name}");
            assert_eq!(judge(&graph, "n1", &request), Ok(()), "{request}");
            let unrelated = Err("no relationship found between node 'n2' and this object".to_owned());
            assert_eq!(judge(&graph, "n2", &request), unrelated, "{request}");
            let elsewhere = format!("get {resource} other/{name}");
            assert!(judge(&graph, "n1", &elsewhere).is_err(), "{elsewhere}");
        }
    }
}

#[test]
fn what_a_pod_named_ends_with_the_last_pod() {
    let graph = graph();
    let get = "get secrets default/key";
    observe(&graph, "second", Some(&pod("n1")));
    observe(&graph, "web", None);
    assert_eq!(judge(&graph, "n1", get), Ok(()));
    observe(&graph, "second", Some(&pod("n2")));
    judge(&graph, "n1", get).unwrap_err();
    assert_eq!(judge(&graph, "n2", get), Ok(()));
    observe(&graph, "second", None);
    judge(&graph, "n2", get).unwrap_err();
    let edges = graph_is_empty(&graph);
    assert!(edges);
}

fn graph_is_empty(graph: &NodeGraph) -> bool {
    format!("{graph:?}").contains("owners: {}, nodes: {}, volumes: {}, secrets: {}")
}

/// A volume that is bound to the claim of [`pod`].
fn volume() -> Value {
    let secret = |name: &str| json!({ "namespace": "storage", "name": name });
    json!({ "spec": {
        "claimRef": { "namespace": "default", "name": "claim" },
        "csi": { "nodeStageSecretRef": secret("stage"), "nodePublishSecretRef": secret("publish"),
                 "controllerPublishSecretRef": secret("controller") },
    } })
}

#[test]
fn a_node_reads_the_volumes_of_its_pods_claims_and_their_secrets() {
    let graph = graph();
    let get_volume = "get persistentvolumes /pv";
    let unrelated = |node: &str| Err(format!("no relationship found between node '{node}' and this object"));
    assert_eq!(judge(&graph, "n1", get_volume), unrelated("n1"));
    graph.observe("", "persistentvolumes", "", "pv", Some(&volume()));
    for request in [get_volume, "get secrets storage/stage", "get secrets storage/publish"] {
        assert_eq!(judge(&graph, "n1", request), Ok(()), "{request}");
        assert_eq!(judge(&graph, "n2", request), unrelated("n2"), "{request}");
    }
    judge(&graph, "n1", "get secrets storage/controller").unwrap_err();
    judge(&graph, "n1", "get secrets default/stage").unwrap_err();
    let only = Err("can only get individual resources of this type".to_owned());
    assert_eq!(judge(&graph, "n1", "list persistentvolumes /"), only);
    observe(&graph, "web", None);
    judge(&graph, "n1", get_volume).unwrap_err();
    judge(&graph, "n1", "get secrets storage/stage").unwrap_err();
    observe(&graph, "web", Some(&pod("n1")));
    let mut free = volume();
    free["spec"]["claimRef"] = Value::Null;
    graph.observe("", "persistentvolumes", "", "pv", Some(&free));
    judge(&graph, "n1", get_volume).unwrap_err();
    judge(&graph, "n1", "get secrets storage/stage").unwrap_err();
    observe(&graph, "web", None);
    assert!(graph_is_empty(&graph));
}

#[test]
fn a_node_reads_the_claims_of_its_pods_and_what_is_its_own() {
    let graph = graph();
    let mut asking = pod("n1");
    asking["spec"]["resourceClaims"] =
        json!([{ "name": "a", "resourceClaimName": "given" }, { "name": "b", "resourceClaimTemplateName": "t" }]);
    asking["status"] = json!({
        "resourceClaimStatuses": [{ "name": "b", "resourceClaimName": "web-b-x" }],
        "extendedResourceClaimStatus": { "resourceClaimName": "extended" },
    });
    observe(&graph, "web", Some(&asking));
    for name in ["given", "web-b-x", "extended"] {
        let request = format!("get resourceclaims.resource.k8s.io default/{name}");
        assert_eq!(judge(&graph, "n1", &request), Ok(()), "{request}");
        judge(&graph, "n2", &request).unwrap_err();
    }
    judge(&graph, "n1", "get resourceclaims.resource.k8s.io default/other").unwrap_err();
    let own = json!({ "spec": { "nodeName": "n1" } });
    graph.observe("storage.k8s.io", "volumeattachments", "", "va", Some(&own));
    graph.observe("resource.k8s.io", "resourceslices", "", "slice", Some(&own));
    let slices = "resourceslices.resource.k8s.io";
    for request in [
        "get volumeattachments.storage.k8s.io /va",
        &format!("get {slices} /slice"),
        &format!("delete {slices} /slice"),
        &format!("list {slices} / spec.nodeName=n1"),
        &format!("deletecollection {slices} / spec.nodeName=n1"),
    ] {
        assert_eq!(judge(&graph, "n1", request), Ok(()), "{request}");
        judge(&graph, "n2", request).unwrap_err();
    }
    assert_eq!(judge(&graph, "n2", &format!("create {slices} /")), Ok(()));
    let selector = "can only list/watch/deletecollection resourceslices with nodeName field selector";
    assert_eq!(judge(&graph, "n1", &format!("deletecollection {slices} /")), Err(selector.to_owned()));
    graph.observe("storage.k8s.io", "volumeattachments", "", "va", None);
    judge(&graph, "n1", "get volumeattachments.storage.k8s.io /va").unwrap_err();
}

#[test]
fn an_unbound_pod_and_a_mirror_pod_open_nothing() {
    let graph = Arc::new(NodeGraph::new());
    observe(&graph, "web", Some(&pod("")));
    judge(&graph, "n1", "get secrets default/key").unwrap_err();
    let mut mirror = pod("n1");
    mirror["metadata"]["annotations"] = json!({ "kubernetes.io/config.mirror": "h" });
    observe(&graph, "web", Some(&mirror));
    judge(&graph, "n1", "get secrets default/key").unwrap_err();
    assert_eq!(judge(&graph, "n1", "get pods default/web"), Ok(()));
}

#[test]
fn the_table_of_requests() {
    let graph = graph();
    let no = |reason: &str| Err(reason.to_owned());
    let lease = "leases.coordination.k8s.io";
    for (request, wanted) in [
        ("list pods / spec.nodeName=n1", Ok(())),
        ("watch pods / spec.nodeName==n1", Ok(())),
        ("list pods /", no("can only list/watch pods with spec.nodeName field selector")),
        ("list pods / spec.nodeName=n2", no("can only list/watch pods with spec.nodeName field selector")),
        ("list pods / spec.nodeName!=n1", no("can only list/watch pods with spec.nodeName field selector")),
        ("create pods default/", Ok(())),
        ("patch pods/status default/web", Ok(())),
        ("create pods/eviction default/web", Ok(())),
        ("update pods default/web", no("")),
        ("create pods/binding default/web", no("")),
        ("get pods/log default/web", no("")),
        ("get nodes /n1", Ok(())),
        ("watch nodes / metadata.name=n1", Ok(())),
        ("get nodes /n2", no("node 'n1' cannot read 'n2', only its own Node object")),
        ("list nodes /", no("node 'n1' cannot read all nodes, only its own Node object")),
        ("patch nodes/status /n1", Ok(())),
        ("delete nodes /n1", no("")),
        ("list secrets default/", no("No Object name found")),
        ("list secrets /", no("can only read namespaced object of this type")),
        ("update secrets default/key", no("can only read resources of this type")),
        ("watch secrets default/key", Ok(())),
        ("list persistentvolumeclaims default/claim", no("can only get individual resources of this type")),
        ("patch persistentvolumeclaims/status default/claim", Ok(())),
        ("create serviceaccounts/token default/app", Ok(())),
        ("create serviceaccounts/token default/other", no("no relationship found between node 'n1' and this object")),
        ("create serviceaccounts default/", no("can only create tokens for individual service accounts")),
        ("get serviceaccounts default/app", Ok(())),
        ("list services /", Ok(())),
        ("create certificatesigningrequests.certificates.k8s.io /", Ok(())),
        ("create events default/", Ok(())),
        ("create events.events.k8s.io default/", Ok(())),
        ("delete services default/s", no("")),
        ("list endpointslices.discovery.k8s.io /", no("")),
    ] {
        assert_eq!(judge(&graph, "n1", request), wanted, "{request}");
    }
    for (verb, place, wanted) in [
        ("create", "kube-node-lease/", Ok(())),
        ("update", "kube-node-lease/n1", Ok(())),
        ("get", "kube-node-lease/n2", no("can only access node lease with the same name as the requesting node")),
        ("get", "kube-system/n1", no("can only access leases in the \"kube-node-lease\" system namespace")),
        ("list", "kube-node-lease/", no("can only get, create, update, patch, or delete a node lease")),
    ] {
        assert_eq!(judge(&graph, "n1", &format!("{verb} {lease} {place}")), wanted, "{verb} {place}");
    }
}

#[test]
fn only_nodes_are_nodes() {
    assert_eq!(node_identity(&UserInfo::new("system:node:n1", &[])), None);
    assert_eq!(node_identity(&UserInfo::new("n1", &[names::NODES_GROUP])), None);
    assert_eq!(node_identity(&UserInfo::new("system:node:n1", &[names::NODES_GROUP])), Some("n1"));
    assert_eq!(judge(&graph(), "", "get nodes /n1"), Err("unknown node for user \"system:node:\"".to_owned()));
}
