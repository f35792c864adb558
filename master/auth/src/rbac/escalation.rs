//! Nobody may grant what he does not have: the checks that upstream makes when a Role or a binding is written
//! (`pkg/registry/rbac/*/policybased`, `pkg/registry/rbac/validation`).

use std::collections::HashMap;

use serde::Deserialize as _;
use serde_json::Value;

use super::{GROUP, PolicyRule, Rbac, RoleRef};
use crate::{Attributes, Authorizer, Refusal, UserInfo, names};

/// Into how many single permissions a role is taken apart. Lists of a few thousand words each would make more of them than
/// there is memory.
const MOST_PARTS: usize = 100_000;

/// One write of an RBAC object.
pub struct Write<'a> {
    pub user: &'a UserInfo,
    /// `roles`, `clusterroles`, `rolebindings` or `clusterrolebindings`; others are not judged.
    pub resource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub old: Option<&'a Value>,
    pub new: &'a Value,
}

/// Refuses a create or update that would grant more than its user has, unless he may `escalate` or `bind`.
pub fn check(rbac: &Rbac, authorizer: &dyn Authorizer, write: &Write<'_>) -> Result<(), Refusal> {
    if write.user.in_group(names::PRIVILEGED_GROUP) {
        return Ok(());
    }
    match write.resource {
        "roles" | "clusterroles" => check_role(rbac, authorizer, write),
        "rolebindings" | "clusterrolebindings" => check_binding(rbac, authorizer, write),
        _ => Ok(()),
    }
}

fn check_role(rbac: &Rbac, authorizer: &dyn Authorizer, write: &Write<'_>) -> Result<(), Refusal> {
    if write.is_only_for_garbage_collection() || write.may(authorizer, "escalate", write.resource, write.name) {
        return Ok(());
    }
    write.confirm(rbac, &PolicyRule::of_role(write.new))?;
    // An aggregating role may come to hold anything, so that only who has everything may write it.
    let aggregates = aggregates(write.new) || write.old.is_some_and(aggregates);
    if aggregates && write.confirm(rbac, &everything()).is_err() {
        let why = "must have cluster-admin privileges to use the aggregationRule";
        return Err(Refusal::forbidden(GROUP, write.resource, write.name, why));
    }
    Ok(())
}

fn check_binding(rbac: &Rbac, authorizer: &dyn Authorizer, write: &Write<'_>) -> Result<(), Refusal> {
    let role = write.new.get("roleRef").and_then(|role| RoleRef::deserialize(role).ok()).unwrap_or_default();
    let resource = if role.kind == "ClusterRole" { "clusterroles" } else { "roles" };
    if write.is_only_for_garbage_collection() || write.may(authorizer, "bind", resource, &role.name) {
        return Ok(());
    }
    match rbac.role_rules(&role, write.namespace) {
        Ok(rules) => write.confirm(rbac, &rules),
        Err(error) => Err(Refusal::not_found_text(GROUP, resource, &role.name, error)),
    }
}

fn aggregates(role: &Value) -> bool {
    let selectors = role.pointer("/aggregationRule/clusterRoleSelectors").and_then(Value::as_array);
    selectors.is_some_and(|selectors| !selectors.is_empty())
}

fn everything() -> [PolicyRule; 2] {
    let all = || vec!["*".to_owned()];
    [
        PolicyRule { verbs: all(), api_groups: all(), resources: all(), ..PolicyRule::default() },
        PolicyRule { verbs: all(), non_resource_urls: all(), ..PolicyRule::default() },
    ]
}

impl Write<'_> {
    fn may(&self, authorizer: &dyn Authorizer, verb: &str, resource: &str, name: &str) -> bool {
        let attributes = Attributes {
            group: GROUP,
            version: "v1",
            resource,
            namespace: self.namespace,
            name,
            ..Attributes::of(self.user, verb)
        };
        authorizer.authorize(&attributes).allowed()
    }

    /// The garbage collector may remove owners and finalizers of roles that it could not write
    /// (`rbacregistry.IsOnlyMutatingGCFields`).
    fn is_only_for_garbage_collection(&self) -> bool {
        let rest = |object: &Value| {
            let mut rest = object.clone();
            if let Some(metadata) = rest["metadata"].as_object_mut() {
                for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion"] {
                    metadata.remove(field);
                }
            }
            rest
        };
        self.old.is_some_and(|old| rest(old) == rest(self.new))
    }

    fn confirm(&self, rbac: &Rbac, wanted: &[PolicyRule]) -> Result<(), Refusal> {
        if wanted.iter().map(parts_of).fold(0, usize::saturating_add) > MOST_PARTS {
            let why = format!(
                "its rules grant more than {MOST_PARTS} single permissions, too many to be compared with yours"
            );
            return Err(Refusal::forbidden(GROUP, self.resource, self.name, &why));
        }
        let (held, errors) = rbac.rules_for(self.user, self.namespace);
        let missing: Vec<PolicyRule> =
            wanted.iter().flat_map(breakdown).filter(|wanted| !held.iter().any(|rule| rule.covers(wanted))).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let mut missing: Vec<String> = compact(missing).iter().map(describe).collect();
        missing.sort();
        missing.dedup();
        let mut why = format!(
            "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
            self.user.username,
            quoted(&self.user.groups),
            missing.join("\n")
        );
        if !errors.is_empty() {
            why.push_str(&format!("; resolution errors: [{}]", errors.join(" ")));
        }
        Err(Refusal::forbidden(GROUP, self.resource, self.name, &why))
    }
}

/// How many rules [`breakdown`] makes of one.
fn parts_of(rule: &PolicyRule) -> usize {
    let resources = rule.api_groups.len().saturating_mul(rule.resources.len());
    let resources = resources.saturating_mul(rule.resource_names.len().max(1));
    rule.verbs.len().saturating_mul(resources.saturating_add(rule.non_resource_urls.len()))
}

/// A rule as rules of one verb and one group, resource and name, or one URL.
pub(super) fn breakdown(rule: &PolicyRule) -> Vec<PolicyRule> {
    let one = |text: &String| vec![text.clone()];
    let names: Vec<Vec<String>> =
        if rule.resource_names.is_empty() { vec![Vec::new()] } else { rule.resource_names.iter().map(one).collect() };
    let mut parts = Vec::new();
    for verb in &rule.verbs {
        for url in &rule.non_resource_urls {
            parts.push(PolicyRule { verbs: one(verb), non_resource_urls: one(url), ..PolicyRule::default() });
        }
        let pairs =
            rule.api_groups.iter().flat_map(|group| rule.resources.iter().map(move |resource| (group, resource)));
        for (group, resource) in pairs {
            parts.extend(names.iter().map(|names| PolicyRule {
                verbs: one(verb),
                api_groups: one(group),
                resources: one(resource),
                resource_names: names.clone(),
                ..PolicyRule::default()
            }));
        }
    }
    parts
}

/// Joins the verbs of parts about the same resource, so that the message is short.
fn compact(parts: Vec<PolicyRule>) -> Vec<PolicyRule> {
    let mut joined: Vec<PolicyRule> = Vec::new();
    let mut places = HashMap::new();
    for part in parts {
        let about = (part.api_groups.clone(), part.resources.clone(), part.resource_names.clone());
        let place = part.non_resource_urls.is_empty().then(|| *places.entry(about).or_insert(joined.len()));
        match place.and_then(|place| joined.get_mut(place)) {
            Some(rule) => rule.verbs.extend(part.verbs),
            None => joined.push(part),
        }
    }
    joined
}

/// As upstream's `CompactString` prints a rule.
fn describe(rule: &PolicyRule) -> String {
    let fields = [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("ResourceNames", &rule.resource_names),
        ("Verbs", &rule.verbs),
    ];
    let shown: Vec<String> = fields
        .iter()
        .filter(|(_, values)| !values.is_empty())
        .map(|(name, values)| format!("{name}:{}", quoted(values)))
        .collect();
    format!("{{{}}}", shown.join(", "))
}

/// As Go's `%q` prints a slice.
fn quoted(values: &[String]) -> String {
    let values: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
    format!("[{}]", values.join(" "))
}
