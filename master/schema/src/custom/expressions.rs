//! About what an expression in CEL costs, before it runs (`apiserver/pkg/cel/library/cost.go`). Costs are estimates from above:
//! of every loop all turns count.

use expressions::unescaped;
use kube_cel::cel::common::ast::{Expr, IdedExpr};
use serde_json::Value;

use crate::value::Fields;

/// The largest request body, which bounds what no schema bounds.
const LARGEST: u64 = 3 * 1024 * 1024;
/// Our estimates are coarser than upstream's: what it takes must not be refused here.
pub(crate) const MARGIN: u64 = 10;
/// How much a byte of text counts that is looked through.
const OF_TEXT: u64 = 10;

/// What is known of a value.
#[derive(Clone, Copy)]
pub(super) enum Known<'a> {
    /// What its schema says.
    Schema(&'a Value),
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
            Known::Nothing => 1,
        }
    }

    /// An item of a list.
    fn item(self) -> Known<'a> {
        match self {
            Known::Schema(schema) if schema.at("items").is_object() => Known::Schema(schema.at("items")),
            _ => Known::Nothing,
        }
    }

    fn field(self, name: &str) -> Known<'a> {
        match self {
            Known::Nothing => Known::Nothing,
            Known::Schema(schema) => match schema.at("properties").get(name) {
                Some(declared) => Known::Schema(declared),
                None if schema.at("additionalProperties").is_object() => {
                    Known::Schema(schema.at("additionalProperties"))
                }
                None => Known::Nothing,
            },
        }
    }
}

/// How short the JSON of a value can be.
fn least_size(schema: &Value) -> u64 {
    match schema.text("type") {
        "boolean" => 4,
        "integer" | "number" => 1,
        _ => 2,
    }
}

/// Names and what is known of their values, innermost last.
type Scope<'a> = Vec<(&'a str, Known<'a>)>;

/// The cost of an expression about values of a schema that have these names.
pub(crate) fn cost<'a>(expression: &'a IdedExpr, names: &[&'a str], schema: &'a Value) -> u64 {
    walk(expression, &mut names.iter().map(|name| (*name, Known::Schema(schema))).collect()).0
}

/// The cost of an expression, and what is known of its value.
fn walk<'a>(expression: &'a IdedExpr, scope: &mut Scope<'a>) -> (u64, Known<'a>) {
    match &expression.expr {
        Expr::Ident(name) => {
            let known = scope.iter().rev().find(|(known, _)| known == name).map(|(_, known)| *known);
            (1, known.unwrap_or(Known::Nothing))
        }
        Expr::Select(select) => {
            let (cost, operand) = walk(&select.operand, scope);
            let name = unescaped(&select.field);
            (cost.saturating_add(1), operand.field(&name))
        }
        Expr::Call(call) => {
            let operands = call.target.iter().map(AsRef::as_ref).chain(&call.args);
            let walked: Vec<(u64, Known<'a>)> = operands.map(|operand| walk(operand, scope)).collect();
            let texts: u64 = walked.iter().map(|(_, known)| text_cost(*known)).fold(0, u64::saturating_add);
            let cost = walked.iter().fold(1 + texts, |sum: u64, (cost, _)| sum.saturating_add(*cost));
            let known = match (call.func_name.as_str(), walked.first()) {
                ("_[_]", Some((_, list))) => list.item(),
                _ => Known::Nothing,
            };
            (cost, known)
        }
        Expr::Comprehension(loops) => {
            let (range_cost, range) = walk(&loops.iter_range, scope);
            let (start, _) = walk(&loops.accu_init, scope);
            let depth = scope.len();
            scope.push((&loops.accu_var, Known::Nothing));
            // Of two variables the second is the item of a list.
            let (first, second) = match loops.iter_var2 {
                Some(_) => (Known::Nothing, range.item()),
                None => (range.item(), Known::Nothing),
            };
            scope.push((&loops.iter_var, first));
            scope.extend(loops.iter_var2.iter().map(|name| (name.as_str(), second)));
            let (check, _) = walk(&loops.loop_cond, scope);
            let (step, _) = walk(&loops.loop_step, scope);
            let (result, _) = walk(&loops.result, scope);
            scope.truncate(depth);
            let turns = range.size().saturating_mul(check.saturating_add(step));
            (range_cost.saturating_add(start).saturating_add(turns).saturating_add(result), Known::Nothing)
        }
        Expr::List(list) => {
            let costs = list.elements.iter().map(|element| walk(element, scope).0);
            (costs.fold(1, u64::saturating_add), Known::Nothing)
        }
        _ => (1, Known::Nothing),
    }
}

/// Texts are looked through by whatever is called with them.
fn text_cost(known: Known<'_>) -> u64 {
    match known {
        Known::Schema(schema) if schema.text("type") != "string" => 0,
        Known::Nothing => 0,
        text => text.size() / OF_TEXT,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    #[test]
    fn costs_grow_with_what_is_looped_over() {
        let cost = |rule: &str, schema: &Value| super::cost(&expressions::expression(rule).unwrap(), &["self"], schema);
        let bounded = json!({ "type": "array", "maxItems": 10, "items": { "type": "integer" } });
        let unbounded = json!({ "type": "array", "items": { "type": "string" } });
        assert!(cost("self.all(x, x > 1)", &bounded) < 200);
        assert!(cost("self.all(x, x == 'constant')", &unbounded) > 1_000_000);
        assert!(cost("self.all(x, self.all(y, x == y))", &bounded) > cost("self.all(x, x > 1)", &bounded) * 5);
    }
}
