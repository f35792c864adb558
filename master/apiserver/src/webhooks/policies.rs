//! ValidatingAdmissionPolicies: expressions that judge writes, where a binding puts them into force (KEP-3488).

use std::sync::Arc;

use admission::Lookup as _;
use admission::cel::Variables;
use schema::Kind;
use serde_json::Value;

use super::{Attributes, GROUP, matching, review, selected, version};
use crate::hooks::CacheLookup;
use crate::problem::{Problem, Result};
use crate::server::Core;

const POLICIES: &str = "validatingadmissionpolicies";
const BINDINGS: &str = "validatingadmissionpolicybindings";

/// A validation that failed.
struct Failure {
    message: String,
    reason: &'static str,
}

/// Judges a write by all policies in force; `Ok` holds what the client must be told.
pub(super) fn validate(core: &Core, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<Vec<String>> {
    let mut told = Vec::new();
    if attributes.kind.group == GROUP {
        return Ok(told);
    }
    let lookup = CacheLookup(Arc::clone(&core.store));
    for binding in lookup.list(GROUP, BINDINGS, "") {
        let name = binding["spec"]["policyName"].as_str().unwrap_or_default();
        let Some(policy) = lookup.get(GROUP, POLICIES, "", name) else { continue };
        let judge = Judge { core, lookup: &lookup, attributes, policy: &policy["spec"], binding: &binding["spec"] };
        let failures = judge.failures(object)?;
        let Some(first) = failures.first() else { continue };
        let bound = binding["metadata"]["name"].as_str().unwrap_or_default();
        let acts = |wanted: &str| {
            binding["spec"]["validationActions"].as_array().into_iter().flatten().any(|action| action == wanted)
        };
        if acts("Deny") {
            let message =
                format!("ValidatingAdmissionPolicy '{name}' with binding '{bound}' denied request: {}", first.message);
            return Err(denied(attributes, object, &message, first.reason));
        }
        if acts("Warn") {
            told.extend(failures.iter().map(|failure| {
                format!(
                    "Validation failed for ValidatingAdmissionPolicy '{name}' with binding '{bound}': {}",
                    failure.message
                )
            }));
        }
    }
    Ok(told)
}

fn denied(attributes: &Attributes<'_>, object: Option<&Value>, message: &str, reason: &'static str) -> Problem {
    let kind = attributes.kind;
    let named = object.and_then(|object| object["metadata"]["name"].as_str()).unwrap_or_default();
    let name = if attributes.name.is_empty() { named } else { attributes.name };
    let mut problem: Problem = auth::Refusal::forbidden(kind.group, kind.plural, name, message).into();
    problem.reason = reason;
    problem.code = match reason {
        "Unauthorized" => 401,
        "Forbidden" => 403,
        "RequestEntityTooLarge" => 413,
        _ => 422,
    };
    problem.details["causes"] = serde_json::json!([{ "message": message }]);
    problem
}

/// One policy and one binding of it.
struct Judge<'a> {
    core: &'a Core,
    lookup: &'a CacheLookup,
    attributes: &'a Attributes<'a>,
    /// `spec` of both.
    policy: &'a Value,
    binding: &'a Value,
}

impl Judge<'_> {
    fn failures(&self, object: Option<&Value>) -> Result<Vec<Failure>> {
        let Some(version) = self.version(object) else { return Ok(Vec::new()) };
        let shown = |object: &Value| match std::ptr::eq(version, self.attributes.kind) {
            true => object.clone(),
            false => version.from_storage(self.attributes.kind.to_storage(object.clone())),
        };
        let (object, old) = (object.map(shown), self.attributes.old.map(shown));
        let params = match self.params()? {
            Params::None => vec![None],
            Params::Found(list) => list.into_iter().map(Some).collect(),
            Params::Missing(why) => return Ok(vec![Failure { message: why, reason: "Invalid" }]),
        };
        let mut failures = Vec::new();
        for param in params {
            let mut variables = self.variables(version, (object.as_ref(), old.as_ref()));
            if let Some(param) = param {
                variables.set("params", &param);
            }
            failures.extend(self.judged(variables));
        }
        Ok(failures)
    }

    /// The version of the object that the policy is about; `None` where it is not about it, or the binding is not.
    fn version(&self, object: Option<&Value>) -> Option<&'static Kind> {
        let about = |matches: &Value| -> Option<&'static Kind> {
            let version = version(self.core, self.attributes, matches, "resourceRules")?;
            let excluded = matching::any(matches, "excludeResourceRules", &self.attributes.place(version));
            (!excluded && selected(self.core, self.attributes, matches, object)).then_some(version)
        };
        let version = about(&self.policy["matchConstraints"])?;
        let narrowed = &self.binding["matchResources"];
        if narrowed.is_null() {
            return Some(version);
        }
        let has_rules = narrowed["resourceRules"].as_array().is_some_and(|rules| !rules.is_empty());
        let fits = if has_rules {
            about(narrowed).is_some()
        } else {
            selected(self.core, self.attributes, narrowed, object)
                && !matching::any(narrowed, "excludeResourceRules", &self.attributes.place(version))
        };
        fits.then_some(version)
    }

    fn variables(&self, version: &'static Kind, (object, old): (Option<&Value>, Option<&Value>)) -> Variables {
        let mut request = review::request(self.attributes, version, (None, None));
        if let Some(request) = request.as_object_mut() {
            ["object", "oldObject", "uid"].iter().for_each(|field| {
                request.remove(*field);
            });
        }
        let mut variables = Variables::default();
        variables.set("object", object.unwrap_or(&Value::Null));
        variables.set("oldObject", old.unwrap_or(&Value::Null));
        variables.set("request", &request);
        let namespace = Some(self.attributes.namespace).filter(|name| !name.is_empty());
        let namespace = namespace.and_then(|name| self.lookup.get("", "namespaces", "", name));
        variables.set("namespaceObject", namespace.as_ref().unwrap_or(&Value::Null));
        variables
    }

    fn judged(&self, mut variables: Variables) -> Vec<Failure> {
        let text = |object: &'_ Value, field: &str| object[field].as_str().unwrap_or_default().to_owned();
        let list = |field: &str| self.policy[field].as_array().map(Vec::as_slice).unwrap_or_default();
        let is_lenient = self.policy["failurePolicy"] == "Ignore";
        for condition in list("matchConditions") {
            match variables.holds(&text(condition, "expression")) {
                Ok(true) => {}
                Ok(false) => return Vec::new(),
                Err(_) if is_lenient => return Vec::new(),
                Err(error) => return vec![Failure { message: error.to_string(), reason: "Invalid" }],
            }
        }
        let named: Vec<(String, String)> =
            list("variables").iter().map(|variable| (text(variable, "name"), text(variable, "expression"))).collect();
        variables.compose(named.iter().map(|(name, expression)| (name.as_str(), expression.as_str())));
        let judge = |validation: &Value| {
            let expression = text(validation, "expression");
            match variables.holds(&expression) {
                Ok(true) => None,
                Ok(false) => Some(Failure { message: said(&variables, validation), reason: reason(validation) }),
                Err(_) if is_lenient => None,
                Err(error) => Some(Failure { message: error.to_string(), reason: "Invalid" }),
            }
        };
        list("validations").iter().filter_map(judge).collect()
    }

    fn params(&self) -> Result<Params> {
        let (kind, reference) = (&self.policy["paramKind"], &self.binding["paramRef"]);
        if kind.is_null() || reference.is_null() {
            return Ok(Params::None);
        }
        let text = |object: &'_ Value, field: &str| object[field].as_str().unwrap_or_default().to_owned();
        let registry = self.core.kinds.registry();
        let Some(kind) = registry.by_kind(&text(kind, "apiVersion"), &text(kind, "kind")) else {
            return Ok(Params::Missing(format!(
                "failed to find resource referenced by paramKind: '{}'",
                text(kind, "kind")
            )));
        };
        let own = text(reference, "namespace");
        let namespace = match (kind.namespaced, own.is_empty()) {
            (false, _) => String::new(),
            (true, false) => own,
            (true, true) => self.attributes.namespace.to_owned(),
        };
        let name = text(reference, "name");
        let found: Vec<Value> = if name.is_empty() {
            let all = self.lookup.list(kind.storage.group, kind.storage.plural, &namespace);
            all.into_iter().filter(|o| schema::selects(&reference["selector"], &o["metadata"]["labels"])).collect()
        } else {
            self.lookup.get(kind.storage.group, kind.storage.plural, &namespace, &name).into_iter().collect()
        };
        match (found.is_empty(), reference["parameterNotFoundAction"] == "Deny") {
            (false, _) => Ok(Params::Found(found.into_iter().map(|object| kind.from_storage(object)).collect())),
            (true, true) => {
                Ok(Params::Missing("no params found for policy binding with `Deny` parameterNotFoundAction".into()))
            }
            (true, false) => Ok(Params::Found(Vec::new())),
        }
    }
}

/// The parameters of a policy.
enum Params {
    /// It has none.
    None,
    Found(Vec<Value>),
    /// There are none, and there should be.
    Missing(String),
}

fn said(variables: &Variables, validation: &Value) -> String {
    let text = |field: &str| validation[field].as_str().map(str::trim).filter(|text| !text.is_empty());
    let made = text("messageExpression").and_then(|expression| variables.text(expression).ok().flatten());
    made.or_else(|| text("message").map(str::to_owned))
        .unwrap_or_else(|| format!("failed expression: {}", text("expression").unwrap_or_default()))
}

fn reason(validation: &Value) -> &'static str {
    match validation["reason"].as_str() {
        Some("Unauthorized") => "Unauthorized",
        Some("Forbidden") => "Forbidden",
        Some("RequestEntityTooLarge") => "RequestEntityTooLarge",
        _ => "Invalid",
    }
}
