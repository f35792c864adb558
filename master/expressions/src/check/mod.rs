//! Whether the types of an expression fit, before it runs. Names and texts are those of cel-go's checker.

mod functions;
mod operators;
mod position;
#[cfg(test)]
mod tests;

use kube_cel::cel::IdedExpr;
use kube_cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedEntryExpr, ListExpr, LiteralValue, SelectExpr, StructExpr,
    operators as op,
};

use crate::objects::{JSON_PATCH, is_known, unescaped};
use crate::types::Ty;
use crate::{macros, parse, with_room};
use position::{Issue, rendered};

/// The names that an expression knows.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    known: Vec<(String, Ty)>,
    /// Whether it can make `Object{…}` and `JSONPatch{…}`.
    pub(crate) patches: bool,
    /// Whether it can give names to values with `cel.bind`.
    pub(crate) bindings: bool,
}

impl Scope {
    /// Makes a name known; of two with one name the later counts.
    pub fn declare(&mut self, name: &str, ty: Ty) {
        self.known.push((name.to_owned(), ty));
    }

    fn find(&self, name: &str) -> Option<&Ty> {
        self.known.iter().rev().find(|(known, _)| known == name).map(|(_, ty)| ty)
    }
}

/// The type of an expression; the error holds everything that is wrong with it, as cel-go prints it.
pub fn check(source: &str, scope: &Scope) -> Result<Ty, String> {
    with_room(|| check_here(source, scope))
}

fn check_here(source: &str, scope: &Scope) -> Result<Ty, String> {
    let expression = parse(source).map_err(|errors| {
        let issue = |error: &kube_cel::cel::ParseError| Issue {
            line: usize::try_from(error.pos.0).unwrap_or(1),
            column: usize::try_from(error.pos.1).unwrap_or(1),
            text: format!("Syntax error: {}", error.msg.trim_start_matches("Syntax error: ")),
        };
        rendered(source, errors.errors.iter().map(issue).collect())
    })?;
    let expression = if scope.bindings { macros::with_bindings(expression) } else { expression };
    let mut checker = Checker { scope, locals: Vec::new(), issues: Vec::new() };
    let ty = checker.walk(&expression);
    if checker.issues.is_empty() { Ok(ty) } else { Err(rendered(source, position::of(source, checker.issues))) }
}

struct Checker<'a> {
    scope: &'a Scope,
    locals: Vec<(String, Ty)>,
    /// What is wrong, and with which part of the expression.
    issues: Vec<(u64, String)>,
}

impl Checker<'_> {
    /// What is wrong is of any type, so that it is said once.
    fn wrong(&mut self, id: u64, text: String) -> Ty {
        self.issues.push((id, text));
        Ty::Dyn
    }

    fn walk(&mut self, expression: &IdedExpr) -> Ty {
        match &expression.expr {
            Expr::Unspecified => Ty::Dyn,
            Expr::Literal(literal) => of_literal(literal),
            Expr::Ident(name) => match self.ident(name) {
                Some(ty) => ty,
                None => self.wrong(expression.id, format!("undeclared reference to '{name}' (in container '')")),
            },
            Expr::Select(select) => self.select(expression.id, select),
            Expr::Call(call) => self.call(expression.id, call),
            Expr::List(list) => self.list(list),
            Expr::Map(map) => self.map(&map.entries),
            Expr::Struct(made) => self.made(expression.id, made),
            Expr::Comprehension(looped) => self.comprehension(looped),
        }
    }

    fn ident(&self, name: &str) -> Option<Ty> {
        let local = self.locals.iter().rev().find(|(known, _)| known == name).map(|(_, ty)| ty);
        let known = local.or_else(|| self.scope.find(name)).cloned();
        known.or_else(|| functions::TYPES.contains(&name).then_some(Ty::Type))
    }

    fn select(&mut self, id: u64, select: &SelectExpr) -> Ty {
        if let Expr::Ident(name) = &select.operand.expr
            && let Some(ty) = self.scope.find(&format!("{name}.{}", select.field))
        {
            return ty.clone();
        }
        let operand = self.walk(&select.operand);
        let found = self.field(id, &operand, &select.field);
        if select.test { Ty::Bool } else { found }
    }

    fn field(&mut self, id: u64, operand: &Ty, name: &str) -> Ty {
        match operand {
            Ty::Dyn | Ty::Free => Ty::Dyn,
            Ty::Map(_, value) => (**value).clone(),
            Ty::Optional(inner) => optional(self.field(id, inner, name)),
            Ty::Object(object) => match object.fields.get(name).or_else(|| object.fields.get(&unescaped(name))) {
                Some(ty) => ty.clone(),
                None => self.wrong(id, format!("undefined field '{name}'")),
            },
            // What an expression makes has any field.
            Ty::Named(made) if is_known(made) => Ty::Dyn,
            other => self.wrong(id, format!("type '{other}' does not support field selection")),
        }
    }

    fn call(&mut self, id: u64, call: &CallExpr) -> Ty {
        if call.func_name == op::OPT_SELECT
            && let [operand, IdedExpr { expr: Expr::Literal(LiteralValue::String(field)), .. }] = call.args.as_slice()
        {
            let operand = self.walk(operand);
            return optional(self.field(id, &operand, field.inner()));
        }
        if let Some(target) = &call.target {
            // `math.greatest`: a function of a library, unless that is a variable.
            if let Expr::Ident(prefix) = &target.expr
                && self.ident(prefix).is_none_or(|ty| ty == Ty::Type)
                && functions::is_known(&format!("{prefix}.{}", call.func_name))
            {
                let arguments = self.all(&call.args);
                return self.function(id, (&format!("{prefix}.{}", call.func_name), None, &arguments));
            }
            let receiver = self.walk(target);
            let arguments = match call.args.as_slice() {
                [IdedExpr { expr: Expr::List(list), .. }] if call.func_name == "format" => vec![self.mixed(list)],
                all => self.all(all),
            };
            return self.function(id, (&call.func_name, Some(&receiver), &arguments));
        }
        let arguments = self.all(&call.args);
        // What macros call takes whatever they hand it.
        match (call.func_name.as_str(), arguments.as_slice()) {
            (macros::SORT_BY, [list, _]) => return list.clone(),
            (macros::INSERT, [_, key, value]) => return Ty::Map(Box::new(key.clone()), Box::new(value.clone())),
            (macros::INSERT_ENTRIES, [_, entries]) => return entries.clone(),
            _ => {}
        }
        match operators::result(&call.func_name, &arguments) {
            Some(Ok(ty)) => ty,
            Some(Err(())) => self.no_overload(id, (&call.func_name, None, &arguments)),
            None => self.function(id, (&call.func_name, None, &arguments)),
        }
    }

    /// What a text is made of may be of several types (`apiserver/pkg/cel/environment`).
    fn mixed(&mut self, list: &ListExpr) -> Ty {
        self.all(&list.elements);
        Ty::list(Ty::Dyn)
    }

    fn all(&mut self, list: &[IdedExpr]) -> Vec<Ty> {
        list.iter().map(|one| self.walk(one)).collect()
    }

    fn function(&mut self, id: u64, called: (&str, Option<&Ty>, &[Ty])) -> Ty {
        if !functions::is_known(called.0) {
            return self.wrong(id, format!("undeclared reference to '{}' (in container '')", called.0));
        }
        match functions::result(called) {
            Some(ty) => ty,
            None => self.no_overload(id, called),
        }
    }

    fn no_overload(&mut self, id: u64, (name, receiver, arguments): (&str, Option<&Ty>, &[Ty])) -> Ty {
        let arguments: Vec<String> = arguments.iter().map(Ty::to_string).collect();
        let receiver = receiver.map(|ty| format!("{ty}.")).unwrap_or_default();
        let applied = format!("{receiver}({})", arguments.join(", "));
        self.wrong(id, format!("found no matching overload for '{name}' applied to '{applied}'"))
    }

    fn list(&mut self, list: &ListExpr) -> Ty {
        let mut item = Ty::Free;
        for (index, element) in list.elements.iter().enumerate() {
            let found = self.walk(element);
            let found = if list.optional_indices.contains(&index) { inside(found) } else { found };
            item = self.joined(element.id, item, found);
        }
        Ty::list(item)
    }

    fn map(&mut self, entries: &[IdedEntryExpr]) -> Ty {
        let (mut keys, mut values) = (Ty::Free, Ty::Free);
        for entry in entries {
            let EntryExpr::MapEntry(entry) = &entry.expr else { continue };
            let (key, value) = (self.walk(&entry.key), self.walk(&entry.value));
            let value = if entry.optional { inside(value) } else { value };
            keys = self.joined(entry.key.id, keys, key);
            values = self.joined(entry.value.id, values, value);
        }
        Ty::Map(Box::new(keys), Box::new(values))
    }

    /// Lists and maps hold one type (`HomogeneousAggregateLiterals`).
    fn joined(&mut self, id: u64, wanted: Ty, found: Ty) -> Ty {
        match wanted.join(&found) {
            Some(ty) => ty,
            None => self.wrong(id, format!("expected type '{wanted}' but found '{found}'")),
        }
    }

    fn made(&mut self, id: u64, made: &StructExpr) -> Ty {
        let name = made.type_name.as_str();
        let known = self.scope.patches && is_known(name);
        for entry in &made.entries {
            let EntryExpr::StructField(field) = &entry.expr else { continue };
            let found = self.walk(&field.value);
            let found = if field.optional { inside(found) } else { found };
            if !known || name != JSON_PATCH {
                continue;
            }
            match field.field.as_str() {
                "value" => {}
                "op" | "path" | "from" if found.fits(&Ty::Text) => {}
                field @ ("op" | "path" | "from") => {
                    let text = format!("expected type of field '{field}' is 'string' but provided type is '{found}'");
                    self.wrong(entry.id, text);
                }
                other => {
                    self.wrong(entry.id, format!("undefined field '{other}'"));
                }
            }
        }
        if known {
            Ty::named(name)
        } else {
            self.wrong(id, format!("undeclared reference to '{name}' (in container '')"))
        }
    }

    fn comprehension(&mut self, looped: &ComprehensionExpr) -> Ty {
        let range = self.walk(&looped.iter_range);
        let (first, second) = match &range {
            Ty::List(item) if looped.iter_var2.is_some() => (Ty::Int, (**item).clone()),
            Ty::List(item) => ((**item).clone(), Ty::Dyn),
            Ty::Map(key, value) => ((**key).clone(), (**value).clone()),
            Ty::Dyn | Ty::Free => (Ty::Dyn, Ty::Dyn),
            other => {
                let text = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                (self.wrong(looped.iter_range.id, text), Ty::Dyn)
            }
        };
        let start = self.walk(&looped.accu_init);
        let depth = self.locals.len();
        self.locals.push((looped.accu_var.clone(), start.clone()));
        self.locals.push((looped.iter_var.clone(), first));
        self.locals.extend(looped.iter_var2.iter().map(|name| (name.clone(), second.clone())));
        self.walk(&looped.loop_cond);
        let step = self.walk(&looped.loop_step);
        self.locals.truncate(depth);
        // A list that begins empty is what the loop puts into it.
        let gathered = start.join(&step).unwrap_or(step);
        self.locals.push((looped.accu_var.clone(), gathered));
        let result = self.walk(&looped.result);
        self.locals.truncate(depth);
        result
    }
}

fn of_literal(literal: &LiteralValue) -> Ty {
    match literal {
        LiteralValue::Boolean(_) => Ty::Bool,
        LiteralValue::Bytes(_) => Ty::Bytes,
        LiteralValue::Double(_) => Ty::Double,
        LiteralValue::Int(_) => Ty::Int,
        LiteralValue::Null => Ty::Null,
        LiteralValue::String(_) => Ty::Text,
        LiteralValue::UInt(_) => Ty::Uint,
    }
}

/// One `optional` is as good as two.
fn optional(ty: Ty) -> Ty {
    if matches!(ty, Ty::Optional(_)) { ty } else { Ty::Optional(Box::new(ty)) }
}

fn inside(ty: Ty) -> Ty {
    match ty {
        Ty::Optional(inner) => *inner,
        other => other,
    }
}
