//! `Object.spec{…}` and `JSONPatch{…}`: the engine knows no structs, so that they are made maps which remember their type
//! (`apiserver/pkg/cel/mutation`). What the engine gets wrong of fields is said in another way here, too.

use std::sync::Arc;

use kube_cel::cel::Value as Cel;
use kube_cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedEntryExpr, IdedExpr, LiteralValue, MapEntryExpr, MapExpr,
    SelectExpr, StructExpr, operators as op,
};
use kube_cel::cel::objects::{Key, Map};
use serde_json::{Value, json};

use crate::{budget, macros};

pub(crate) const OBJECT: &str = "Object";
pub(crate) const JSON_PATCH: &str = "JSONPatch";
/// The key under which a map has the name of its type; no field is called so.
const TYPE: &str = "\u{0}type";
/// A variable whose name looks like a field.
pub(crate) const REQUEST_RESOURCE: &str = "authorizer.requestResource";
/// What a loop with two variables really has, and the function that makes it. No expression can call either so.
const PAIR: &str = "@pair";
pub(crate) const PAIRS: &str = "@pairs";
/// Names that expressions cannot have (`apiserver/pkg/cel/escaping.go`).
pub const RESERVED: [&str; 21] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
    "var",
    "void",
    "while",
];
const OPERATION: [&str; 4] = ["from", "op", "path", "value"];

/// Makes structs maps, and fields items, everywhere in an expression.
pub(crate) fn lower(mut expression: IdedExpr) -> Result<IdedExpr, String> {
    expression.expr = lowered(expression.expr)?;
    Ok(expression)
}

fn lowered(expression: Expr) -> Result<Expr, String> {
    let all = |list: Vec<IdedExpr>| list.into_iter().map(lower).collect::<Result<Vec<_>, _>>();
    Ok(match expression {
        Expr::Call(mut call) => {
            // `a.?b` of an `a` that has none is the same as `a[?'b']`, which the engine gets right.
            if call.func_name == op::OPT_SELECT {
                call.func_name = op::OPT_INDEX.to_owned();
            }
            call.target = call.target.map(|target| lower(*target).map(Box::new)).transpose()?;
            call.args = all(call.args)?;
            budget::price(&mut call);
            Expr::Call(call)
        }
        Expr::Comprehension(mut looped) => {
            for part in [
                &mut looped.iter_range,
                &mut looped.accu_init,
                &mut looped.loop_cond,
                &mut looped.loop_step,
                &mut looped.result,
            ] {
                *part = lower(std::mem::take(part))?;
            }
            budget::charge(&mut looped);
            if let Some(second) = looped.iter_var2.take() {
                pair_up(&mut looped, &second);
            }
            Expr::Comprehension(looped)
        }
        Expr::List(mut list) => {
            list.elements = all(list.elements)?;
            Expr::List(list)
        }
        Expr::Map(map) => Expr::Map(MapExpr { entries: map.entries.into_iter().map(entry).collect::<Result<_, _>>()? }),
        Expr::Select(mut select) if select.test => {
            *select.operand = lower(std::mem::take(&mut *select.operand))?;
            Expr::Select(select)
        }
        Expr::Select(select) if is_request_resource(&select) => Expr::Ident(REQUEST_RESOURCE.to_owned()),
        // `a.b` of what has no fields would be false, `a['b']` is an error.
        Expr::Select(select) => Expr::Call(CallExpr {
            func_name: op::INDEX.to_owned(),
            target: None,
            args: vec![lower(*select.operand)?, text(&select.field)],
        }),
        Expr::Struct(made) => structure(made)?,
        other => other,
    })
}

/// The engine's loops have one variable: here it is a list of two, of which the names of the two are made.
fn pair_up(looped: &mut ComprehensionExpr, second: &str) {
    let of = |expr: Expr| IdedExpr { id: 0, expr };
    let call =
        |name: &str, args: Vec<IdedExpr>| of(Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args }));
    let part = |index: i64| {
        let index = of(Expr::Literal(LiteralValue::Int(index.into())));
        call(op::INDEX, vec![of(Expr::Ident(PAIR.to_owned())), index])
    };
    let step = std::mem::take(&mut looped.loop_step);
    let inner = of(macros::bound(0, second, part(1), step));
    looped.loop_step = of(macros::bound(0, &looped.iter_var, part(0), inner));
    looped.iter_range = call(PAIRS, vec![std::mem::take(&mut looped.iter_range)]);
    looped.iter_var = PAIR.to_owned();
}

fn is_request_resource(select: &SelectExpr) -> bool {
    matches!(&select.operand.expr, Expr::Ident(name) if name == "authorizer") && select.field == "requestResource"
}

fn entry(entry: IdedEntryExpr) -> Result<IdedEntryExpr, String> {
    let expr = match entry.expr {
        EntryExpr::MapEntry(MapEntryExpr { key, value, optional }) => {
            EntryExpr::MapEntry(MapEntryExpr { key: lower(key)?, value: lower(value)?, optional })
        }
        EntryExpr::StructField(field) => EntryExpr::MapEntry(MapEntryExpr {
            key: text(&unescaped(&field.field)),
            value: lower(field.value)?,
            optional: field.optional,
        }),
    };
    Ok(IdedEntryExpr { id: entry.id, expr })
}

fn structure(made: StructExpr) -> Result<Expr, String> {
    if !is_known(&made.type_name) {
        return Err(format!("undeclared reference to '{}' (in container '')", made.type_name));
    }
    let mut entries = made.entries.into_iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    let mark = MapEntryExpr { key: text(TYPE), value: text(&made.type_name), optional: false };
    entries.push(IdedEntryExpr { id: 0, expr: EntryExpr::MapEntry(mark) });
    Ok(Expr::Map(MapExpr { entries }))
}

/// Whether there is a type of this name.
pub(crate) fn is_known(type_name: &str) -> bool {
    type_name == OBJECT || type_name == JSON_PATCH || type_name.starts_with("Object.")
}

fn text(text: &str) -> IdedExpr {
    IdedExpr { id: 0, expr: Expr::Literal(LiteralValue::String(text.into())) }
}

/// A field as objects have it (`apiserver/pkg/cel.Escape`).
pub fn unescaped(name: &str) -> String {
    let plain = name.replace("__dot__", ".").replace("__dash__", "-").replace("__slash__", "/");
    let keyword = plain.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"));
    keyword.map_or_else(|| plain.replace("__underscores__", "__"), str::to_owned)
}

/// A field as expressions have it (`apiserver/pkg/cel.Escape`).
pub(crate) fn escaped(name: &str) -> String {
    if RESERVED.contains(&name) {
        return format!("__{name}__");
    }
    let plain = name.replace("__", "__underscores__");
    plain.replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__")
}

fn field<'a>(map: &'a Map, name: &str) -> Option<&'a Cel> {
    map.map.get(&Key::String(Arc::new(name.to_owned())))
}

/// The type that a value was made as.
pub(crate) fn type_name(value: &Cel) -> Option<&str> {
    let Cel::Map(map) = value else { return None };
    match field(map, TYPE) {
        Some(Cel::String(name)) => Some(name),
        _ => None,
    }
}

/// The JSON of an object whose types, all the way down, are called as the fields that they stand in.
pub(crate) fn configuration(value: &Cel) -> Result<Value, String> {
    json_of(value, type_name(value).unwrap_or(OBJECT))
}

/// One operation of a JSON patch.
pub(crate) fn operation(value: &Cel) -> Result<Value, String> {
    let Cel::Map(map) = value else { return Err("a JSONPatch is needed".to_owned()) };
    let mut operation = json!({});
    for (key, value) in map.map.iter() {
        let name = key.to_string();
        if name == TYPE {
            continue;
        }
        if !OPERATION.contains(&name.as_str()) {
            return Err(format!("unexpected JSONPatchType field: {name}"));
        }
        // Nothing stands around an object here: any may be the value.
        operation[name] = configuration(value)?;
    }
    Ok(operation)
}

fn json_of(value: &Cel, path: &str) -> Result<Value, String> {
    Ok(match value {
        Cel::List(list) => Value::Array(list.iter().map(|item| json_of(item, path)).collect::<Result<_, _>>()?),
        Cel::Map(map) => {
            let own = type_name(value);
            if let Some(name) = own.filter(|name| *name != path) {
                return Err(format!(
                    "unexpected type name {name:?}, expected {path:?}, which matches field name path from root Object type"
                ));
            }
            let mut object = serde_json::Map::new();
            for (key, inner) in map.map.iter() {
                let Key::String(name) = key else { return Err(format!("map key {key} is not string")) };
                if name.as_str() == TYPE {
                    continue;
                }
                // Maps and lists between objects have no names.
                let below = if own.is_some() { format!("{path}.{name}") } else { path.to_owned() };
                object.insert(name.to_string(), json_of(inner, &below)?);
            }
            Value::Object(object)
        }
        Cel::Null => Value::Null,
        Cel::Bool(flag) => (*flag).into(),
        Cel::Int(number) => (*number).into(),
        Cel::UInt(number) => (*number).into(),
        Cel::Float(number) => (*number).into(),
        Cel::String(text) => text.as_str().into(),
        other => return Err(format!("JSON has no {}", other.type_of())),
    })
}
