//! What an expression in CEL can be told before it runs: fields that no schema declares, and about what it costs
//! (`apiserver/pkg/cel/library/cost.go`). Costs are estimates from above: of every loop all turns count.

use expressions::unescaped;
use kube_cel::cel::common::ast::{Expr, IdedExpr};
use serde_json::Value;

use crate::value::Fields;

/// The largest request body, which bounds what no schema bounds.
const LARGEST: u64 = 3 * 1024 * 1024;
/// How much a byte of text counts that is looked through.
const OF_TEXT: u64 = 10;

/// What is known of a value.
#[derive(Clone, Copy)]
pub(super) enum Known<'a> {
    /// What its schema says.
    Schema(&'a Value),
    /// The value itself.
    Value(&'a Value),
    Nothing,
}

impl<'a> Known<'a> {
    /// How many items or bytes it can have.
    pub(super) fn size(self) -> u64 {
        match self {
            Known::Schema(schema) => {
                let bound = |field: &str, least: u64| schema.at(field).as_u64().unwrap_or(LARGEST / least);
                match schema.text("type") {
                    "array" => bound("maxItems", least_size(schema.at("items")) + 1),
                    "object" if schema.at("additionalProperties").is_object() => bound("maxProperties", 6),
                    "string" => bound("maxLength", 1),
                    _ => 1,
                }
            }
            Known::Value(Value::Array(list)) => list.len() as u64,
            Known::Value(Value::Object(map)) => map.len() as u64,
            Known::Value(Value::String(text)) => text.len() as u64,
            Known::Value(_) | Known::Nothing => 1,
        }
    }

    /// An item of a list; of a real one the largest.
    fn item(self) -> Known<'a> {
        match self {
            Known::Schema(schema) if schema.at("items").is_object() => Known::Schema(schema.at("items")),
            Known::Value(Value::Array(list)) => {
                list.iter().max_by_key(|item| Known::Value(item).size()).map_or(Known::Nothing, Known::Value)
            }
            _ => Known::Nothing,
        }
    }

    /// A field; the error is that there can be none of this name.
    fn field(self, name: &str) -> Result<Known<'a>, ()> {
        match self {
            Known::Value(value) => Ok(value.get(name).map_or(Known::Nothing, Known::Value)),
            Known::Nothing => Ok(Known::Nothing),
            Known::Schema(schema) => match schema.at("properties").get(name) {
                Some(declared) => Ok(Known::Schema(declared)),
                None if schema.at("additionalProperties").is_object() => {
                    Ok(Known::Schema(schema.at("additionalProperties")))
                }
                None if is_closed(schema) && !matches!(name, "apiVersion" | "kind" | "metadata") => Err(()),
                None => Ok(Known::Nothing),
            },
        }
    }
}

/// Whether a schema names all fields that there can be.
fn is_closed(schema: &Value) -> bool {
    schema.text("type") == "object"
        && schema.at("properties").is_object()
        && !schema.flag("x-kubernetes-preserve-unknown-fields")
        && !schema.flag("x-kubernetes-embedded-resource")
}

/// How short the JSON of a value can be.
fn least_size(schema: &Value) -> u64 {
    match schema.text("type") {
        "boolean" => 4,
        "integer" | "number" => 1,
        _ => 2,
    }
}

/// What is found out about an expression.
#[derive(Default)]
pub(super) struct Findings {
    pub cost: u64,
    /// A field that is asked for, and that no schema declares.
    pub undefined: Option<String>,
}

/// Names and what is known of their values, innermost last.
type Scope<'a> = Vec<(&'a str, Known<'a>)>;

/// Looks through an expression about `self` and `oldSelf`.
pub(super) fn examine<'a>(expression: &'a IdedExpr, object: Known<'a>) -> Findings {
    let mut findings = Findings::default();
    let mut scope = vec![("self", object), ("oldSelf", object)];
    let (cost, _) = findings.walk(expression, &mut scope);
    findings.cost = cost;
    findings
}

impl Findings {
    /// The cost of an expression, and what is known of its value.
    fn walk<'a>(&mut self, expression: &'a IdedExpr, scope: &mut Scope<'a>) -> (u64, Known<'a>) {
        match &expression.expr {
            Expr::Ident(name) => {
                let known = scope.iter().rev().find(|(known, _)| known == name).map(|(_, known)| *known);
                (1, known.unwrap_or(Known::Nothing))
            }
            Expr::Select(select) => {
                let (cost, operand) = self.walk(&select.operand, scope);
                let name = unescaped(&select.field);
                let known = operand.field(&name).unwrap_or_else(|()| {
                    self.undefined.get_or_insert(name);
                    Known::Nothing
                });
                (cost.saturating_add(1), known)
            }
            Expr::Call(call) => {
                let operands = call.target.iter().map(AsRef::as_ref).chain(&call.args);
                let walked: Vec<(u64, Known<'a>)> = operands.map(|operand| self.walk(operand, scope)).collect();
                let texts: u64 = walked.iter().map(|(_, known)| text_cost(*known)).fold(0, u64::saturating_add);
                let cost = walked.iter().fold(1 + texts, |sum: u64, (cost, _)| sum.saturating_add(*cost));
                let known = match (call.func_name.as_str(), walked.first()) {
                    ("_[_]", Some((_, list))) => list.item(),
                    _ => Known::Nothing,
                };
                (cost, known)
            }
            Expr::Comprehension(loops) => {
                let (range_cost, range) = self.walk(&loops.iter_range, scope);
                let (start, _) = self.walk(&loops.accu_init, scope);
                let depth = scope.len();
                scope.push((&loops.accu_var, Known::Nothing));
                scope.push((&loops.iter_var, range.item()));
                let (check, _) = self.walk(&loops.loop_cond, scope);
                let (step, _) = self.walk(&loops.loop_step, scope);
                let (result, _) = self.walk(&loops.result, scope);
                scope.truncate(depth);
                let turns = range.size().saturating_mul(check.saturating_add(step));
                (range_cost.saturating_add(start).saturating_add(turns).saturating_add(result), Known::Nothing)
            }
            Expr::List(list) => {
                let costs = list.elements.iter().map(|element| self.walk(element, scope).0);
                (costs.fold(1, u64::saturating_add), Known::Nothing)
            }
            _ => (1, Known::Nothing),
        }
    }
}

/// Texts are looked through by whatever is called with them.
fn text_cost(known: Known<'_>) -> u64 {
    match known {
        Known::Schema(schema) if schema.text("type") != "string" => 0,
        Known::Value(value) if !value.is_string() => 0,
        Known::Nothing => 0,
        text => text.size() / OF_TEXT,
    }
}

#[cfg(test)]
mod tests {
    use kube_cel::cel::Program;
    use serde_json::{Value, json};

    use super::{Known, examine};

    #[test]
    fn undeclared_fields_are_found() {
        let schema = json!({ "type": "object", "properties": {
            "x": { "type": "integer" },
            "list": { "type": "array", "items": { "type": "object", "properties": { "a-b": { "type": "string" } } } },
            "map": { "type": "object", "additionalProperties": { "type": "string" } },
            "free": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
        } });
        let undefined =
            |rule: &str| examine(Program::compile(rule).unwrap().expression(), Known::Schema(&schema)).undefined;
        for fine in
            ["self.x > 1 && has(self.map.any)", "self.list.all(i, i.a__dash__b == 'x')", "self.free.any.thing == 1"]
        {
            assert_eq!(undefined(fine), None, "{fine}");
        }
        assert_eq!(undefined("self.z == 100"), Some("z".into()));
        assert_eq!(undefined("self.list.all(i, i.none == 'x')"), Some("none".into()));
        assert_eq!(undefined("self.list[0].none == 'x'"), Some("none".into()));
    }

    #[test]
    fn costs_grow_with_what_is_looped_over() {
        let cost = |rule: &str, schema: &Value| {
            examine(Program::compile(rule).unwrap().expression(), Known::Schema(schema)).cost
        };
        let bounded = json!({ "type": "array", "maxItems": 10, "items": { "type": "integer" } });
        let unbounded = json!({ "type": "array", "items": { "type": "string" } });
        assert!(cost("self.all(x, x > 1)", &bounded) < 200);
        assert!(cost("self.all(x, x == 'constant')", &unbounded) > 1_000_000);
        assert!(cost("self.all(x, self.all(y, x == y))", &bounded) > cost("self.all(x, x > 1)", &bounded) * 5);
        let values = json!(vec![1; 725]);
        let rule = Program::compile("self.all(x, self.all(y, y == x))").unwrap();
        assert!(examine(rule.expression(), Known::Value(&values)).cost > 1_000_000);
    }
}
