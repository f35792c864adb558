//! A small cluster for the tests of all plugins.

use std::collections::BTreeMap;
use std::sync::Arc;

use auth::{Attributes, Authorizer, Decision, Rbac, UserInfo, names};
use serde_json::{Value, json};

use crate::{Chain, Context, Lookup, Operation, PriorityClasses, Refusal, Request};

#[derive(Default, Clone)]
pub struct Objects(BTreeMap<(String, String, String), Value>);

impl Lookup for Objects {
    fn get(&self, _: &str, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.0.get(&(resource.to_owned(), namespace.to_owned(), name.to_owned())).cloned()
    }

    fn list(&self, _: &str, resource: &str, namespace: &str) -> Vec<Value> {
        let here = |key: &(String, String, String)| key.0 == resource && key.1 == namespace;
        self.0.iter().filter(|(key, _)| here(key)).map(|(_, object)| object.clone()).collect()
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

    /// With one object more.
    pub fn with(resource: &str, namespace: &str, name: &str, object: Value) -> Self {
        Self::made(&[], Some((resource, namespace, name, object)))
    }

    pub fn allowing(rights: &[&str]) -> Self {
        Self::made(rights, None)
    }

    fn made(rights: &[&str], more: Option<(&str, &str, &str, Value)>) -> Self {
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
        if let Some((resource, namespace, name, object)) = more {
            add(resource, namespace, name, object);
        }
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

    /// What an administrator's new object in namespace `default` becomes.
    pub fn created(&self, resource: &str, mut object: Value) -> Result<Value, Refusal> {
        let (user, name) = (admin(), object["metadata"]["name"].as_str().unwrap_or_default().to_owned());
        let request = on(&user, Operation::Create, resource, "default", &name);
        self.chain().admit(&request, &mut object)?;
        self.chain().validate(&request, Some(&object))?;
        Ok(object)
    }
}

impl Cluster {
    /// Whether an administrator may resize a pod of namespace `default`.
    pub fn resized(&self, old: &Value, new: &Value) -> Result<(), Refusal> {
        let user = admin();
        let name = new["metadata"]["name"].as_str().unwrap_or_default();
        let request = on(&user, Operation::Update, "pods", "default", name);
        self.chain().validate(&Request { subresource: "resize", old: Some(old), ..request }, Some(new))
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
