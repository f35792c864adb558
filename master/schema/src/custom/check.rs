//! Whether a value fits its schema, in the words of `k8s.io/kube-openapi/pkg/validation`.

use serde_json::{Number, Value};

use super::formats;
use super::lists::Counterparts;
use super::schema::{Checks, Schema};
use crate::errors::{Errors, Path};

/// How upstream names an object as a whole.
const WHOLE: Path<'static> = Path::root("<nil>");

/// A value and where it stands.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub value: &'a Value,
    /// What it was before. What did not change is not judged again (KEP-4008).
    pub old: Option<&'a Value>,
    /// `None` at the root.
    pub path: Option<&'a Path<'a>>,
}

impl Place<'_> {
    fn path(&self) -> &Path<'_> {
        self.path.unwrap_or(&WHOLE)
    }

    /// How texts name the place.
    fn name(&self) -> String {
        self.path.map(ToString::to_string).unwrap_or_default()
    }

    /// Says that the value is wrong; `what` follows `NAME in body`.
    fn wrong(&self, shown: impl Into<Value>, what: &str, errors: &mut Errors) {
        let detail = format!("{} in body {what}", self.name());
        errors.invalid(self.path(), shown, &detail);
    }

    fn wrong_type(&self, shown: &str, wanted: &str, errors: &mut Errors) {
        let detail = format!("{} in body must be of type {wanted}: \"{shown}\"", self.name());
        errors.type_invalid(self.path(), shown, &detail);
    }
}

pub(super) fn check(schema: &Schema, place: Place<'_>, errors: &mut Errors) {
    if place.old == Some(place.value) {
        return;
    }
    let (value, checks) = (place.value, &schema.checks);
    if !has_type(schema, place, errors) {
        return;
    }
    if value.is_null() {
        return allowed(checks, place, errors);
    }
    junctions(checks, place, errors);
    match value {
        Value::String(text) => string(checks, text, place, errors),
        Value::Number(found) => number(schema, found, place, errors),
        Value::Array(list) => array(schema, list, place, errors),
        _ => {}
    }
    allowed(checks, place, errors);
    if value.is_object() {
        object(schema, place, errors);
    }
}

/// The JSON type of a value, as schemas call it.
fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn has_type(schema: &Schema, place: Place<'_>, errors: &mut Errors) -> bool {
    let (wanted, found) = match (schema.int_or_string, schema.kind.as_str()) {
        (true, _) => ("integer,string", type_of(place.value)),
        (false, "") => return true,
        (false, kind) => (kind, type_of(place.value)),
    };
    let whole = place.value.as_f64().is_some_and(|number| number.fract() == 0.0);
    let fits = match found {
        "null" => schema.nullable,
        "integer" => wanted.split(',').any(|w| matches!(w, "integer" | "number")),
        "number" => wanted == "number" || (whole && wanted.starts_with("integer")),
        other => wanted.split(',').any(|w| w == other),
    };
    if !fits {
        place.wrong_type(found, wanted, errors);
    }
    fits
}

fn allowed(checks: &Checks, place: Place<'_>, errors: &mut Errors) {
    let Some(allowed) = checks.allowed.as_ref().filter(|allowed| !allowed.contains(place.value)) else { return };
    let shown: Vec<String> =
        allowed.iter().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned)).collect();
    let shown: Vec<&str> = shown.iter().map(String::as_str).collect();
    errors.not_supported(place.path(), place.value.clone(), &shown);
}

fn string(checks: &Checks, text: &str, place: Place<'_>, errors: &mut Errors) {
    let length = text.chars().count() as u64;
    if let Some(most) = checks.max_length.filter(|most| length > *most) {
        errors.too_long(place.path(), usize::try_from(most).unwrap_or(usize::MAX));
    }
    if let Some(least) = checks.min_length.filter(|least| length < *least) {
        place.wrong(text, &format!("should be at least {least} chars long"), errors);
    }
    if let Some(pattern) = checks.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
        place.wrong(text, &format!("should match '{pattern}'"), errors);
    }
    if !formats::has(&checks.format, text) {
        place.wrong_type(text, &checks.format, errors);
    }
}

/// A bound as Go prints it: without decimals where there are none.
fn bound(value: f64) -> String {
    value.to_string()
}

fn number(schema: &Schema, found: &Number, place: Place<'_>, errors: &mut Errors) {
    let (checks, value) = (&schema.checks, found.as_f64().unwrap_or_default());
    let shown = || Value::Number(found.clone());
    if checks.format == "int32" && found.as_i64().is_none_or(|n| i32::try_from(n).is_err()) {
        let what = "must be of type integer with format int32";
        place.wrong(shown(), what, errors);
    }
    if let Some(factor) = checks.multiple_of.filter(|factor| *factor > 0.0)
        && (value / factor).fract() != 0.0
    {
        place.wrong(shown(), &format!("should be a multiple of {}", bound(factor)), errors);
    }
    if let Some(most) = checks.maximum
        && (value > most || (checks.exclusive_maximum && value >= most))
    {
        let or_equal = if checks.exclusive_maximum { "" } else { " or equal to" };
        place.wrong(shown(), &format!("should be less than{or_equal} {}", bound(most)), errors);
    }
    if let Some(least) = checks.minimum
        && (value < least || (checks.exclusive_minimum && value <= least))
    {
        let or_equal = if checks.exclusive_minimum { "" } else { " or equal to" };
        place.wrong(shown(), &format!("should be greater than{or_equal} {}", bound(least)), errors);
    }
}

fn array(schema: &Schema, list: &[Value], place: Place<'_>, errors: &mut Errors) {
    let size = list.len() as u64;
    if let Some(items) = &schema.items {
        let known = Counterparts::new((schema.list_type == "map").then_some(schema.list_keys.as_slice()), place.old);
        for (index, value) in list.iter().enumerate() {
            let path = place.path().index(index);
            let old = known.of(value);
            check(items, Place { value, old, path: Some(&path) }, errors);
        }
    }
    if let Some(least) = schema.checks.min_items.filter(|least| size < *least) {
        place.wrong(size, &format!("should have at least {least} items"), errors);
    }
    if let Some(most) = schema.checks.max_items.filter(|most| size > *most) {
        errors.too_many(place.path(), list.len(), usize::try_from(most).unwrap_or(usize::MAX));
    }
}

fn object(schema: &Schema, place: Place<'_>, errors: &mut Errors) {
    let Value::Object(object) = place.value else { return };
    let (checks, size) = (&schema.checks, object.len() as u64);
    if let Some(least) = checks.min_properties.filter(|least| size < *least) {
        place.wrong(size, &format!("should have at least {least} properties"), errors);
    }
    if let Some(most) = checks.max_properties.filter(|most| size > *most) {
        errors.too_many(place.path(), object.len(), usize::try_from(most).unwrap_or(usize::MAX));
    }
    for (name, value) in object {
        let Some(inner) = schema.field(name) else { continue };
        let path = place.path.map_or_else(|| Path::root(name), |path| path.child(name));
        let old = place.old.and_then(|old| old.get(name));
        check(inner, Place { value, old, path: Some(&path) }, errors);
    }
    for name in checks.required.iter().filter(|name| !object.contains_key(*name)) {
        let path = place.path.map_or_else(|| Path::root(name), |path| path.child(name));
        errors.required(&path, "");
    }
}

/// `allOf`, `anyOf`, `oneOf`, `not`.
fn junctions(checks: &Checks, place: Place<'_>, errors: &mut Errors) {
    let say = |what: String, errors: &mut Errors| {
        errors.invalid(&WHOLE, "", &format!("\"{}\" {what}", place.name()));
    };
    let attempt = |schema: &Schema| {
        let mut found = Errors::default();
        check(schema, place, &mut found);
        found
    };
    if !checks.any_of.is_empty() {
        let tried: Vec<Errors> = checks.any_of.iter().map(attempt).collect();
        if tried.iter().all(|found| !found.is_empty()) {
            say("must validate at least one schema (anyOf)".into(), errors);
            errors.extend(nearest(tried));
        }
    }
    if !checks.one_of.is_empty() {
        let tried: Vec<Errors> = checks.one_of.iter().map(attempt).collect();
        match tried.iter().filter(|found| found.is_empty()).count() {
            1 => {}
            0 => {
                say("must validate one and only one schema (oneOf). Found none valid".into(), errors);
                errors.extend(nearest(tried));
            }
            many => {
                let what = format!("must validate one and only one schema (oneOf). Found {many} valid alternatives");
                say(what, errors);
            }
        }
    }
    if !checks.all_of.is_empty() {
        let tried: Vec<Errors> = checks.all_of.iter().map(attempt).collect();
        let failed = tried.iter().filter(|found| !found.is_empty()).count();
        let none = if failed == tried.len() { ". None validated" } else { "" };
        tried.into_iter().for_each(|found| errors.extend(found));
        if failed > 0 {
            say(format!("must validate all the schemas (allOf){none}"), errors);
        }
    }
    if checks.not.as_ref().is_some_and(|schema| attempt(schema).is_empty()) {
        say("must not validate the schema (not)".into(), errors);
    }
}

/// What the alternative that fits best complains of.
fn nearest(tried: Vec<Errors>) -> Errors {
    tried.into_iter().min_by_key(Errors::len).unwrap_or_default()
}
