//! The variables of a policy, `variables.NAME`: each has its value from the first expression on that asks for it, and one that
//! nobody asks for costs nothing (`apiserver/pkg/cel/lazy`).

use std::collections::{BTreeSet, HashMap};

use kube_cel::cel::common::ast::{EntryExpr, Expr, LiteralValue, operators as op};
use kube_cel::cel::{IdedExpr, Value as Cel};

/// What all of them are the fields of.
pub(crate) const VARIABLES: &str = "variables";

/// One of them.
pub(crate) struct Variable {
    pub name: String,
    pub expression: String,
}

/// Which of them an expression asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    These(BTreeSet<String>),
    /// It has all of them at once, or chooses as it goes.
    All,
}

impl Wanted {
    pub(crate) fn of(expression: &IdedExpr) -> Self {
        let mut wanted = Wanted::These(BTreeSet::new());
        wanted.look(expression);
        wanted
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        match self {
            Wanted::These(names) => names.contains(name),
            Wanted::All => true,
        }
    }

    fn look(&mut self, expression: &IdedExpr) {
        match &expression.expr {
            Expr::Ident(name) if name == VARIABLES => *self = Wanted::All,
            Expr::Select(select) if is_variables(&select.operand) => self.add(&select.field),
            Expr::Select(select) => self.look(&select.operand),
            Expr::Call(call) => match (call.func_name.as_str(), call.args.as_slice()) {
                (op::INDEX | op::OPT_INDEX, [of, key]) if is_variables(of) && literal(key).is_some() => {
                    self.add(literal(key).unwrap_or_default());
                }
                (_, args) => call.target.as_deref().into_iter().chain(args).for_each(|part| self.look(part)),
            },
            Expr::Comprehension(looped) => {
                let parts =
                    [&looped.iter_range, &looped.accu_init, &looped.loop_cond, &looped.loop_step, &looped.result];
                parts.into_iter().for_each(|part| self.look(part));
            }
            Expr::List(list) => list.elements.iter().for_each(|part| self.look(part)),
            Expr::Map(map) => map.entries.iter().for_each(|entry| self.look_in(&entry.expr)),
            Expr::Struct(made) => made.entries.iter().for_each(|entry| self.look_in(&entry.expr)),
            Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
        }
    }

    fn look_in(&mut self, entry: &EntryExpr) {
        match entry {
            EntryExpr::MapEntry(entry) => {
                self.look(&entry.key);
                self.look(&entry.value);
            }
            EntryExpr::StructField(field) => self.look(&field.value),
        }
    }

    fn add(&mut self, name: &str) {
        if let Wanted::These(names) = self {
            names.insert(name.to_owned());
        }
    }
}

fn is_variables(expression: &IdedExpr) -> bool {
    matches!(&expression.expr, Expr::Ident(name) if name == VARIABLES)
}

fn literal(expression: &IdedExpr) -> Option<&str> {
    match &expression.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

/// What is known of their values: why one has none is kept, too.
pub(crate) type Known = HashMap<usize, Result<Cel, String>>;
