//! What is wrong with the rules of a definition's schema (`apiextensions-apiserver/pkg/apis/apiextensions/validation`).

use expressions::{Scope, Ty, mentions};
use kube_cel::cel::IdedExpr;
use serde_json::Value;

use super::expressions::{Known, MARGIN, cost};
use crate::errors::{Errors, Path};
use crate::value::Fields;

/// `StaticEstimatedCostLimit`
const LARGEST_ESTIMATE: u64 = 10_000_000;
const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// Everything wrong with the rules of the schema of a resource.
pub(crate) fn problems(raw: &Value, path: &Path<'_>, errors: &mut Errors) {
    let before = errors.len();
    texts(raw, path, errors);
    if errors.len() == before {
        Place { path, is_resource: true, times: 1, apart: None }.problems(raw, errors);
    }
}

/// What is wrong with rules whatever their expressions say.
fn texts(raw: &Value, path: &Path<'_>, errors: &mut Errors) {
    let rules = path.child("x-kubernetes-validations");
    for (index, rule) in raw.list("x-kubernetes-validations").iter().enumerate() {
        rule_texts(rule, &rules.index(index), errors);
    }
    for (name, inner) in raw.entries("properties") {
        texts(inner, &path.child("properties").key(name), errors);
    }
    for field in ["items", "additionalProperties"] {
        if raw.at(field).is_object() {
            texts(raw.at(field), &path.child(field), errors);
        }
    }
}

fn rule_texts(rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (text, message) = (rule.text("rule"), rule.text("message"));
    let broken = |text: &str| text.trim().contains(['\n', '\r']);
    let is_blank = |text: &str| !text.is_empty() && text.trim().is_empty();
    if text.trim().is_empty() {
        errors.required(&path.child("rule"), "rule is not specified");
    } else if is_blank(message) {
        errors.invalid(&path.child("message"), message, "must be non-empty if specified");
    } else if broken(message) {
        errors.invalid(&path.child("message"), message, "must not contain line breaks");
    } else if broken(text) && message.is_empty() {
        errors.required(&path.child("message"), "message must be specified if rule contains line breaks");
    }
    if is_blank(rule.text("messageExpression")) {
        errors.required(&path.child("messageExpression"), "messageExpression must be non-empty if specified");
    }
    let reason = rule.text("reason");
    if !reason.is_empty() && !REASONS.contains(&reason) {
        errors.not_supported(&path.child("reason"), reason, &REASONS);
    }
}

/// A schema within that of a resource.
#[derive(Clone, Copy)]
struct Place<'a> {
    path: &'a Path<'a>,
    is_resource: bool,
    /// How often there can be a value of it in one object.
    times: u64,
    /// The outermost list around it whose items cannot be told to be those of the object before.
    apart: Option<&'a Path<'a>>,
}

impl Place<'_> {
    fn problems(&self, raw: &Value, errors: &mut Errors) {
        let rules = self.path.child("x-kubernetes-validations");
        for (index, rule) in raw.list("x-kubernetes-validations").iter().enumerate() {
            self.of_rule(raw, rule, &rules.index(index), errors);
        }
        let is_resource = |inner: &Value| inner.flag("x-kubernetes-embedded-resource");
        for (name, inner) in raw.entries("properties") {
            let path = self.path.child("properties");
            Place { path: &path.key(name), is_resource: is_resource(inner), ..*self }.problems(inner, errors);
        }
        for field in ["items", "additionalProperties"] {
            let inner = raw.at(field);
            if !inner.is_object() {
                continue;
            }
            let is_apart = field == "items" && raw.text("x-kubernetes-list-type") != "map";
            let apart = self.apart.or(is_apart.then_some(self.path));
            let times = self.times.saturating_mul(Known::Schema(raw).size());
            let path = self.path.child(field);
            Place { path: &path, is_resource: is_resource(inner), times, apart }.problems(inner, errors);
        }
    }

    fn of_rule(&self, raw: &Value, rule: &Value, path: &Path<'_>, errors: &mut Errors) {
        let Some(object) = Ty::of_schema(raw, self.is_resource) else {
            let why = "failed to convert to declType for CEL validation rules";
            return errors.internal(&self.path.child("x-kubernetes-validations"), why);
        };
        let is_optional = rule.flag("optionalOldSelf");
        let old = if is_optional { Ty::Optional(Box::new(object.clone())) } else { object.clone() };
        let mut scope = Scope::default();
        scope.declare("self", object);
        scope.declare("oldSelf", old);
        let program = match compiled(rule.text("rule"), &scope, &Ty::Bool) {
            Ok(program) => program,
            Err(why) => return errors.invalid_shown(&path.child("rule"), &shown(rule), &why.of_rule()),
        };
        self.expensive(&program, raw, (path, "rule"), errors);
        match (mentions(&program, "oldSelf"), self.apart) {
            (true, Some(apart)) => {
                let why = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {apart}");
                errors.invalid(&path.child("rule"), rule.text("rule"), &why);
            }
            (false, _) if rule.has("optionalOldSelf") => {
                let why = "may not be set if oldSelf is not used in rule";
                errors.invalid(&path.child("optionalOldSelf"), is_optional, why);
            }
            _ => {}
        }
        if rule.text("messageExpression").is_empty() {
            return;
        }
        match compiled(rule.text("messageExpression"), &scope, &Ty::Text) {
            Ok(program) => self.expensive(&program, raw, (path, "messageExpression"), errors),
            Err(why) => errors.invalid_shown(&path.child("messageExpression"), &shown(rule), &why.of_message()),
        }
    }

    fn expensive(&self, program: &IdedExpr, raw: &Value, (path, field): (&Path<'_>, &str), errors: &mut Errors) {
        let cost = cost(program, &["self", "oldSelf"], raw).saturating_mul(self.times);
        if cost <= LARGEST_ESTIMATE * MARGIN {
            return;
        }
        let times = match cost as f64 / LARGEST_ESTIMATE as f64 {
            over if over > 100.0 => "more than 100x".to_owned(),
            over => format!("{over:.1}x"),
        };
        let detail = format!(
            "estimated {field} cost exceeds budget by factor of {times} (try simplifying the rule, or adding maxItems, \
             maxProperties, and maxLength where arrays, maps, and strings are declared)"
        );
        errors.forbidden(&path.child(field), &detail);
    }
}

/// Why an expression cannot be used.
enum Unusable {
    Compilation(String),
    Type,
}

impl Unusable {
    fn of_rule(&self) -> String {
        match self {
            Unusable::Compilation(why) => format!("compilation failed: {why}"),
            Unusable::Type => "cel expression must evaluate to a bool".to_owned(),
        }
    }

    fn of_message(&self) -> String {
        match self {
            Unusable::Compilation(why) => format!("messageExpression compilation failed: {why}"),
            Unusable::Type => "messageExpression must evaluate to a string".to_owned(),
        }
    }
}

/// Reads an expression whose value must be of a type.
fn compiled(text: &str, scope: &Scope, wanted: &Ty) -> Result<IdedExpr, Unusable> {
    match expressions::check(text, scope) {
        Err(why) => Err(Unusable::Compilation(why)),
        Ok(ty) if ty != *wanted && ty != Ty::Dyn => Err(Unusable::Type),
        // What is right may still be more than the engine can do.
        Ok(_) => expressions::expression(text).map_err(|why| Unusable::Compilation(format!("ERROR: {why}"))),
    }
}

/// A rule as upstream prints its own, which have no JSON names.
fn shown(rule: &Value) -> String {
    let fields = ["rule", "message", "messageExpression", "reason", "fieldPath", "optionalOldSelf"];
    let field = |name: &str| {
        let value = match (rule.at(name), name) {
            (Value::Null, "reason" | "optionalOldSelf") => "null".to_owned(),
            (Value::Null, _) => "\"\"".to_owned(),
            (value, _) => value.to_string(),
        };
        let (first, rest) = name.split_at(1);
        format!("\"{}{rest}\":{value}", first.to_uppercase())
    };
    format!("{{{}}}", fields.map(field).join(","))
}
