use serde_json::json;

use crate::Operation::{Create, Delete, Update};
use crate::testing::{Cluster, admin, on};

#[test]
fn a_missing_namespace_is_named() {
    let (cluster, user) = (Cluster::new(), admin());
    let mut object = json!({ "metadata": { "name": "c" } });
    for operation in [Create, Update] {
        let refusal =
            cluster.chain().admit(&on(&user, operation, "configmaps", "nowhere", "c"), &mut object).unwrap_err();
        assert_eq!((refusal.code, refusal.reason), (404, "NotFound"));
        assert_eq!(refusal.message, "namespaces \"nowhere\" not found");
        assert_eq!(refusal.details, json!({ "name": "nowhere", "kind": "namespaces" }));
    }
}

#[test]
fn nothing_new_in_a_namespace_that_is_going() {
    let (cluster, user) = (Cluster::new(), admin());
    let mut object = json!({ "metadata": { "name": "c" } });
    let refusal = cluster.chain().admit(&on(&user, Create, "configmaps", "dying", "c"), &mut object).unwrap_err();
    assert_eq!((refusal.code, refusal.reason), (403, "Forbidden"));
    assert_eq!(
        refusal.message,
        "configmaps \"c\" is forbidden: unable to create new content in namespace dying because it is being terminated"
    );
    assert_eq!(
        refusal.details["causes"],
        json!([{
            "reason": "NamespaceTerminating",
            "message": "namespace dying is being terminated",
            "field": "metadata.namespace",
        }])
    );
    cluster.chain().admit(&on(&user, Update, "configmaps", "dying", "c"), &mut object).unwrap();
    cluster.chain().validate(&on(&user, Delete, "configmaps", "dying", "c"), None).unwrap();
}

#[test]
fn what_a_cluster_needs_stays() {
    let (cluster, user) = (Cluster::new(), admin());
    for name in ["default", "kube-system", "kube-public"] {
        let refusal = cluster.chain().validate(&on(&user, Delete, "namespaces", "", name), None).unwrap_err();
        assert_eq!(refusal.message, format!("namespaces \"{name}\" is forbidden: this namespace may not be deleted"));
    }
    cluster.chain().validate(&on(&user, Delete, "namespaces", "", "kube-node-lease"), None).unwrap();
}

#[test]
fn an_access_review_does_not_tell() {
    let (cluster, user) = (Cluster::new(), admin());
    let request = crate::Request {
        group: "authorization.k8s.io",
        ..on(&user, Create, "localsubjectaccessreviews", "nowhere", "")
    };
    cluster.chain().admit(&request, &mut json!({})).unwrap();
}
