//! RBAC: an index over Roles, ClusterRoles and their bindings that answers at once who may do what.

mod aggregation;
mod defaults;
pub mod escalation;
mod rule;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use serde::Deserialize;
use serde_json::Value;

pub use aggregation::aggregate;
pub(crate) use defaults::node_rules;
pub use defaults::{DefaultObject, PolicyError, default_objects, reconcile};
pub use rule::PolicyRule;

use crate::{Attributes, Authorizer, Decision, Observer, UserInfo, names};

pub(crate) const GROUP: &str = "rbac.authorization.k8s.io";
const INTERESTS: [(&str, &str); 4] =
    [(GROUP, "roles"), (GROUP, "clusterroles"), (GROUP, "rolebindings"), (GROUP, "clusterrolebindings")];

/// The RBAC authorizer (`plugin/pkg/auth/authorizer/rbac`); fed as an [`Observer`].
#[derive(Debug, Default)]
pub struct Rbac {
    index: RwLock<Index>,
}

/// Roles are kept by `(namespace, name)`, ClusterRoles with an empty namespace. Bindings are found by namespace and
/// subject, so that a request looks only at those that name its user or one of its groups.
#[derive(Debug, Default)]
struct Index {
    roles: HashMap<Scoped, Arc<[PolicyRule]>>,
    bindings: HashMap<Scoped, Arc<Binding>>,
    by_subject: HashMap<String, HashMap<SubjectKey, BTreeMap<String, Arc<Binding>>>>,
}

type Scoped = (String, String);

/// Whom a binding names, as requests show them: a ServiceAccount is the user that its token gives.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum SubjectKey {
    User(String),
    Group(String),
}

#[derive(Debug)]
struct Binding {
    namespace: String,
    name: String,
    role: RoleRef,
    subjects: Vec<Subject>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct RoleRef {
    pub kind: String,
    pub name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Subject {
    kind: String,
    name: String,
    namespace: String,
}

/// One binding that names the user, with the rules it grants or what is missing.
struct Grant<'a> {
    binding: &'a Binding,
    subject: SubjectKey,
    rules: Result<&'a [PolicyRule], String>,
}

impl Subject {
    fn key(&self, binding_namespace: &str) -> Option<SubjectKey> {
        match self.kind.as_str() {
            "User" => Some(SubjectKey::User(self.name.clone())),
            "Group" => Some(SubjectKey::Group(self.name.clone())),
            "ServiceAccount" => {
                let namespace = if self.namespace.is_empty() { binding_namespace } else { &self.namespace };
                (!namespace.is_empty())
                    .then(|| SubjectKey::User(format!("{}{namespace}:{}", names::SERVICE_ACCOUNT_PREFIX, self.name)))
            }
            _ => None,
        }
    }

    fn describe(&self) -> String {
        if self.kind == "ServiceAccount" {
            format!("ServiceAccount \"{}/{}\"", self.name, self.namespace)
        } else {
            format!("{} {:?}", self.kind, self.name)
        }
    }
}

impl Binding {
    fn from_object(namespace: &str, name: &str, object: &Value) -> Option<Self> {
        let subjects = object.get("subjects").and_then(Value::as_array).into_iter().flatten();
        Some(Binding {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            role: RoleRef::deserialize(object.get("roleRef")?).ok()?,
            subjects: subjects.filter_map(|subject| Subject::deserialize(subject).ok()).collect(),
        })
    }

    fn keys(&self) -> impl Iterator<Item = SubjectKey> + '_ {
        self.subjects.iter().filter_map(|subject| subject.key(&self.namespace))
    }

    /// As upstream explains an allowed request.
    fn describe(&self, key: &SubjectKey) -> String {
        let subject = self.subjects.iter().find(|subject| subject.key(&self.namespace).as_ref() == Some(key));
        let subject = subject.map(Subject::describe).unwrap_or_default();
        let RoleRef { kind, name } = &self.role;
        if self.namespace.is_empty() {
            format!("ClusterRoleBinding {:?} of {kind} {name:?} to {subject}", self.name)
        } else {
            format!("RoleBinding \"{}/{}\" of {kind} {name:?} to {subject}", self.name, self.namespace)
        }
    }
}

impl Index {
    fn set_role(&mut self, scoped: Scoped, object: Option<&Value>) {
        match object {
            Some(role) => self.roles.insert(scoped, PolicyRule::of_role(role).into()),
            None => self.roles.remove(&scoped),
        };
    }

    fn set_binding(&mut self, scoped: Scoped, object: Option<&Value>) {
        if let Some(old) = self.bindings.remove(&scoped) {
            self.unlink(&old);
        }
        let Some(binding) = object.and_then(|object| Binding::from_object(&scoped.0, &scoped.1, object)) else {
            return;
        };
        let binding = Arc::new(binding);
        let subjects = self.by_subject.entry(scoped.0.clone()).or_default();
        for key in binding.keys() {
            subjects.entry(key).or_default().insert(scoped.1.clone(), Arc::clone(&binding));
        }
        self.bindings.insert(scoped, binding);
    }

    fn unlink(&mut self, binding: &Binding) {
        let Some(subjects) = self.by_subject.get_mut(&binding.namespace) else { return };
        for key in binding.keys() {
            if let Some(bindings) = subjects.get_mut(&key) {
                bindings.remove(&binding.name);
                if bindings.is_empty() {
                    subjects.remove(&key);
                }
            }
        }
        if subjects.is_empty() {
            self.by_subject.remove(&binding.namespace);
        }
    }

    /// Every grant to `user` at the cluster scope, then in `namespace` when there is one.
    fn grants<'a>(&'a self, user: &'a UserInfo, namespace: &'a str) -> impl Iterator<Item = Grant<'a>> + 'a {
        let scopes = std::iter::once("").chain((!namespace.is_empty()).then_some(namespace));
        scopes.filter_map(|scope| self.by_subject.get(scope)).flat_map(move |subjects| {
            let keys = std::iter::once(SubjectKey::User(user.username.clone()))
                .chain(user.groups.iter().cloned().map(SubjectKey::Group));
            keys.flat_map(move |subject| {
                let bindings = subjects.get(&subject).into_iter().flat_map(BTreeMap::values);
                bindings.map(move |binding| Grant {
                    binding,
                    subject: subject.clone(),
                    rules: self.rules_of(&binding.role, &binding.namespace),
                })
            })
        })
    }

    fn rules_of(&self, role: &RoleRef, namespace: &str) -> Result<&[PolicyRule], String> {
        let (scope, resource) = match role.kind.as_str() {
            "ClusterRole" => ("", "clusterrole"),
            "Role" => (namespace, "role"),
            other => return Err(format!("unsupported role reference kind: {other:?}")),
        };
        let rules = self.roles.get(&(scope.to_owned(), role.name.clone()));
        rules.map(AsRef::as_ref).ok_or_else(|| format!("{resource}.{GROUP} {:?} not found", role.name))
    }
}

impl Rbac {
    pub fn new() -> Self {
        Self::default()
    }

    fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every rule that `user` has in `namespace`, for rules reviews and escalation checks, and what could not be resolved.
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> (Vec<PolicyRule>, Vec<String>) {
        let index = self.index();
        let (mut rules, mut errors) = (Vec::new(), Vec::new());
        for grant in index.grants(user, namespace) {
            match grant.rules {
                Ok(granted) => rules.extend_from_slice(granted),
                Err(error) if !errors.contains(&error) => errors.push(error),
                Err(_) => {}
            }
        }
        (rules, errors)
    }

    /// The rules behind a `roleRef`.
    pub(crate) fn role_rules(&self, role: &RoleRef, namespace: &str) -> Result<Vec<PolicyRule>, String> {
        self.index().rules_of(role, namespace).map(<[PolicyRule]>::to_vec)
    }
}

impl Authorizer for Rbac {
    fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
        let index = self.index();
        let mut errors: Vec<String> = Vec::new();
        for grant in index.grants(attributes.user, attributes.namespace) {
            match grant.rules {
                Ok(rules) if rules.iter().any(|rule| rule.allows(attributes)) => {
                    return Decision::Allow(format!("RBAC: allowed by {}", grant.binding.describe(&grant.subject)));
                }
                Ok(_) => {}
                Err(error) if !errors.contains(&error) => errors.push(error),
                Err(_) => {}
            }
        }
        Decision::NoOpinion(match errors.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        })
    }
}

impl Observer for Rbac {
    fn interests(&self) -> &[(&'static str, &'static str)] {
        &INTERESTS
    }

    fn observe(&self, group: &str, resource: &str, namespace: &str, name: &str, object: Option<&Value>) {
        if group != GROUP {
            return;
        }
        let mut index = self.index.write().unwrap_or_else(PoisonError::into_inner);
        let scoped = (namespace.to_owned(), name.to_owned());
        match resource {
            "roles" | "clusterroles" => index.set_role(scoped, object),
            "rolebindings" | "clusterrolebindings" => index.set_binding(scoped, object),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
