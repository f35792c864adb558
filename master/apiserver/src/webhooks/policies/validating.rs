//! ValidatingAdmissionPolicies (KEP-3488; `apiserver/pkg/admission/plugin/policy/validating`).

use expressions::Variables;
use serde_json::{Value, json};

use super::{Invocation, Sort, Unusable, gathered, in_version, is_lenient, list, text};
use crate::problem::{Problem, Result};
use crate::server::Core;
use crate::webhooks::Attributes;
use crate::webhooks::configured::Configuration;

pub(super) const SORT: Sort =
    Sort { policies: "validatingadmissionpolicies", bindings: "validatingadmissionpolicybindings" };
/// `MaxEvaluatedMessageExpressionSizeBytes`
const LONGEST_MESSAGE: usize = 5 * 1024;

/// A validation that failed.
struct Failure {
    message: String,
    reason: &'static str,
}

impl Failure {
    /// Of a policy that could not be evaluated.
    fn broken(message: String) -> Self {
        Failure { message, reason: "Invalid" }
    }
}

/// What was found out about a write.
#[derive(Default)]
struct Findings {
    /// Why it is refused, if it is: the first reason counts.
    denied: Option<(String, &'static str)>,
    /// What the client must be told.
    told: Vec<String>,
}

/// Judges a write by all policies in force; `Ok` holds what the client must be told.
pub(in crate::webhooks) fn validate(
    core: &Core,
    attributes: &Attributes<'_>,
    object: Option<&Value>,
) -> Result<Vec<String>> {
    let (due, unusable) = gathered(core, attributes, object, &SORT);
    let mut findings = Findings::default();
    for broken in unusable.iter().filter(|broken| !is_lenient(&broken.policy)) {
        findings.deny(&broken.policy, broken.binding.as_deref(), broken.failure());
    }
    for invocation in &due {
        findings.judge(core, attributes, invocation, object);
    }
    match findings.denied {
        Some((message, reason)) => Err(denied(attributes, object, &message, reason)),
        None => Ok(findings.told),
    }
}

impl Unusable {
    fn failure(&self) -> Failure {
        let what = if self.binding.is_some() { "binding" } else { "policy" };
        Failure::broken(format!("failed to configure {what}: {}", self.why))
    }
}

impl Findings {
    fn deny(&mut self, policy: &Configuration, binding: Option<&Configuration>, failure: Failure) {
        let bound = binding.map(|binding| format!(" with binding '{}'", binding.name())).unwrap_or_default();
        let message =
            format!("ValidatingAdmissionPolicy '{}'{bound} denied request: {}", policy.name(), failure.message);
        self.denied.get_or_insert((message, failure.reason));
    }

    fn judge(&mut self, core: &Core, attributes: &Attributes<'_>, invocation: &Invocation, object: Option<&Value>) {
        let object = object.map(|object| in_version(attributes.kind, invocation.version, object));
        let mut variables = invocation.variables(core, attributes, object.as_ref());
        let (policy, binding) = (&invocation.policy, &invocation.binding);
        let failures = match invocation.applies(&mut variables) {
            Ok(false) => return,
            Ok(true) => failures(invocation, &variables),
            Err(_) if is_lenient(policy) => return,
            Err(error) => vec![Failure::broken(error.to_string())],
        };
        for failure in failures {
            for action in list(binding.spec(), "validationActions").iter().filter_map(Value::as_str) {
                let message = failure.message.clone();
                match action {
                    "Deny" => self.deny(policy, Some(binding), Failure { message, reason: failure.reason }),
                    "Warn" => self.told.push(format!(
                        "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {message}",
                        policy.name(),
                        binding.name()
                    )),
                    // There is no audit log that it could be noted in.
                    _ => {}
                }
            }
        }
        // An annotation that cannot be made refuses whatever the binding's actions are.
        for annotation in list(invocation.spec(), "auditAnnotations") {
            match variables.text(text(annotation, "valueExpression")) {
                Err(error) if !is_lenient(policy) => {
                    self.deny(policy, Some(binding), Failure::broken(error.to_string()));
                }
                _ => {}
            }
        }
    }
}

fn failures(invocation: &Invocation, variables: &Variables) -> Vec<Failure> {
    let lenient = is_lenient(&invocation.policy);
    let judge = |validation: &Value| match variables.holds(text(validation, "expression")) {
        Ok(true) => None,
        Ok(false) => Some(Failure { message: said(variables, validation), reason: reason(validation) }),
        Err(_) if lenient => None,
        Err(error) => Some(Failure::broken(error.to_string())),
    };
    list(invocation.spec(), "validations").iter().filter_map(judge).collect()
}

fn said(variables: &Variables, validation: &Value) -> String {
    let given = |field: &str| Some(text(validation, field).trim()).filter(|text| !text.is_empty());
    let made = given("messageExpression").and_then(|expression| variables.text(expression).ok().flatten());
    let made = made.map(|message| message.trim().to_owned());
    let made =
        made.filter(|message| !message.is_empty() && message.len() <= LONGEST_MESSAGE && !message.contains('\n'));
    made.or_else(|| given("message").map(str::to_owned))
        .unwrap_or_else(|| format!("failed expression: {}", given("expression").unwrap_or_default()))
}

fn reason(validation: &Value) -> &'static str {
    match validation["reason"].as_str() {
        Some("Unauthorized") => "Unauthorized",
        Some("Forbidden") => "Forbidden",
        Some("RequestEntityTooLarge") => "RequestEntityTooLarge",
        _ => "Invalid",
    }
}

fn denied(attributes: &Attributes<'_>, object: Option<&Value>, message: &str, reason: &'static str) -> Problem {
    let mut problem = attributes.forbidden(object, message);
    problem.reason = reason;
    problem.code = match reason {
        "Unauthorized" => 401,
        "Forbidden" => 403,
        "RequestEntityTooLarge" => 413,
        _ => 422,
    };
    problem.details["causes"] = json!([{ "message": message }]);
    problem
}
