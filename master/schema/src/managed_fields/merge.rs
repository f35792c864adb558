//! Laying a configuration over an object: what it says counts, what it does not mention stays.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Map, Value};

use super::shape::{Shape, is_bare, list, members};

/// The object with the configuration laid over it. Lists are ordered as the configuration has them, items that only the
/// object has stay where they are between those.
pub(super) fn merge(shape: Shape, live: Option<&Value>, config: Option<&Value>) -> Option<Value> {
    let whole = || config.or(live).cloned();
    if is_bare(live) && is_bare(config) {
        return whole();
    }
    let all = |is: fn(&Value) -> bool| live.into_iter().chain(config).all(|value| value.is_null() || is(value));
    match shape {
        Shape::Struct(_) | Shape::Map(_) | Shape::Free if all(Value::is_object) => {
            let mut out = Map::new();
            for member in members(Shape::Free, live, config) {
                if let Some(merged) = merge(shape.member(member.name), member.left, member.right) {
                    out.insert(member.name.to_owned(), merged);
                }
            }
            Some(Value::Object(out))
        }
        Shape::Keyed(..) | Shape::Set(_) if all(Value::is_array) => Some(Value::Array(merge_items(
            shape,
            live.map(list).unwrap_or_default(),
            config.map(list).unwrap_or_default(),
        ))),
        _ => whole(),
    }
}

/// The items of one side with their elements.
struct Side<'a> {
    items: VecDeque<(Box<str>, &'a Value)>,
    /// `None` for one that stands there twice: it is replaced, not merged.
    by_element: BTreeMap<Box<str>, Option<&'a Value>>,
}

fn side<'a>(shape: Shape, list: &'a [Value]) -> Side<'a> {
    let items: VecDeque<_> = list.iter().filter_map(|item| Some((shape.element(item).ok()?, item))).collect();
    let mut by_element: BTreeMap<Box<str>, Option<&'a Value>> = BTreeMap::new();
    for (element, item) in &items {
        by_element.entry(element.clone()).and_modify(|found| *found = None).or_insert(Some(item));
    }
    Side { items, by_element }
}

fn merge_items(shape: Shape, live: &[Value], config: &[Value]) -> Vec<Value> {
    let (mut left, mut right) = (side(shape, live), side(shape, config));
    let mut shared: VecDeque<Box<str>> =
        right.items.iter().map(|(e, _)| e.clone()).filter(|e| left.by_element.contains_key(e)).collect();
    let mut done: BTreeSet<Box<str>> = BTreeSet::new();
    let mut out = Vec::with_capacity(live.len().max(config.len()));
    loop {
        // Items of the object alone come first, up to the one that both have and whose turn it is.
        while let Some((element, item)) = left.items.front().cloned() {
            let ours = right.by_element.contains_key(&element);
            let due = right.items.front().is_some_and(|(next, _)| *next == element);
            if !ours {
                out.push(item.clone());
            } else if !done.contains(&element) && (due || shared.front().is_some_and(|next| *next == element)) {
                break;
            }
            left.items.pop_front();
        }
        let Some((element, item)) = right.items.pop_front() else { break };
        let old = left.by_element.get(&element).copied().flatten();
        out.extend(merge(shape.item(), old, Some(item)));
        if shared.front().is_some_and(|next| *next == element) {
            shared.pop_front();
        }
        if left.items.front().is_some_and(|(next, _)| *next == element) {
            left.items.pop_front();
        }
        done.insert(element);
    }
    out
}
