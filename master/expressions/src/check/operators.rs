//! The operators of CEL, with what Kubernetes turns on: numbers are compared across their types.

use kube_cel::cel::common::ast::operators as op;

use super::optional;
use crate::types::Ty;

/// `None` if this is no operator; an error if it does not go with these types.
pub(super) fn result(name: &str, operands: &[Ty]) -> Option<Result<Ty, ()>> {
    let found = match (name, operands) {
        (op::LOGICAL_NOT | op::NOT_STRICTLY_FALSE, [one]) => of(one, &[Ty::Bool]).map(|_| Ty::Bool),
        (op::NEGATE, [one]) => of(one, &[Ty::Int, Ty::Double]),
        (op::LOGICAL_AND | op::LOGICAL_OR, all) => all.iter().all(|one| one.fits(&Ty::Bool)).then_some(Ty::Bool),
        (op::CONDITIONAL, [condition, a, b]) => condition.fits(&Ty::Bool).then(|| a.join(b)).flatten(),
        (op::ADD, [a, b]) => sum(a, b),
        (op::SUBSTRACT, [a, b]) => difference(a, b),
        (op::MULTIPLY | op::DIVIDE, [a, b]) => same(a, b, &[Ty::Int, Ty::Uint, Ty::Double]),
        (op::MODULO, [a, b]) => same(a, b, &[Ty::Int, Ty::Uint]),
        (op::EQUALS | op::NOT_EQUALS, [a, b]) => (a.join(b).is_some() || numbers(a, b)).then_some(Ty::Bool),
        (op::LESS | op::LESS_EQUALS | op::GREATER | op::GREATER_EQUALS, [a, b]) => {
            (numbers(a, b) || same(a, b, ORDERED).is_some()).then_some(Ty::Bool)
        }
        (op::IN, [item, holder]) => match holder {
            Ty::List(inside) | Ty::Map(inside, _) => item.join(inside).map(|_| Ty::Bool),
            other => other.is_open().then_some(Ty::Bool),
        },
        (op::INDEX, [holder, index]) => item(holder, index),
        (op::OPT_INDEX, [holder, index]) => item(holder, index).map(optional),
        _ => return None,
    };
    Some(found.ok_or(()))
}

const ORDERED: &[Ty] = &[Ty::Bool, Ty::Text, Ty::Bytes, Ty::Timestamp, Ty::Duration];

fn numbers(a: &Ty, b: &Ty) -> bool {
    let number = |ty: &Ty| ty.is_open() || matches!(ty, Ty::Int | Ty::Uint | Ty::Double);
    number(a) && number(b)
}

fn of(ty: &Ty, all: &[Ty]) -> Option<Ty> {
    if ty.is_open() { Some(Ty::Dyn) } else { all.iter().find(|one| *one == ty).cloned() }
}

/// Both are the same one of some types.
fn same(a: &Ty, b: &Ty, all: &[Ty]) -> Option<Ty> {
    match (a.is_open(), b.is_open()) {
        (true, _) => of(b, all),
        (_, true) => of(a, all),
        _ => of(a, all).filter(|_| a == b),
    }
}

fn sum(a: &Ty, b: &Ty) -> Option<Ty> {
    match (a, b) {
        (Ty::List(_), Ty::List(_)) => a.join(b),
        (Ty::List(_), other) | (other, Ty::List(_)) => other.is_open().then_some(Ty::list(Ty::Dyn)),
        (Ty::Timestamp, Ty::Duration) | (Ty::Duration, Ty::Timestamp) => Some(Ty::Timestamp),
        (Ty::Timestamp | Ty::Duration, other) | (other, Ty::Timestamp | Ty::Duration) if other.is_open() => {
            Some(Ty::Dyn)
        }
        _ => same(a, b, &[Ty::Int, Ty::Uint, Ty::Double, Ty::Text, Ty::Bytes, Ty::Duration]),
    }
}

fn difference(a: &Ty, b: &Ty) -> Option<Ty> {
    match (a, b) {
        (Ty::Timestamp, Ty::Timestamp) => Some(Ty::Duration),
        (Ty::Timestamp, Ty::Duration) => Some(Ty::Timestamp),
        (Ty::Timestamp, other) | (other, Ty::Timestamp | Ty::Duration) if other.is_open() => Some(Ty::Dyn),
        _ => same(a, b, &[Ty::Int, Ty::Uint, Ty::Double, Ty::Duration]),
    }
}

fn item(holder: &Ty, index: &Ty) -> Option<Ty> {
    match holder {
        Ty::List(inside) => numbers(index, &Ty::Int).then(|| (**inside).clone()),
        Ty::Map(key, value) => key.join(index).map(|_| (**value).clone()),
        // What stands behind an optional is there or not, too.
        Ty::Optional(inner) => item(inner, index).map(optional),
        // Objects that a schema describes can be asked by name, too.
        Ty::Object(_) => index.fits(&Ty::Text).then_some(Ty::Dyn),
        other => other.is_open().then_some(Ty::Dyn),
    }
}
