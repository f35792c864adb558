//! What does not fit in the expressions of a policy (`apiserver/pkg/admission/plugin/policy/validating/typechecking.go`). Pure.

use std::fmt;

use expressions::{Declared, Scope, Ty, admission, check};
use k8s_openapi::api::admissionregistration::v1::{
    ExpressionWarning, NamedRuleWithOperations, ValidatingAdmissionPolicy, ValidatingAdmissionPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;

/// `maxTypesToCheck`
const MOST_TYPES: usize = 10;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GroupVersionKind {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) kind: String,
}

impl fmt::Display for GroupVersionKind {
    /// As Go prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}, Kind={}", self.group, self.version, self.kind)
    }
}

impl GroupVersionKind {
    pub(super) fn path(&self) -> String {
        path(&self.group, &self.version)
    }
}

fn path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GroupVersionResource {
    group: String,
    version: String,
    resource: String,
}

impl GroupVersionResource {
    pub(super) fn path(&self) -> String {
        path(&self.group, &self.version)
    }

    /// The kind of the resource, as discovery has it.
    pub(super) fn kind(&self, list: &APIResourceList) -> Option<GroupVersionKind> {
        let found = list.resources.iter().find(|resource| resource.name == self.resource)?;
        Some(GroupVersionKind { group: self.group.clone(), version: self.version.clone(), kind: found.kind.clone() })
    }
}

/// The types that expressions are checked against.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub(super) kinds: Vec<(GroupVersionKind, Ty)>,
    /// Of a policy that has parameters.
    pub(super) params: Option<Ty>,
}

/// Whether the policy changed since it was checked.
pub(super) fn is_due(policy: &ValidatingAdmissionPolicy) -> bool {
    let observed = policy.status.as_ref().and_then(|status| status.observed_generation).unwrap_or(0);
    policy.metadata.generation.unwrap_or(0) > observed
}

/// The resources that rules name without wildcards, sorted rule by rule.
pub(super) fn resources(policy: &ValidatingAdmissionPolicy) -> Vec<GroupVersionResource> {
    let spec = policy.spec.as_ref();
    let rules = spec.and_then(|spec| spec.match_constraints.as_ref()?.resource_rules.as_ref());
    rules.into_iter().flatten().flat_map(named).collect()
}

fn named(rule: &NamedRuleWithOperations) -> Vec<GroupVersionResource> {
    let sorted = |list: &Option<Vec<String>>| {
        let mut list = list.clone().unwrap_or_default();
        list.sort();
        list
    };
    let (groups, versions) = (sorted(&rule.api_groups), sorted(&rule.api_versions));
    if groups.iter().chain(&versions).any(|text| text.contains('*')) {
        return Vec::new();
    }
    let mut resources = sorted(&rule.resources);
    resources.retain(|resource| !resource.contains(['*', '/']));
    let mut all = Vec::new();
    for group in &groups {
        for version in &versions {
            all.extend(resources.iter().map(|resource| GroupVersionResource {
                group: group.clone(),
                version: version.clone(),
                resource: resource.clone(),
            }));
        }
    }
    all
}

/// Each kind once, in order, and not too many.
pub(super) fn choose(kinds: &mut Vec<GroupVersionKind>) {
    kinds.truncate(MOST_TYPES);
    kinds.sort();
    kinds.dedup();
}

pub(super) fn param_kind(policy: &ValidatingAdmissionPolicy) -> Option<GroupVersionKind> {
    let wanted = policy.spec.as_ref()?.param_kind.as_ref()?;
    let version = wanted.api_version.as_deref().unwrap_or_default();
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let kind = wanted.kind.clone().unwrap_or_default();
    Some(GroupVersionKind { group: group.to_owned(), version: version.to_owned(), kind })
}

/// A warning for each expression that does not fit one of the types.
pub(super) fn warnings(policy: &ValidatingAdmissionPolicy, checked: &Checked) -> Vec<ExpressionWarning> {
    let Some(spec) = &policy.spec else { return Vec::new() };
    let scopes: Vec<(&GroupVersionKind, Scope)> =
        checked.kinds.iter().map(|(kind, ty)| (kind, scope(spec, ty, checked.params.as_ref()))).collect();
    let judge = |expression: &str, field_ref: String| {
        let issues: Vec<String> = scopes
            .iter()
            .filter_map(|(kind, scope)| Some(format!("{kind}: {}\n", check(expression, scope).err()?)))
            .collect();
        (!issues.is_empty()).then(|| ExpressionWarning { field_ref, warning: issues.join("\n") })
    };
    let mut found = Vec::new();
    for (index, validation) in spec.validations.iter().flatten().enumerate() {
        found.extend(judge(&validation.expression, format!("spec.validations[{index}].expression")));
        if let Some(made) = validation.message_expression.as_deref().filter(|made| !made.is_empty()) {
            found.extend(judge(made, format!("spec.validations[{index}].messageExpression")));
        }
    }
    found
}

/// What the expressions know when they are about objects of a type.
fn scope(spec: &ValidatingAdmissionPolicySpec, object: &Ty, params: Option<&Ty>) -> Scope {
    let known = admission(Declared { object: Some(object.clone()), params: params.cloned(), patches: false });
    let mut variables: Vec<(&str, Ty)> = Vec::new();
    let with = |variables: &[(&str, Ty)]| {
        let mut scope = known.clone();
        scope.declare("variables", Ty::object("kubernetes.variables", variables));
        scope
    };
    for variable in spec.variables.iter().flatten() {
        let ty = check(&variable.expression, &with(&variables)).unwrap_or(Ty::Dyn);
        variables.push((variable.name.as_str(), ty));
    }
    if variables.is_empty() { known } else { with(&variables) }
}
