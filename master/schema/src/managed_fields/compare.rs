//! What one version of an object has over another, and which fields a value has at all.

use serde_json::Value;

use super::set::{Node, Set};
use super::shape::{Shape, is_bare, items, list, members, object};

/// The fields in which two values differ.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// New, or with another value.
    pub changed: Set,
    /// No longer there.
    pub removed: Set,
}

/// What differs at one path and below.
#[derive(Default)]
struct Here {
    changed: Node,
    removed: Node,
}

impl Here {
    fn put(&mut self, element: Box<str>, below: Here) {
        self.changed.children.put(element.clone(), below.changed);
        self.removed.children.put(element, below.removed);
    }
}

/// Compares two whole objects.
pub(super) fn compare(shape: Shape, left: &Value, right: &Value) -> Difference {
    let here = at(shape, Some(left), Some(right));
    Difference { changed: here.changed.children, removed: here.removed.children }
}

fn at(shape: Shape, left: Option<&Value>, right: Option<&Value>) -> Here {
    let mut here = Here::default();
    let apart = parts(shape, left, right);
    match apart {
        Parts::None => {
            match (left, right) {
                (None, _) => here.changed.member = true,
                (_, None) => here.removed.member = true,
                (Some(left), Some(right)) => here.changed.member = left != right,
            }
            return here;
        }
        Parts::Fields => {
            for member in members(shape, left, right) {
                here.put(member.element(), at(member.shape, member.left, member.right));
            }
        }
        Parts::Items => compare_items(shape, left, right, &mut here),
    }
    match (left, right) {
        (None, _) => here.changed.member = true,
        (_, None) => here.removed.member = true,
        _ => {}
    }
    here
}

enum Parts {
    None,
    Fields,
    Items,
}

/// What the two values are compared by.
fn parts(shape: Shape, left: Option<&Value>, right: Option<&Value>) -> Parts {
    // Two that are empty, or null, are one thing: so the difference between those is not lost.
    if is_bare(left) && is_bare(right) {
        return Parts::None;
    }
    let all = |is: fn(&Value) -> bool| left.into_iter().chain(right).all(|value| value.is_null() || is(value));
    match shape {
        Shape::Struct(_) | Shape::Map(_) | Shape::Free if all(Value::is_object) => Parts::Fields,
        Shape::Keyed(..) | Shape::Set(_) if all(Value::is_array) => Parts::Items,
        _ => Parts::None,
    }
}

/// Items that stand there twice count as one thing.
fn compare_items(shape: Shape, left: Option<&Value>, right: Option<&Value>, here: &mut Here) {
    let (before, mut after) = (items(shape, left), items(shape, right));
    for (element, old) in before {
        let new = after.remove(&element).unwrap_or_default();
        let mut below = Here::default();
        match (old.as_slice(), new.as_slice()) {
            ([_, _, ..], [_, _, ..]) => below.changed.member = old != new,
            ([_, _, ..], rest) => {
                if let Some(new) = rest.first() {
                    below = at(shape.item(), None, Some(new));
                }
                below.removed.member = true;
            }
            ([one], [_, _, ..]) => {
                below = at(shape.item(), Some(one), None);
                below.changed.member = true;
            }
            (old, new) => below = at(shape.item(), old.first().copied(), new.first().copied()),
        }
        here.put(element, below);
    }
    for (element, new) in after {
        let below = match new.as_slice() {
            [one] => at(shape.item(), None, Some(one)),
            _ => Here { changed: Node { member: true, children: Set::default() }, ..Here::default() },
        };
        here.put(element, below);
    }
}

/// Every field and item of a value (`ToFieldSet`).
pub(super) fn fields(shape: Shape, value: &Value) -> Set {
    below(shape, value).children
}

fn below(shape: Shape, value: &Value) -> Node {
    let mut node = Node::default();
    match shape {
        Shape::Struct(_) | Shape::Map(_) | Shape::Free if value.is_object() || value.is_null() => {
            for (name, value) in object(value) {
                let mut inner = below(shape.member(name), value);
                let empty = value.is_null() || value.as_object().is_some_and(|map| map.is_empty());
                inner.member |= empty || shape.declared(name).is_none();
                node.children.put(super::set::field(name), inner);
            }
        }
        Shape::Keyed(..) | Shape::Set(_) => {
            for (element, found) in items(shape, Some(value)) {
                let mut inner = match found.as_slice() {
                    [one] => below(shape.item(), one),
                    _ => Node::default(),
                };
                inner.member = true;
                node.children.put(element, inner);
            }
        }
        _ => node.member = true,
    }
    node
}

/// The value without the fields and items of a set; what is empty then is null.
pub(super) fn remove(shape: Shape, value: &Value, gone: &Set) -> Value {
    match shape {
        Shape::Struct(_) | Shape::Map(_) | Shape::Free if value.is_object() => {
            let mut out = serde_json::Map::new();
            for (name, value) in object(value) {
                match gone.get(&super::set::field(name)) {
                    Some(node) if node.member => {}
                    Some(node) => {
                        out.insert(name.clone(), remove(shape.member(name), value, &node.children));
                    }
                    None => {
                        out.insert(name.clone(), value.clone());
                    }
                }
            }
            if out.is_empty() { Value::Null } else { Value::Object(out) }
        }
        Shape::Keyed(..) | Shape::Set(_) if value.is_array() => {
            let mut out = Vec::new();
            for item in list(value) {
                match shape.element(item).ok().and_then(|element| gone.get(&element)) {
                    Some(node) if node.member => {}
                    Some(node) => out.push(remove(shape.item(), item, &node.children)),
                    None => out.push(item.clone()),
                }
            }
            if out.is_empty() { Value::Null } else { Value::Array(out) }
        }
        Shape::Leaf if value.is_object() || value.is_array() => Value::Null,
        _ => value.clone(),
    }
}

/// The set with every declared field that leads to one of it.
pub(super) fn with_declared(shape: Shape, set: &Set) -> Set {
    let mut out = Set::default();
    for (element, node) in set.nodes() {
        let name = element.strip_prefix("f:");
        let (inner, declared) = match name {
            Some(name) => (shape.member(name), shape.declared(name).is_some()),
            None => (shape.item(), false),
        };
        let member = node.member || (declared && !node.children.is_empty());
        out.put(element.into(), Node { member, children: with_declared(inner, &node.children) });
    }
    out
}
