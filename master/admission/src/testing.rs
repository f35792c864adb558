//! A small cluster for the tests of all plugins.

use std::collections::BTreeMap;
use std::sync::Arc;

use auth::{Attributes, Authorizer, Decision, Rbac, UserInfo, names};
use serde_json::{Value, json};

use crate::{Chain, Context, Lookup, Operation, PriorityClasses, Request};

#[derive(Default, Clone)]
pub struct Objects(BTreeMap<(String, String, String), Value>);

impl Lookup for Objects {
    fn get(&self, _: &str, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.0.get(&(resource.to_owned(), namespace.to_owned(), name.to_owned())).cloned()
    }
}

/// Allows users in `system:masters` everything and others what is listed: `verb resource/name`.
struct Listed(Vec<String>);

impl Authorizer for Listed {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let wanted = format!("{} {}/{}", attributes.verb, attributes.resource, attributes.name);
        if attributes.user.in_group(names::PRIVILEGED_GROUP) || self.0.contains(&wanted) {
            Decision::Allow(String::new())
        } else {
            Decision::NoOpinion(String::new())
        }
    }
}

pub struct Cluster {
    context: Context,
}

impl Cluster {
    /// Namespaces `default` and, being deleted, `dying`; node n1; pod default/mine on n1, default/other on n2.
    pub fn new() -> Self {
        Self::allowing(&[])
    }

    pub fn allowing(rights: &[&str]) -> Self {
        let mut objects = Objects::default();
        let mut add = |resource: &str, namespace: &str, name: &str, mut object: Value| {
            object["metadata"]["name"] = json!(name);
            object["metadata"]["uid"] = json!(format!("uid-{name}"));
            objects.0.insert((resource.to_owned(), namespace.to_owned(), name.to_owned()), object);
        };
        add("namespaces", "", "default", json!({ "status": { "phase": "Active" } }));
        add("namespaces", "", "young", json!({ "status": { "phase": "Active" } }));
        add("namespaces", "", "dying", json!({ "status": { "phase": "Terminating" } }));
        add("namespaces", "", "kube-node-lease", json!({ "status": { "phase": "Active" } }));
        add("serviceaccounts", "default", "default", json!({}));
        add("serviceaccounts", "default", "quiet", json!({ "automountServiceAccountToken": false }));
        add("serviceaccounts", "default", "puller", json!({ "imagePullSecrets": [{ "name": "registry" }] }));
        add("nodes", "", "n1", json!({}));
        let token =
            json!([{ "name": "t", "projected": { "sources": [{ "serviceAccountToken": { "path": "token" } }] } }]);
        add("pods", "default", "mine", json!({ "spec": { "nodeName": "n1", "volumes": token } }));
        add("pods", "default", "other", json!({ "spec": { "nodeName": "n2" } }));
        let context = Context {
            lookup: Arc::new(objects),
            authorizer: Arc::new(Listed(rights.iter().map(ToString::to_string).collect())),
            rbac: Arc::new(Rbac::new()),
            priority_classes: Arc::new(PriorityClasses::new()),
        };
        Cluster { context }
    }

    pub fn context(&self) -> &Context {
        &self.context
    }

    pub fn chain(&self) -> Chain {
        Chain::new(self.context.clone())
    }
}

pub fn admin() -> UserInfo {
    UserInfo::new("kubernetes-admin", &[names::PRIVILEGED_GROUP, names::ALL_AUTHENTICATED])
}

pub fn node_user(node: &str) -> UserInfo {
    UserInfo::new(format!("{}{node}", names::NODE_USER_PREFIX), &[names::NODES_GROUP, names::ALL_AUTHENTICATED])
}

/// A request about a resource of the core group; others by struct update.
pub fn on<'a>(
    user: &'a UserInfo,
    operation: Operation,
    resource: &'a str,
    namespace: &'a str,
    name: &'a str,
) -> Request<'a> {
    Request { user, operation, group: "", resource, subresource: "", namespace, name, old: None }
}
