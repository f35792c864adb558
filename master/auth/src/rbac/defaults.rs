//! The roles and bindings that a cluster begins with, from `data/roles.yaml`, and how they are kept up to date
//! (`pkg/registry/rbac/reconciliation`: what is missing is added, what a user added stays).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::escalation::breakdown;
use super::{GROUP, PolicyRule, aggregate};

const DATA: &str = include_str!("../../data/roles.yaml");
const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const NODE_ROLE: &str = "system:node";

#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("the default roles cannot be read")]
    Data(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the default roles lack {0}")]
    Missing(&'static str),
}

/// One object of `rbac.authorization.k8s.io/v1` that must exist.
#[derive(Debug, Clone, PartialEq)]
pub struct DefaultObject {
    /// `clusterroles`, `clusterrolebindings`, `roles` or `rolebindings`
    pub resource: &'static str,
    pub namespace: String,
    pub name: String,
    pub object: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Data {
    cluster_roles: Vec<Role>,
    controllers: Vec<Role>,
    roles: Vec<Role>,
    cluster_role_bindings: Vec<ExtraBinding>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Role {
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// The label whose bearers' rules this role gathers.
    aggregate: Option<String>,
    #[serde(default)]
    rules: Vec<PolicyRule>,
    bind_to: Option<BindTo>,
}

#[derive(Deserialize)]
struct ExtraBinding {
    name: String,
    role: String,
    #[serde(rename = "bindTo")]
    bind_to: BindTo,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct BindTo {
    users: Vec<String>,
    groups: Vec<String>,
    /// `namespace/name`
    service_accounts: Vec<String>,
}

/// Every default object, roles before the bindings that name them, aggregated roles filled.
pub fn default_objects() -> Result<Vec<DefaultObject>, PolicyError> {
    let data = data()?;
    let mut roles = Vec::new();
    let mut bindings = Vec::new();
    for role in &data.cluster_roles {
        roles.push(role.object());
        bindings.extend(role.bind_to.as_ref().map(|to| to.binding("", &role.name, &role.name)));
    }
    for controller in &data.controllers {
        let name = format!("system:controller:{}", controller.name);
        let to = BindTo { service_accounts: vec![format!("kube-system/{}", controller.name)], ..BindTo::default() };
        roles.push(Role { name: name.clone(), rules: controller.rules.clone(), ..Role::empty() }.object());
        bindings.push(to.binding("", &name, &name));
    }
    for role in &data.roles {
        roles.push(role.object());
        bindings.extend(role.bind_to.as_ref().map(|to| to.binding(&role.namespace, &role.name, &role.name)));
    }
    bindings.extend(data.cluster_role_bindings.iter().map(|extra| extra.bind_to.binding("", &extra.name, &extra.role)));
    fill_aggregated(&mut roles);
    roles.extend(bindings);
    Ok(roles)
}

/// What every node may do before the Node authorizer looks closer.
pub(crate) fn node_rules() -> Result<Vec<PolicyRule>, PolicyError> {
    let role = data()?.cluster_roles.into_iter().find(|role| role.name == NODE_ROLE);
    role.map(|role| role.rules).ok_or(PolicyError::Missing(NODE_ROLE))
}

/// What to write so that `existing` has all of `wanted`; `None` when nothing is missing or its owner opted out.
pub fn reconcile(existing: &Value, wanted: &Value) -> Option<Value> {
    let opted_out = existing["metadata"]["annotations"].get(AUTO_UPDATE).and_then(Value::as_str) == Some("false");
    if opted_out {
        return None;
    }
    let mut merged = existing.clone();
    for map in ["labels", "annotations"] {
        for (key, value) in wanted["metadata"][map].as_object().into_iter().flatten() {
            if merged["metadata"][map].get(key).is_none() {
                merged["metadata"][map][key] = value.clone();
            }
        }
    }
    add_rules(&mut merged, wanted);
    for subject in wanted["subjects"].as_array().into_iter().flatten() {
        let subjects = merged["subjects"].as_array().cloned().unwrap_or_default();
        if !subjects.contains(subject) {
            merged["subjects"] = subjects.into_iter().chain([subject.clone()]).collect();
        }
    }
    (merged != *existing).then_some(merged)
}

/// Adds those wanted rules that are not covered. Of an aggregated role the rules follow from others.
fn add_rules(merged: &mut Value, wanted: &Value) {
    if wanted.get("aggregationRule").is_some() {
        if merged["aggregationRule"].is_null() {
            merged["aggregationRule"] = wanted["aggregationRule"].clone();
        }
        return;
    }
    let held = PolicyRule::of_role(merged);
    let covered = |rule: &PolicyRule| breakdown(rule).iter().all(|part| held.iter().any(|held| held.covers(part)));
    let missing: Vec<PolicyRule> = PolicyRule::of_role(wanted).into_iter().filter(|rule| !covered(rule)).collect();
    if !missing.is_empty() {
        merged["rules"] = json!(held.iter().chain(&missing).collect::<Vec<_>>());
    }
}

fn data() -> Result<Data, PolicyError> {
    serde_saphyr::from_str(DATA).map_err(|error| PolicyError::Data(Box::new(error)))
}

/// Fills roles with an `aggregationRule` until nothing changes: `admin` gathers `edit`, which gathers `view`.
fn fill_aggregated(roles: &mut [DefaultObject]) {
    loop {
        let all: Vec<Value> = roles.iter().map(|role| role.object.clone()).collect();
        let mut changed = false;
        for role in roles.iter_mut() {
            let Some(rules) = aggregate(&role.object, &all) else { continue };
            let rules = json!(rules);
            changed |= role.object["rules"] != rules;
            role.object["rules"] = rules;
        }
        if !changed {
            return;
        }
    }
}

fn object(resource: &'static str, kind: &str, namespace: &str, name: &str) -> DefaultObject {
    let mut object = json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": kind,
        "metadata": {
            "name": name,
            "annotations": { AUTO_UPDATE: "true" },
            "labels": { "kubernetes.io/bootstrapping": "rbac-defaults" },
        },
    });
    if !namespace.is_empty() {
        object["metadata"]["namespace"] = json!(namespace);
    }
    DefaultObject { resource, namespace: namespace.to_owned(), name: name.to_owned(), object }
}

impl Role {
    fn empty() -> Self {
        Role {
            name: String::new(),
            namespace: String::new(),
            labels: BTreeMap::new(),
            aggregate: None,
            rules: Vec::new(),
            bind_to: None,
        }
    }

    fn object(&self) -> DefaultObject {
        let (resource, kind) =
            if self.namespace.is_empty() { ("clusterroles", "ClusterRole") } else { ("roles", "Role") };
        let mut role = object(resource, kind, &self.namespace, &self.name);
        for (key, value) in &self.labels {
            role.object["metadata"]["labels"][key] = json!(value);
        }
        if let Some(label) = &self.aggregate {
            role.object["aggregationRule"] = json!({ "clusterRoleSelectors": [{ "matchLabels": { label: "true" } }] });
        }
        role.object["rules"] = json!(self.rules);
        role
    }
}

impl BindTo {
    fn binding(&self, namespace: &str, name: &str, role: &str) -> DefaultObject {
        let (resource, kind, role_kind) = if namespace.is_empty() {
            ("clusterrolebindings", "ClusterRoleBinding", "ClusterRole")
        } else {
            ("rolebindings", "RoleBinding", "Role")
        };
        let mut binding = object(resource, kind, namespace, name);
        binding.object["roleRef"] = json!({ "apiGroup": GROUP, "kind": role_kind, "name": role });
        let subjects = self.subjects();
        if !subjects.is_empty() {
            binding.object["subjects"] = json!(subjects);
        }
        binding
    }

    fn subjects(&self) -> Vec<Value> {
        let global = |kind: &str, name: &String| json!({ "apiGroup": GROUP, "kind": kind, "name": name });
        let groups = self.groups.iter().map(|name| global("Group", name));
        let users = self.users.iter().map(|name| global("User", name));
        let accounts = self.service_accounts.iter().filter_map(|account| {
            let (namespace, name) = account.split_once('/')?;
            Some(json!({ "kind": "ServiceAccount", "name": name, "namespace": namespace }))
        });
        groups.chain(users).chain(accounts).collect()
    }
}

#[cfg(test)]
mod tests;
