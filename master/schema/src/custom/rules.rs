//! `x-kubernetes-validations`: rules in CEL (KEP-2876), compiled once for each version of a kind. What a definition is told of
//! its rules is in `rule_problems.rs`.

use kube_cel::{CompiledSchema, ErrorKind, ValidationError, Validator, compile_schema};
use serde_json::Value;

use super::expressions::{Known, cost};
use crate::errors::{Errors, Path};

/// `PerCallLimit`, three times: here loops never end early.
const PER_CALL: u64 = 3_000_000;
/// `RuntimeCELCostBudget`, likewise.
const BUDGET: u64 = 30_000_000;

/// The rules of a schema; `None` where it has none.
pub(super) fn compile(raw: &Value) -> Option<CompiledSchema> {
    has_rules(raw).then(|| expressions::with_room(|| compile_schema(raw)))
}

fn has_rules(raw: &Value) -> bool {
    match raw {
        Value::Object(object) => {
            object.get("x-kubernetes-validations").is_some_and(Value::is_array) || object.values().any(has_rules)
        }
        Value::Array(list) => list.iter().any(has_rules),
        _ => false,
    }
}

/// Judges an object; a rule about `oldSelf` counts only where there is an old one.
pub(super) fn check(rules: &CompiledSchema, object: &Value, old: Option<&Value>, errors: &mut Errors) {
    expressions::with_room(|| check_here(rules, object, old, errors));
}

fn check_here(rules: &CompiledSchema, object: &Value, old: Option<&Value>, errors: &mut Errors) {
    // The engine counts no costs: what would run too long must not begin.
    let mut budget = BUDGET;
    if afford(rules, object, None, &mut budget, errors).is_none() {
        return;
    }
    let Err(found) = Validator::new().validate_compiled(rules, object, old) else { return };
    for error in found {
        say(&error, object, errors);
    }
}

/// Takes the costs of all rules off the budget; `None`, and an error, where it does not suffice.
fn afford(
    rules: &CompiledSchema,
    value: &Value,
    at: Option<&Path<'_>>,
    budget: &mut u64,
    errors: &mut Errors,
) -> Option<()> {
    for rule in rules.validations.iter().flatten() {
        let cost = cost(rule.program.expression(), Known::Value(value));
        let whole = Path::root("<nil>");
        let path = at.unwrap_or(&whole);
        if cost > PER_CALL {
            let rule = &rule.rule.rule;
            let why = "'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule";
            errors.wrong(path, &format!("{why}: {rule}"));
            return None;
        }
        let Some(left) = budget.checked_sub(cost) else {
            let why = "validation failed due to running out of cost budget, no further validation rules will be run";
            errors.wrong(path, why);
            return None;
        };
        *budget = left;
    }
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let inner = rules.properties.get(name).or(rules.additional_properties.as_deref());
                let path = at.map_or_else(|| Path::root(name), |at| at.child(name));
                if let Some(inner) = inner {
                    afford(inner, value, Some(&path), budget, errors)?;
                }
            }
        }
        Value::Array(list) => {
            let (Some(inner), Some(at)) = (rules.items.as_deref(), at) else { return Some(()) };
            for (index, item) in list.iter().enumerate() {
                afford(inner, item, Some(&at.index(index)), budget, errors)?;
            }
        }
        _ => {}
    }
    Some(())
}

fn say(error: &ValidationError, object: &Value, errors: &mut Errors) {
    let path = Path::root(if error.field_path.is_empty() { "<nil>" } else { &error.field_path });
    let value = lookup(object, &error.field_path).filter(|value| !value.is_object() && !value.is_array());
    let detail = match error.kind {
        ErrorKind::ValidationFailure => error.message.clone(),
        _ => format!("{} evaluating rule: {}", error.message, error.rule),
    };
    match (error.reason.as_deref(), value) {
        (Some("FieldValueRequired"), _) => errors.required(&path, &detail),
        (Some("FieldValueForbidden"), _) => errors.forbidden(&path, &detail),
        (Some("FieldValueDuplicate"), Some(value)) => errors.duplicate_because(&path, value.clone(), &detail),
        (_, Some(value)) => errors.invalid(&path, value.clone(), &detail),
        (_, None) => errors.wrong(&path, &detail),
    }
}

/// What stands at `spec.list[0].name`.
fn lookup<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    let mut at = object;
    for step in path.split(['.', '[']).filter(|step| !step.is_empty()) {
        at = match step.strip_suffix(']').map(str::parse::<usize>) {
            Some(Ok(index)) => at.get(index)?,
            Some(Err(_)) => at.get(step.trim_end_matches(']'))?,
            None => at.get(step)?,
        };
    }
    Some(at)
}
