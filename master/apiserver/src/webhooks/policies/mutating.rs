//! MutatingAdmissionPolicies (KEP-3962; `apiserver/pkg/admission/plugin/policy/mutating`).

use json_patch::PatchErrorKind;
use schema::Registry;
use serde_json::{Value, json};

use super::{Invocation, Sort, Unusable, gathered, in_version, is_lenient, list, name, text};
use crate::objects::{OperationError, operate};
use crate::problem::Result;
use crate::server::Core;
use crate::webhooks::reinvocation::Reinvocation;
use crate::webhooks::{Attributes, taken};

pub(super) const SORT: Sort =
    Sort { policies: "mutatingadmissionpolicies", bindings: "mutatingadmissionpolicybindings" };

/// Why a write is refused.
struct Refused {
    message: String,
    reason: &'static str,
}

/// Lets all policies in force change an object.
pub(in crate::webhooks) fn mutate(
    core: &Core,
    attributes: &Attributes<'_>,
    round: &mut Reinvocation,
    object: &mut Value,
) -> Result<()> {
    let (due, unusable) = gathered(core, attributes, Some(object), &SORT);
    let strict = unusable.iter().filter(|broken| !is_lenient(&broken.policy));
    let mut refused: Vec<Refused> = strict.map(Unusable::refused).collect();
    for invocation in due {
        let key = invocation.key();
        if !round.is_due(&key) {
            continue;
        }
        let mut variables = invocation.variables(core, attributes, Some(&invocation.shown(attributes, object)));
        let applies = invocation.applies(&mut variables);
        let lenient = is_lenient(&invocation.policy);
        let before = match applies {
            Ok(false) => continue,
            Ok(true) => object.clone(),
            Err(error) => {
                refused.extend((!lenient).then(|| invocation.refused(&error.to_string())));
                continue;
            }
        };
        for mutation in list(invocation.spec(), "mutations") {
            match invocation.mutated(core, attributes, mutation, object) {
                Ok(changed) => *object = changed,
                Err(why) => refused.extend((!lenient).then(|| invocation.refused(&why))),
            }
        }
        let again = invocation.spec()["reinvocationPolicy"] == "IfNeeded";
        round.asked(key, *object != before, again);
    }
    match refused.first() {
        None => Ok(()),
        Some(first) => {
            let mut problem = attributes.forbidden(Some(object), &first.message);
            problem.message = first.message.clone();
            problem.reason = first.reason;
            let causes: Vec<Value> = refused.iter().map(|one| json!({ "message": one.message })).collect();
            problem.details["causes"] = causes.into();
            Err(problem)
        }
    }
}

impl Unusable {
    fn refused(&self) -> Refused {
        let policy = self.policy.name();
        let message = match &self.binding {
            Some(binding) => format!(
                "policy '{policy}' with binding '{}' denied request: failed to configure binding: {}",
                binding.name(),
                self.why
            ),
            None => format!("policy \"{policy}\" denied request: failed to configure policy: {}", self.why),
        };
        Refused { message, reason: "Forbidden" }
    }
}

impl Invocation {
    /// What tells it apart from others.
    fn key(&self) -> String {
        let param = self.param.as_ref().map(|param| (text(&param["metadata"], "namespace"), name(param)));
        let (namespace, param) = param.unwrap_or_default();
        format!("{}/{}/{namespace}/{param}", self.policy.name(), self.binding.name())
    }

    fn refused(&self, why: &str) -> Refused {
        let (policy, binding) = (self.policy.name(), self.binding.name());
        let message = format!("policy '{policy}' with binding '{binding}' denied request: {why}");
        Refused { message, reason: "Invalid" }
    }

    /// The object in the version that the policy is about.
    fn shown(&self, attributes: &Attributes<'_>, object: &Value) -> Value {
        in_version(attributes.kind, self.version, object)
    }

    /// The object with one mutation, which sees those before it.
    fn mutated(
        &self,
        core: &Core,
        attributes: &Attributes<'_>,
        mutation: &Value,
        object: &Value,
    ) -> Result<Value, String> {
        let shown = self.shown(attributes, object);
        let mut variables = self.variables(core, attributes, Some(&shown));
        let named = list(self.spec(), "variables").iter();
        variables.compose(named.map(|variable| (text(variable, "name"), text(variable, "expression"))));
        let kind = match attributes.body {
            None => self.version,
            Some((group, version, kind)) => {
                let version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
                let known = Registry::builtin().by_kind(&version, kind);
                known.ok_or_else(|| format!("Resource kind {version}, Kind={kind} not found"))?
            }
        };
        let changed = if mutation["patchType"] == "JSONPatch" {
            let patch = variables.json_patch(text(&mutation["jsonPatch"], "expression")).map_err(|e| e.to_string())?;
            patched(shown, patch)?
        } else {
            let expression = text(&mutation["applyConfiguration"], "expression");
            let mut configuration = variables.configuration(expression).map_err(|error| error.to_string())?;
            for field in ["apiVersion", "kind"] {
                configuration[field] = shown[field].clone();
            }
            kind.overlay(&shown, &configuration).map_err(|why| format!("error applying patch: {why}"))?
        };
        let changed = taken(kind, changed).map_err(|problem| problem.message)?;
        Ok(if attributes.body.is_some() { changed } else { in_version(self.version, attributes.kind, &changed) })
    }
}

/// A patch whose test fails changes nothing.
fn patched(object: Value, patch: Value) -> Result<Value, String> {
    let patch: json_patch::Patch = serde_json::from_value(patch).map_err(|error| format!("JSON Patch: {error}"))?;
    let mut changed = object.clone();
    match operate(&mut changed, &patch) {
        Ok(()) => Ok(changed),
        Err(OperationError::Refused(error)) if matches!(error.kind, PatchErrorKind::TestFailed) => Ok(object),
        Err(error) => Err(format!("JSON Patch: {error}")),
    }
}
