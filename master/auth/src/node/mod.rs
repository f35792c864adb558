//! The Node authorizer: a node may read what its own pods need and write what is its own
//! (<https://kubernetes.io/docs/reference/access-authn-authz/node/>). NodeRestriction admission narrows the writes further.

mod graph;

use std::sync::Arc;

pub use graph::NodeGraph;
use graph::Target;

use crate::rbac::{PolicyError, PolicyRule, node_rules};
use crate::{Attributes, Authorizer, Decision, UserInfo, names};

const NODE_LEASES: &str = "kube-node-lease";

/// Judges requests of users `system:node:NAME` in the group `system:nodes`; has no opinion on others.
pub struct NodeAuthorizer {
    graph: Arc<NodeGraph>,
    /// What every node may do to resources that are not divided among nodes: the rules of `system:node`.
    rules: Vec<PolicyRule>,
}

/// The node that a user is: `Some("")` for one who claims to be a node but names none, `None` for everyone else.
pub fn node_identity(user: &UserInfo) -> Option<&str> {
    let name = user.username.strip_prefix(names::NODE_USER_PREFIX)?;
    user.in_group(names::NODES_GROUP).then_some(name)
}

impl NodeAuthorizer {
    pub fn new(graph: Arc<NodeGraph>) -> Result<Self, PolicyError> {
        Ok(NodeAuthorizer { graph, rules: node_rules()? })
    }

    fn judge(&self, node: &str, attributes: &Attributes<'_>) -> Result<(), String> {
        if attributes.path.is_none() {
            match (attributes.group, attributes.resource) {
                ("", "secrets") => return self.read_namespaced(node, Target::Secret, attributes),
                ("", "configmaps") => return self.read_namespaced(node, Target::ConfigMap, attributes),
                ("", "persistentvolumeclaims") => return self.claim(node, attributes),
                ("", "persistentvolumes") => return self.get(node, Target::PersistentVolume, attributes),
                ("resource.k8s.io", "resourceclaims") => return self.get(node, Target::ResourceClaim, attributes),
                ("resource.k8s.io", "resourceslices") => return self.slice(node, attributes),
                ("storage.k8s.io", "volumeattachments") => return self.get(node, Target::VolumeAttachment, attributes),
                ("", "serviceaccounts") => return self.create_token(node, attributes),
                ("coordination.k8s.io", "leases") => return lease(node, attributes),
                ("storage.k8s.io", "csinodes") => return csi_node(node, attributes),
                ("", "nodes") => return own_node(node, attributes),
                ("", "pods") => return self.pod(node, attributes),
                _ => {}
            }
        }
        if self.rules.iter().any(|rule| rule.allows(attributes)) { Ok(()) } else { no_reason() }
    }

    fn related(&self, node: &str, target: Target, attributes: &Attributes<'_>) -> Result<(), String> {
        if attributes.name.is_empty() {
            return refuse("No Object name found");
        }
        if self.graph.has_path(node, target, attributes.namespace, attributes.name) {
            Ok(())
        } else {
            Err(format!("no relationship found between node '{node}' and this object"))
        }
    }

    /// Secrets and ConfigMaps: single objects, also by list and watch with a name.
    fn read_namespaced(&self, node: &str, target: Target, attributes: &Attributes<'_>) -> Result<(), String> {
        if !matches!(attributes.verb, "get" | "list" | "watch") {
            return refuse("can only read resources of this type");
        }
        if !attributes.subresource.is_empty() {
            return refuse("cannot read subresource");
        }
        if attributes.namespace.is_empty() {
            return refuse("can only read namespaced object of this type");
        }
        self.related(node, target, attributes)
    }

    fn get(&self, node: &str, target: Target, attributes: &Attributes<'_>) -> Result<(), String> {
        if attributes.verb != "get" {
            return refuse("can only get individual resources of this type");
        }
        if !attributes.subresource.is_empty() {
            return refuse("cannot get subresource");
        }
        self.related(node, target, attributes)
    }

    fn claim(&self, node: &str, attributes: &Attributes<'_>) -> Result<(), String> {
        if attributes.subresource != "status" {
            return self.get(node, Target::PersistentVolumeClaim, attributes);
        }
        if !matches!(attributes.verb, "update" | "patch") {
            return refuse("can only get/update/patch this type");
        }
        self.related(node, Target::PersistentVolumeClaim, attributes)
    }

    fn slice(&self, node: &str, attributes: &Attributes<'_>) -> Result<(), String> {
        if !attributes.subresource.is_empty() {
            return refuse("cannot authorize ResourceSlice subresources");
        }
        match attributes.verb {
            // What is in it is not known yet: NodeRestriction looks at it then.
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" => self.related(node, Target::ResourceSlice, attributes),
            "watch" | "list" | "deletecollection" if selects(attributes.field_selector, "spec.nodeName", node) => {
                Ok(())
            }
            "watch" | "list" | "deletecollection" => {
                refuse("can only list/watch/deletecollection resourceslices with nodeName field selector")
            }
            _ => refuse(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, \
                 deletecollection",
            ),
        }
    }

    fn create_token(&self, node: &str, attributes: &Attributes<'_>) -> Result<(), String> {
        if attributes.verb == "get" && attributes.subresource.is_empty() {
            return self.related(node, Target::ServiceAccount, attributes);
        }
        if attributes.verb != "create" || attributes.name.is_empty() {
            return refuse("can only create tokens for individual service accounts");
        }
        if attributes.subresource != "token" {
            return refuse("can only create token subresource of serviceaccount");
        }
        self.related(node, Target::ServiceAccount, attributes)
    }

    fn pod(&self, node: &str, attributes: &Attributes<'_>) -> Result<(), String> {
        match (attributes.subresource, attributes.verb) {
            ("", "get") => self.related(node, Target::Pod, attributes),
            ("", "list" | "watch") if selects(attributes.field_selector, "spec.nodeName", node) => Ok(()),
            ("", "list" | "watch") if !attributes.name.is_empty() => self.related(node, Target::Pod, attributes),
            ("", "list" | "watch") => refuse("can only list/watch pods with spec.nodeName field selector"),
            // NodeRestriction lets it touch only its own.
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
            _ => no_reason(),
        }
    }
}

impl Authorizer for NodeAuthorizer {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let verdict = match node_identity(attributes.user) {
            None => no_reason(),
            Some("") => Err(format!("unknown node for user {:?}", attributes.user.username)),
            Some(node) => self.judge(node, attributes),
        };
        match verdict {
            Ok(()) => Decision::Allow(String::new()),
            Err(reason) => Decision::NoOpinion(reason),
        }
    }
}

fn lease(node: &str, attributes: &Attributes<'_>) -> Result<(), String> {
    if !matches!(attributes.verb, "get" | "create" | "update" | "patch" | "delete") {
        return refuse("can only get, create, update, patch, or delete a node lease");
    }
    if attributes.namespace != NODE_LEASES {
        return Err(format!("can only access leases in the {NODE_LEASES:?} system namespace"));
    }
    // The name is not known on create; NodeRestriction looks at it then.
    if attributes.verb != "create" && attributes.name != node {
        return refuse("can only access node lease with the same name as the requesting node");
    }
    Ok(())
}

fn csi_node(node: &str, attributes: &Attributes<'_>) -> Result<(), String> {
    if !matches!(attributes.verb, "get" | "create" | "update" | "patch" | "delete") {
        return refuse("can only get, create, update, patch, or delete a CSINode");
    }
    if !attributes.subresource.is_empty() {
        return refuse("cannot authorize CSINode subresources");
    }
    if attributes.verb != "create" && attributes.name != node {
        return refuse("can only access CSINode with the same name as the requesting node");
    }
    Ok(())
}

fn own_node(node: &str, attributes: &Attributes<'_>) -> Result<(), String> {
    match (attributes.subresource, attributes.verb) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
        ("", "get" | "list" | "watch") => match named(attributes) {
            name if name == node => Ok(()),
            "" => Err(format!("node '{node}' cannot read all nodes, only its own Node object")),
            name => Err(format!("node '{node}' cannot read '{name}', only its own Node object")),
        },
        _ => no_reason(),
    }
}

/// The single object that a request is about, by path or by `fieldSelector=metadata.name=NAME`.
fn named<'a>(attributes: &Attributes<'a>) -> &'a str {
    if !attributes.name.is_empty() {
        return attributes.name;
    }
    selected(attributes.field_selector, "metadata.name").unwrap_or_default()
}

fn selects(selector: &str, field: &str, value: &str) -> bool {
    selected(selector, field) == Some(value)
}

/// The value that a field selector demands of `field` by `=` or `==`.
fn selected<'a>(selector: &'a str, field: &str) -> Option<&'a str> {
    selector.split(',').find_map(|term| {
        let value = term.trim().strip_prefix(field)?.strip_prefix('=')?;
        Some(value.strip_prefix('=').unwrap_or(value))
    })
}

fn refuse(reason: &str) -> Result<(), String> {
    Err(reason.to_owned())
}

fn no_reason() -> Result<(), String> {
    Err(String::new())
}

#[cfg(test)]
mod tests;
