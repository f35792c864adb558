use std::sync::Arc;

use crate::{Attributes, Authorizer, Decision, NodeAuthorizer, Rbac, Refusal, names};

/// The chain that kube-apiserver runs with `--authorization-mode=Node,RBAC`: the privileged group, then nodes, then roles.
/// The first that allows decides; reasons of those that did not are joined for the 403.
pub struct Authorizers {
    node: NodeAuthorizer,
    rbac: Arc<Rbac>,
}

impl Authorizers {
    pub fn new(node: NodeAuthorizer, rbac: Arc<Rbac>) -> Self {
        Authorizers { node, rbac }
    }
}

impl Authorizer for Authorizers {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        if attributes.user.in_group(names::PRIVILEGED_GROUP) {
            return Decision::Allow(String::new());
        }
        let mut reasons = Vec::new();
        for authorizer in [&self.node as &dyn Authorizer, self.rbac.as_ref()] {
            match authorizer.authorize(attributes) {
                Decision::NoOpinion(reason) if reason.is_empty() => {}
                Decision::NoOpinion(reason) => reasons.push(reason),
                allow @ Decision::Allow(_) => return allow,
            }
        }
        Decision::NoOpinion(reasons.join("\n"))
    }
}

impl Attributes<'_> {
    /// The 403 for this request, with the authorizer's reason when there is one
    /// (`apiserver/pkg/endpoints/handlers/responsewriters.ForbiddenStatusError`).
    pub fn forbidden(&self, reason: &str) -> Refusal {
        let what = self.describe();
        let why = if reason.is_empty() { what } else { format!("{what}: {reason}") };
        Refusal::forbidden(self.group, self.resource, self.name, &why)
    }

    fn describe(&self) -> String {
        let (user, verb) = (&self.user.username, self.verb);
        if let Some(path) = self.path {
            return format!("User {user:?} cannot {verb} path {path:?}");
        }
        let resource = self.combined_resource();
        let what = format!("User {user:?} cannot {verb} resource {resource:?} in API group {:?}", self.group);
        if self.namespace.is_empty() {
            format!("{what} at the cluster scope")
        } else {
            format!("{what} in the namespace {:?}", self.namespace)
        }
    }

    /// `pods` or `pods/log`, as RBAC rules name it.
    pub(crate) fn combined_resource(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.to_owned()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }
}
