use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::*;
use crate::{Attributes, Authorizer as _, Observer as _, Rbac, UserInfo};

fn cluster() -> Rbac {
    let rbac = Rbac::new();
    for default in default_objects().unwrap() {
        rbac.observe(GROUP, default.resource, &default.namespace, &default.name, Some(&default.object));
    }
    rbac
}

fn may(user: &UserInfo, request: &str) -> bool {
    let mut words = request.split_whitespace();
    let verb = words.next().unwrap();
    let (resource, group) = words.next().unwrap().split_once('.').unwrap_or_else(|| panic!("{request}"));
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let (namespace, name) = words.next().unwrap_or("/").split_once('/').unwrap();
    let attributes =
        Attributes { group, version: "v1", resource, subresource, namespace, name, ..Attributes::of(user, verb) };
    cluster().authorize(&attributes).allowed()
}

fn get(user: &UserInfo, path: &str) -> bool {
    let attributes = Attributes { path: Some(path), ..Attributes::of(user, "get") };
    cluster().authorize(&attributes).allowed()
}

/// Every default object in a line or a few; regenerate with `UPDATE_GOLDEN=1`.
#[test]
fn golden() {
    let mut text = String::new();
    for default in default_objects().unwrap() {
        let scope = if default.namespace.is_empty() { String::new() } else { format!(" in {}", default.namespace) };
        writeln!(text, "{} {}{scope}", default.resource, default.name).unwrap();
        for rule in PolicyRule::of_role(&default.object) {
            writeln!(text, "  {}", serde_json::to_string(&rule).unwrap()).unwrap();
        }
        if let Some(role) = default.object.get("roleRef") {
            writeln!(text, "  {} {}", role["kind"].as_str().unwrap(), role["name"].as_str().unwrap()).unwrap();
        }
        for subject in default.object["subjects"].as_array().into_iter().flatten() {
            let namespace = subject["namespace"].as_str().map(|ns| format!("{ns}/")).unwrap_or_default();
            writeln!(text, "  {} {namespace}{}", subject["kind"].as_str().unwrap(), subject["name"].as_str().unwrap())
                .unwrap();
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/data/roles.golden");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap();
    assert!(golden == text, "default roles differ from {path}; run with UPDATE_GOLDEN=1 and look at the difference");
}

#[test]
fn names_are_unique_and_bindings_find_their_roles() {
    let objects = default_objects().unwrap();
    let keys: BTreeSet<_> = objects.iter().map(|o| (o.resource, &o.namespace, &o.name)).collect();
    assert_eq!(keys.len(), objects.len());
    for binding in objects.iter().filter(|o| o.object.get("roleRef").is_some()) {
        let role = binding.object["roleRef"]["name"].as_str().unwrap();
        let resource = if binding.namespace.is_empty() { "clusterroles" } else { "roles" };
        assert!(
            objects.iter().any(|o| (o.resource, &o.namespace, o.name.as_str()) == (resource, &binding.namespace, role))
        );
    }
}

#[test]
fn what_people_may() {
    let admin = UserInfo::new("a", &["kubeadm:cluster-admins"]);
    assert!(may(&admin, "delete nodes. /n1") && get(&admin, "/metrics"));
    let nobody = UserInfo::new("n", &["system:authenticated"]);
    assert!(!may(&nobody, "get pods. default/p") && get(&nobody, "/apis/apps/v1") && !get(&nobody, "/metrics"));
    assert!(may(&nobody, "create selfsubjectaccessreviews.authorization.k8s.io"));
    let anonymous = UserInfo::anonymous();
    assert!(get(&anonymous, "/livez") && get(&anonymous, "/version") && !get(&anonymous, "/api"));
    assert!(may(&anonymous, "get configmaps. kube-public/cluster-info"));
    for wrong in [
        "patch configmaps. kube-public/cluster-info",
        "get configmaps. kube-public/other",
        "list configmaps. kube-public/",
    ] {
        assert!(!may(&anonymous, wrong), "{wrong}");
    }
}

#[test]
fn admin_gathers_edit_and_edit_gathers_view() {
    let objects = default_objects().unwrap();
    let rules = |name: &str| {
        let role = objects.iter().find(|o| o.resource == "clusterroles" && o.name == name).unwrap();
        PolicyRule::of_role(&role.object)
    };
    let (admin, edit, view) = (rules("admin"), rules("edit"), rules("view"));
    assert!(view.iter().all(|rule| edit.contains(rule)) && edit.iter().all(|rule| admin.contains(rule)));
    assert!(view.len() < edit.len() && edit.len() < admin.len());
    assert!(!view.iter().any(|rule| rule.resources.iter().any(|r| r == "secrets")));
}

#[test]
fn joining_machines_and_nodes_may_have_certificates_and_no_more() {
    let joining = UserInfo::new(
        "system:bootstrap:abcdef",
        &["system:bootstrappers", "system:bootstrappers:kubeadm:default-node-token"],
    );
    assert!(may(&joining, "create certificatesigningrequests.certificates.k8s.io"));
    assert!(may(&joining, "create certificatesigningrequests/nodeclient.certificates.k8s.io"));
    assert!(!may(&joining, "create certificatesigningrequests/selfnodeclient.certificates.k8s.io"));
    assert!(may(&joining, "get configmaps. kube-system/kubelet-config") && may(&joining, "get nodes. /n1"));
    assert!(!may(&joining, "list nodes.") && !may(&joining, "get secrets. kube-system/s"));
    let node = UserInfo::new("system:node:n1", &["system:nodes"]);
    assert!(may(&node, "create certificatesigningrequests/selfnodeclient.certificates.k8s.io"));
    assert!(!may(&node, "get pods. default/p"), "the Node authorizer grants that, object by object");
}

#[test]
fn controllers_have_the_rights_of_their_own() {
    let controller = |name: &str| UserInfo::service_account("kube-system", name, "");
    assert!(may(&controller("deployment-controller"), "create replicasets.apps default/"));
    assert!(!may(&controller("deployment-controller"), "create pods. default/"));
    assert!(may(&controller("replicaset-controller"), "create pods. default/"));
    assert!(!may(&controller("replicaset-controller"), "get secrets. default/s"));
    let signer = controller("certificate-controller");
    assert!(may(&signer, "sign signers.certificates.k8s.io /kubernetes.io/kubelet-serving"));
    assert!(!may(&signer, "approve signers.certificates.k8s.io /kubernetes.io/kube-apiserver-client"));
    assert!(may(&controller("token-cleaner"), "delete secrets. kube-system/s"));
    assert!(!may(&controller("token-cleaner"), "delete secrets. default/s"));
}

#[test]
fn reconciling_adds_what_is_missing_and_keeps_what_is_more() {
    let rule = |verbs: &[&str]| json!({ "apiGroups": [""], "resources": ["pods"], "verbs": verbs });
    let role =
        |rules: Value| json!({ "metadata": { "name": "r", "annotations": { AUTO_UPDATE: "true" } }, "rules": rules });
    let wanted = role(json!([rule(&["get", "list"])]));
    assert_eq!(reconcile(&wanted, &wanted), None);
    assert_eq!(reconcile(&role(json!([rule(&["*"])])), &wanted), None);
    let own = role(json!([rule(&["get"]), rule(&["delete"])]));
    let merged = reconcile(&own, &wanted).unwrap();
    assert_eq!(merged["rules"], json!([rule(&["get"]), rule(&["delete"]), rule(&["get", "list"])]));
    let mut opted_out = role(json!([]));
    opted_out["metadata"]["annotations"][AUTO_UPDATE] = json!("false");
    assert_eq!(reconcile(&opted_out, &wanted), None);

    let binding = |subjects: Value| json!({ "metadata": { "name": "b" }, "roleRef": {}, "subjects": subjects });
    let merged = reconcile(&binding(json!([{ "name": "own" }])), &binding(json!([{ "name": "ours" }]))).unwrap();
    assert_eq!(merged["subjects"], json!([{ "name": "own" }, { "name": "ours" }]));
}
