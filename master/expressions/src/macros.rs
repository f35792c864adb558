//! Macros that Kubernetes' environment has on and the engine's parser does not know: of optional values (`cel.OptionalTypes`), of
//! two variables (`ext.TwoVarComprehensions`) and `sortBy` (`ext.Lists`). They are written out as cel-go writes them out.

use kube_cel::cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, ListExpr, LiteralValue, MapExpr, operators as op,
};

/// What a loop has made so far, as the parser calls it.
pub(crate) const MADE: &str = "@result";
/// Of a loop that never turns.
const UNUSED: &str = "#unused";
/// Functions that only macros call: `(map, key, value)`, `(map, entries)`, `(list, keys)`.
pub(crate) const INSERT: &str = "@mapInsert";
pub(crate) const INSERT_ENTRIES: &str = "@mapInsertEntries";
pub(crate) const SORT_BY: &str = "@sortBy";

/// The expression with all its macros written out.
pub(crate) fn expanded(expression: IdedExpr) -> IdedExpr {
    changed(expression, &of_call)
}

/// The expression with `cel.bind(name, value, inner)` written out, which only some environments have (`ext.Bindings`).
pub(crate) fn with_bindings(expression: IdedExpr) -> IdedExpr {
    changed(expression, &of_bind)
}

fn of_bind(id: u64, call: CallExpr) -> Expr {
    let is_bind = call.func_name == "bind" && call.target.as_deref().and_then(simple) == Some("cel");
    let made = match call.args.as_slice() {
        [name, value, inner] if is_bind => simple(name).map(|name| bound(id, name, value.clone(), inner.clone())),
        _ => None,
    };
    made.unwrap_or(Expr::Call(call))
}

/// The expression with its calls made something else, from the innermost on.
fn changed(mut expression: IdedExpr, of_call: &dyn Fn(u64, CallExpr) -> Expr) -> IdedExpr {
    let id = expression.id;
    let change = |part: &mut IdedExpr| *part = changed(std::mem::take(part), of_call);
    let all = |list: &mut Vec<IdedExpr>| list.iter_mut().for_each(change);
    let entry = |entry: &mut EntryExpr| match entry {
        EntryExpr::MapEntry(entry) => {
            change(&mut entry.key);
            change(&mut entry.value);
        }
        EntryExpr::StructField(field) => change(&mut field.value),
    };
    expression.expr = match std::mem::take(&mut expression.expr) {
        Expr::Call(mut call) => {
            call.target.iter_mut().for_each(|target| change(target));
            all(&mut call.args);
            of_call(id, call)
        }
        Expr::Comprehension(mut looped) => {
            let ComprehensionExpr { iter_range, accu_init, loop_cond, loop_step, result, .. } = &mut *looped;
            [iter_range, accu_init, loop_cond, loop_step, result].into_iter().for_each(change);
            Expr::Comprehension(looped)
        }
        Expr::List(mut list) => {
            all(&mut list.elements);
            Expr::List(list)
        }
        Expr::Map(mut map) => {
            map.entries.iter_mut().for_each(|one| entry(&mut one.expr));
            Expr::Map(map)
        }
        Expr::Struct(mut made) => {
            made.entries.iter_mut().for_each(|one| entry(&mut one.expr));
            Expr::Struct(made)
        }
        Expr::Select(mut select) => {
            change(&mut select.operand);
            Expr::Select(select)
        }
        other => other,
    };
    expression
}

fn of_call(id: u64, call: CallExpr) -> Expr {
    let Some(target) = call.target.as_deref() else { return Expr::Call(call) };
    let made = At(id).of_call(target, (&call.func_name, &call.args));
    made.unwrap_or(Expr::Call(call))
}

/// Makes parts that stand where a macro stood.
#[derive(Clone, Copy)]
struct At(u64);

impl At {
    /// `None` for what is no macro.
    fn of_call(self, target: &IdedExpr, (name, arguments): (&str, &[IdedExpr])) -> Option<Expr> {
        match (name, arguments) {
            ("optMap", [variable, value]) => {
                let value = self.bound(simple(variable)?, self.value_of(target), value.clone());
                Some(self.if_there(target, self.optional("of", vec![value])))
            }
            ("optFlatMap", [variable, value]) => {
                Some(self.if_there(target, self.bound(simple(variable)?, self.value_of(target), value.clone())))
            }
            ("sortBy", [variable, key]) => {
                let add = self.made_and(self.list(vec![key.clone()]));
                let keys = self.looped(target, (simple(variable)?, None), (self.list(Vec::new()), add));
                Some(function(SORT_BY, vec![target.clone(), keys]))
            }
            (_, [first, second, rest @ ..]) => {
                self.of_two(target, (name, rest), (simple(first)?, Some(simple(second)?)))
            }
            _ => None,
        }
    }

    /// A loop with two variables: index and item of a list, key and value of a map.
    fn of_two(
        self,
        target: &IdedExpr,
        (name, rest): (&str, &[IdedExpr]),
        variables: (&str, Option<&str>),
    ) -> Option<Expr> {
        let made = || self.name(MADE);
        let test = |start: bool, going_on: IdedExpr, step: IdedExpr, result: IdedExpr| {
            let looped = self.comprehension(target, variables, (self.flag(start), step));
            Expr::Comprehension(Box::new(ComprehensionExpr { loop_cond: going_on, result, ..looped }))
        };
        let not_strictly_false = |one: IdedExpr| self.call(op::NOT_STRICTLY_FALSE, vec![one]);
        let gathered = |start: Expr, step: IdedExpr, filter: Option<&IdedExpr>| {
            let step = match filter {
                Some(filter) => self.call(op::CONDITIONAL, vec![filter.clone(), step, made()]),
                None => step,
            };
            self.looped(target, variables, (self.of(start), step)).expr
        };
        let empty_map = || Expr::Map(MapExpr { entries: Vec::new() });
        let (filter, value) = match rest {
            [value] => (None, value),
            [filter, value] if name.starts_with("transform") => (Some(filter), value),
            _ => return None,
        };
        Some(match name {
            op::ALL => {
                let step = self.call(op::LOGICAL_AND, vec![made(), value.clone()]);
                test(true, not_strictly_false(made()), step, made())
            }
            op::EXISTS => {
                let step = self.call(op::LOGICAL_OR, vec![made(), value.clone()]);
                test(false, not_strictly_false(self.call(op::LOGICAL_NOT, vec![made()])), step, made())
            }
            op::EXISTS_ONE | "existsOne" => {
                let (none, one) = (self.number(0), || self.number(1));
                let more = self.call(op::ADD, vec![made(), one()]);
                let step = self.call(op::CONDITIONAL, vec![value.clone(), more, made()]);
                let looped = self.comprehension(target, variables, (none, step));
                let result = self.call(op::EQUALS, vec![made(), one()]);
                Expr::Comprehension(Box::new(ComprehensionExpr { result, ..looped }))
            }
            "transformList" => {
                let step = self.made_and(self.list(vec![value.clone()]));
                gathered(Expr::List(ListExpr::new(Vec::new())), step, filter)
            }
            "transformMap" => {
                let step = self.of(function(INSERT, vec![made(), self.name(variables.0), value.clone()]));
                gathered(empty_map(), step, filter)
            }
            "transformMapEntry" => {
                let step = self.of(function(INSERT_ENTRIES, vec![made(), value.clone()]));
                gathered(empty_map(), step, filter)
            }
            _ => return None,
        })
    }

    fn of(self, expr: Expr) -> IdedExpr {
        IdedExpr { id: self.0, expr }
    }

    fn name(self, name: &str) -> IdedExpr {
        self.of(Expr::Ident(name.to_owned()))
    }

    fn flag(self, flag: bool) -> IdedExpr {
        self.of(Expr::Literal(LiteralValue::Boolean(flag.into())))
    }

    fn number(self, number: i64) -> IdedExpr {
        self.of(Expr::Literal(LiteralValue::Int(number.into())))
    }

    fn list(self, elements: Vec<IdedExpr>) -> IdedExpr {
        self.of(Expr::List(ListExpr::new(elements)))
    }

    fn call(self, name: &str, args: Vec<IdedExpr>) -> IdedExpr {
        self.of(function(name, args))
    }

    fn member(self, target: IdedExpr, name: &str, args: Vec<IdedExpr>) -> IdedExpr {
        self.of(Expr::Call(CallExpr { func_name: name.to_owned(), target: Some(Box::new(target)), args }))
    }

    /// `optional.NAME(…)`
    fn optional(self, name: &str, args: Vec<IdedExpr>) -> IdedExpr {
        self.member(self.name("optional"), name, args)
    }

    fn value_of(self, target: &IdedExpr) -> IdedExpr {
        self.member(target.clone(), "value", Vec::new())
    }

    /// What is made of an optional value, if there is one.
    fn if_there(self, target: &IdedExpr, then: IdedExpr) -> Expr {
        let is_there = self.member(target.clone(), "hasValue", Vec::new());
        function(op::CONDITIONAL, vec![is_there, then, self.optional("none", Vec::new())])
    }

    /// What has been made, and more.
    fn made_and(self, more: IdedExpr) -> IdedExpr {
        self.call(op::ADD, vec![self.name(MADE), more])
    }

    /// The value of `inner`, in which a name stands for a value (`cel.bind`).
    fn bound(self, name: &str, value: IdedExpr, inner: IdedExpr) -> IdedExpr {
        self.of(bound(self.0, name, value, inner))
    }

    /// A loop over all of `range` whose value is what it made.
    fn looped(
        self,
        range: &IdedExpr,
        variables: (&str, Option<&str>),
        (start, step): (IdedExpr, IdedExpr),
    ) -> IdedExpr {
        self.of(Expr::Comprehension(Box::new(self.comprehension(range, variables, (start, step)))))
    }

    fn comprehension(
        self,
        range: &IdedExpr,
        (first, second): (&str, Option<&str>),
        (start, step): (IdedExpr, IdedExpr),
    ) -> ComprehensionExpr {
        ComprehensionExpr {
            iter_range: range.clone(),
            iter_var: first.to_owned(),
            iter_var2: second.map(str::to_owned),
            accu_var: MADE.to_owned(),
            accu_init: start,
            loop_cond: self.flag(true),
            loop_step: step,
            result: self.name(MADE),
        }
    }
}

fn function(name: &str, args: Vec<IdedExpr>) -> Expr {
    Expr::Call(CallExpr { func_name: name.to_owned(), target: None, args })
}

/// The name that a variable must be.
fn simple(expression: &IdedExpr) -> Option<&str> {
    match &expression.expr {
        Expr::Ident(name) => Some(name),
        _ => None,
    }
}

/// The value of `inner`, in which a name stands for a value: a loop that never turns, and that began with it.
pub(crate) fn bound(id: u64, name: &str, value: IdedExpr, inner: IdedExpr) -> Expr {
    let at = At(id);
    Expr::Comprehension(Box::new(ComprehensionExpr {
        iter_range: at.list(Vec::new()),
        iter_var: UNUSED.to_owned(),
        iter_var2: None,
        accu_var: name.to_owned(),
        accu_init: value,
        loop_cond: at.flag(false),
        loop_step: at.name(name),
        result: inner,
    }))
}
