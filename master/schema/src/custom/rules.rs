//! `x-kubernetes-validations`: rules in CEL (KEP-2876), read once for each version of a kind
//! (`apiextensions-apiserver/pkg/apiserver/schema/cel`). What a definition is told of its rules is in `rule_problems.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use expressions::{CelError, Programs, Shape, Variables, WHOLE, mentions};
use serde_json::Value;

use super::lists::Counterparts;
use crate::errors::{Errors, Path};
use crate::value::Fields;

/// `MaxEvaluatedMessageExpressionSizeBytes`
const LONGEST_MESSAGE: usize = 5 * 1024;
const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

/// The rules of a schema, and what they were read as.
pub(super) struct Rules {
    root: Node,
    programs: Arc<Programs>,
}

/// The rules of one place in a schema, and of those inside it that have any.
struct Node {
    rules: Vec<Rule>,
    /// `type`, which stands for values that are not shown.
    kind: String,
    shape: Arc<Shape>,
    properties: BTreeMap<String, Node>,
    items: Option<Box<Node>>,
    additional: Option<Box<Node>>,
    all_of: Vec<Node>,
    /// By what items of a list are told apart, if by anything.
    list_keys: Option<Vec<String>>,
}

struct Rule {
    text: String,
    message: String,
    message_expression: String,
    reason: String,
    /// Of `fieldPath`, as errors show it.
    field: String,
    is_about_old: bool,
    is_old_optional: bool,
}

/// The rules of a schema; `None` where it has none.
pub(super) fn compile(raw: &Value) -> Option<Rules> {
    let shape = Arc::new(Shape::of(raw));
    let root = Node::of(raw, raw, &shape)?;
    Some(Rules { root, programs: Arc::default() })
}

impl Node {
    /// Rules of `raw`, about values of the schema `spine`.
    fn of(raw: &Value, spine: &Value, shape: &Arc<Shape>) -> Option<Node> {
        let inner = |field: &str, shape: Option<&Arc<Shape>>| {
            let (raw, spine) = (raw.at(field), spine.at(field));
            Node::of(raw, spine, shape.filter(|_| raw.is_object())?).map(Box::new)
        };
        let property = |(name, raw): (&String, &Value)| {
            let node = Node::of(raw, spine.at("properties").at(name), shape.field(name)?)?;
            Some((name.clone(), node))
        };
        let is_map = spine.text("x-kubernetes-list-type") == "map";
        let keys = spine.list("x-kubernetes-list-map-keys").iter().filter_map(Value::as_str).map(str::to_owned);
        let node = Node {
            rules: raw.list("x-kubernetes-validations").iter().map(Rule::of).collect(),
            kind: spine.text("type").to_owned(),
            shape: Arc::clone(shape),
            properties: raw.entries("properties").filter_map(property).collect(),
            items: inner("items", shape.items()),
            additional: inner("additionalProperties", shape.values()),
            all_of: raw.list("allOf").iter().filter_map(|raw| Node::of(raw, spine, shape)).collect(),
            list_keys: is_map.then(|| keys.collect()),
        };
        let is_empty = node.rules.is_empty()
            && node.properties.is_empty()
            && node.items.is_none()
            && node.additional.is_none()
            && node.all_of.is_empty();
        (!is_empty).then_some(node)
    }
}

impl Rule {
    fn of(rule: &Value) -> Self {
        let text = |field: &str| rule.text(field).to_owned();
        let read = expressions::expression(rule.text("rule"));
        Rule {
            text: text("rule"),
            message: rule.text("message").trim().to_owned(),
            message_expression: text("messageExpression"),
            reason: text("reason"),
            field: rule.text("fieldPath").trim_start_matches('.').replace("['", "[").replace("']", "]"),
            is_about_old: read.is_ok_and(|read| mentions(&read, "oldSelf")),
            is_old_optional: rule.flag("optionalOldSelf"),
        }
    }

    /// How errors name it.
    fn name(&self) -> &str {
        if self.message.is_empty() { self.text.trim() } else { &self.message }
    }
}

/// Judges an object; a rule about `oldSelf` counts only where there is an old one, unless it says otherwise.
pub(super) fn check(rules: &Rules, object: &Value, old: Option<&Value>, errors: &mut Errors) {
    expressions::with_room(|| {
        let variables = Variables::with(Arc::clone(&rules.programs));
        variables.grant(WHOLE);
        let mut judge = Judge { variables, errors };
        // That it ended early is said.
        let _ = judge.judge(&rules.root, Place { value: object, old, around: None, path: None });
    });
}

/// A value, where it stands, and what it was.
#[derive(Clone, Copy)]
struct Place<'a> {
    value: &'a Value,
    old: Option<&'a Value>,
    /// The nearest value around it of which it is known what it was: what it is, and was.
    around: Option<(&'a Value, &'a Value)>,
    /// `None` at the root.
    path: Option<&'a Path<'a>>,
}

impl<'a> Place<'a> {
    /// A value inside this one.
    fn inside(self, value: &'a Value, old: Option<&'a Value>, path: &'a Path<'a>) -> Place<'a> {
        let around = self.old.map(|old| (self.value, old)).or(self.around);
        Place { value, old, around, path: Some(path) }
    }

    /// Whether it is as it was: what was let in once is not refused for what it is (KEP-4008).
    fn is_unchanged(self) -> bool {
        self.old.map(|old| (self.value, old)).or(self.around).is_some_and(|(now, before)| now == before)
    }
}

/// No further rules are run.
struct Ended;

struct Judge<'a> {
    variables: Variables,
    errors: &'a mut Errors,
}

impl Judge<'_> {
    fn judge(&mut self, node: &Node, place: Place<'_>) -> Result<(), Ended> {
        if place.value.is_null() {
            return Ok(());
        }
        self.own_rules(node, place)?;
        for node in &node.all_of {
            // What these refuse is refused, unchanged or not.
            self.judge(node, Place { around: None, ..place })?;
        }
        match place.value {
            Value::Array(list) => {
                let Some(items) = &node.items else { return Ok(()) };
                let old = Counterparts::new(node.list_keys.as_deref(), place.old);
                for (index, item) in list.iter().enumerate() {
                    let path = child(place.path, |path| path.index(index));
                    self.judge(items, place.inside(item, old.of(item), &path))?;
                }
            }
            Value::Object(object) => {
                for (name, value) in object {
                    let old = place.old.and_then(|old| old.get(name));
                    let (inner, path) = match (node.properties.get(name), node.additional.as_deref()) {
                        (Some(inner), _) => (inner, place.path.map_or(Path::root(name), |path| path.child(name))),
                        (None, Some(inner)) => (inner, child(place.path, |path| path.key(name))),
                        (None, None) => continue,
                    };
                    self.judge(inner, place.inside(value, old, &path))?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn own_rules(&mut self, node: &Node, place: Place<'_>) -> Result<(), Ended> {
        if node.rules.is_empty() {
            return Ok(());
        }
        self.variables.bind("self", place.value, &node.shape);
        for rule in &node.rules {
            if rule.is_about_old && place.old.is_none() && !rule.is_old_optional {
                continue;
            }
            match (rule.is_about_old, place.old) {
                (true, old) if rule.is_old_optional => self.variables.bind_optional("oldSelf", old, &node.shape),
                (true, Some(old)) => self.variables.bind("oldSelf", old, &node.shape),
                _ => {}
            }
            match self.variables.holds(&rule.text) {
                Ok(true) => {}
                Ok(false) | Err(CelError::Type { .. }) => self.refuse(node, rule, place)?,
                Err(error) => self.failed(node, rule, place, &error)?,
            }
        }
        Ok(())
    }

    /// Says why a rule has no value.
    fn failed(&mut self, node: &Node, rule: &Rule, place: Place<'_>, error: &CelError) -> Result<(), Ended> {
        let path = place.path.unwrap_or(&ROOT);
        let kind = node.kind.as_str();
        let CelError::Evaluate { reason, .. } = error else {
            let (detail, ended) = match error {
                CelError::OutOfBudget => (OUT_OF_BUDGET.to_owned(), Err(Ended)),
                other => (format!("rule compile error: {other}"), Ok(())),
            };
            self.errors.invalid(path, kind, &detail);
            return ended;
        };
        let name = rule.name();
        if reason.starts_with("operation cancelled") {
            let what = "no further validation rules will be run due to call cost exceeds limit for rule";
            self.errors.invalid(path, kind, &format!("'{reason}': {what}: {name}"));
            return Err(Ended);
        }
        let detail = match reason.as_str() {
            "no such overload" => {
                let what = "call arguments did not match a supported operator, function or macro signature for rule";
                format!("'{reason}': {what}: {name}")
            }
            _ => format!("{reason} evaluating rule: {name}"),
        };
        self.errors.invalid(path, kind, &detail);
        Ok(())
    }

    /// Says that a rule does not hold.
    fn refuse(&mut self, node: &Node, rule: &Rule, place: Place<'_>) -> Result<(), Ended> {
        let whole = place.path.unwrap_or(&ROOT);
        let field = match (place.path, rule.field.as_str()) {
            (_, "") => None,
            (Some(path), field) => Some(path.child(field)),
            (None, field) => Some(Path::root(field)),
        };
        let path = field.as_ref().unwrap_or(whole);
        let message = self.message(rule);
        if !rule.is_about_old && place.is_unchanged() {
            return Ok(());
        }
        let detail = match message {
            Ok(message) => message,
            Err(detail) => {
                self.errors.invalid(path, node.kind.as_str(), detail);
                return Err(Ended);
            }
        };
        let is_shown = !matches!(node.kind.as_str(), "object" | "array");
        let value = Some(place.value.clone()).filter(|_| is_shown);
        match (rule.reason.as_str(), value) {
            ("FieldValueRequired", _) => self.errors.required(path, &detail),
            ("FieldValueForbidden", _) => self.errors.forbidden(path, &detail),
            ("FieldValueDuplicate", Some(value)) => self.errors.duplicate(path, value),
            (_, Some(value)) => self.errors.invalid(path, value, &detail),
            (_, None) => self.errors.wrong(path, &detail),
        }
        Ok(())
    }

    /// What is said of a rule that does not hold; an error where that costs too much.
    fn message(&self, rule: &Rule) -> Result<String, &'static str> {
        let said = || match rule.message.as_str() {
            "" => format!("failed rule: {}", rule.text.trim()),
            message => message.to_owned(),
        };
        if rule.message_expression.is_empty() {
            return Ok(said());
        }
        match self.variables.text(&rule.message_expression) {
            Ok(text) => {
                let text = text.unwrap_or_default().trim().to_owned();
                let fits = !text.is_empty() && text.len() <= LONGEST_MESSAGE && !text.contains('\n');
                Ok(if fits { text } else { said() })
            }
            Err(CelError::OutOfBudget) => {
                Err("messageExpression evaluation failed due to running out of cost budget, \
                                               no further validation rules will be run")
            }
            Err(_) => Ok(said()),
        }
    }
}

/// How upstream names an object as a whole.
const ROOT: Path<'static> = Path::root("<nil>");

/// The path of something inside a place; an object as a whole is no list and no map.
fn child<'a>(path: Option<&'a Path<'a>>, step: impl FnOnce(&'a Path<'a>) -> Path<'a>) -> Path<'a> {
    step(path.unwrap_or(&ROOT))
}
