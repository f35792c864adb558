//! `x-kubernetes-validations`: rules in CEL (KEP-2876), compiled once for each version of a kind.

use kube_cel::{CompiledSchema, ErrorKind, ValidationError, Validator, compile_schema};
use serde_json::Value;

use super::expressions::{Findings, Known, examine};
use crate::errors::{Errors, Path};
use crate::value::Fields;

/// `StaticEstimatedCostLimit`
const LARGEST_ESTIMATE: u64 = 10_000_000;
/// Our estimates are coarser than upstream's: what it takes must not be refused here.
const MARGIN: u64 = 10;
/// `PerCallLimit`, three times: here loops never end early.
const PER_CALL: u64 = 3_000_000;
/// `RuntimeCELCostBudget`, likewise.
const BUDGET: u64 = 30_000_000;
const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

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

/// Everything wrong with the rules of a schema and what lies below it.
pub(crate) fn problems(raw: &Value, path: &Path<'_>, errors: &mut Errors) {
    problems_of(raw, 1, path, errors);
}

/// `times`: how often there can be a value of this schema in one object.
fn problems_of(raw: &Value, times: u64, path: &Path<'_>, errors: &mut Errors) {
    let rules = path.child("x-kubernetes-validations");
    for (index, rule) in raw.list("x-kubernetes-validations").iter().enumerate() {
        let place = rules.index(index);
        rule_problems(rule, &place, errors);
        for field in ["rule", "messageExpression"] {
            let text = Some(rule.text(field)).filter(|text| !text.is_empty());
            if let Some(Ok(program)) = text.map(expressions::program) {
                examined(rule, examine(program.expression(), Known::Schema(raw)), times, (&place, field), errors);
            }
        }
    }
    for (name, inner) in raw.entries("properties") {
        problems_of(inner, times, &path.child("properties").key(name), errors);
    }
    for field in ["items", "additionalProperties"] {
        if raw.at(field).is_object() {
            let times = times.saturating_mul(Known::Schema(raw).size());
            problems_of(raw.at(field), times, &path.child(field), errors);
        }
    }
}

fn examined(rule: &Value, found: Findings, times: u64, (path, field): (&Path<'_>, &str), errors: &mut Errors) {
    let place = path.child(field);
    if let Some(name) = found.undefined {
        let detail = format!("compilation failed: ERROR: undefined field '{name}'");
        errors.invalid(&place, rule.clone(), &detail);
    }
    let cost = found.cost.saturating_mul(times);
    if cost > LARGEST_ESTIMATE * MARGIN {
        let what = if field == "rule" { "estimated rule cost" } else { "estimated messageExpression cost" };
        let times = match cost as f64 / LARGEST_ESTIMATE as f64 {
            over if over > 100.0 => "more than 100x".to_owned(),
            over => format!("{over:.1}x"),
        };
        let detail = format!(
            "{what} exceeds budget by factor of {times} (try simplifying the rule, or adding maxItems, maxProperties, and \
             maxLength where arrays, maps, and strings are declared)"
        );
        errors.forbidden(&place, &detail);
    }
}

fn rule_problems(rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (text, message) = (rule.text("rule"), rule.text("message"));
    let broken = |text: &str| text.trim().contains(['\n', '\r']);
    if text.trim().is_empty() {
        errors.required(&path.child("rule"), "rule is not specified");
        return;
    }
    if !message.is_empty() && message.trim().is_empty() {
        errors.invalid(&path.child("message"), message, "must be non-empty if specified");
    } else if broken(message) {
        errors.invalid(&path.child("message"), message, "must not contain line breaks");
    } else if broken(text) && message.is_empty() {
        errors.required(&path.child("message"), "message must be specified if rule contains line breaks");
    }
    let reason = rule.text("reason");
    if !reason.is_empty() && !REASONS.contains(&reason) {
        errors.not_supported(&path.child("reason"), reason, &REASONS);
    }
    for (field, text) in [("rule", text), ("messageExpression", rule.text("messageExpression"))] {
        if text.is_empty() {
            continue;
        }
        if let Err(why) = expressions::program(text) {
            errors.invalid(&path.child(field), rule.clone(), &format!("compilation failed: ERROR: {why}"));
        }
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
        let cost = examine(rule.program.expression(), Known::Value(value)).cost;
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
