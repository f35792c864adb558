//! Sets of fields, as `FieldsV1` writes them: a tree whose edges are path elements.
//!
//! An element is kept as it is written: `f:spec` a field, `k:{"name":"x"}` the list item with these keys, `v:"x"` the item
//! of a set, `i:0` a position.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::errors::quote;

/// Elements and whether the path that ends there is in the set. Nodes that say nothing are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Set(BTreeMap<Box<str>, Node>);

/// What a set says of one path and of those below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Node {
    pub member: bool,
    pub children: Set,
}

impl Node {
    pub fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }
}

/// The element of a field.
pub(super) fn field(name: &str) -> Box<str> {
    format!("f:{name}").into()
}

impl Set {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts a node under an element; one that says nothing is not kept.
    pub fn put(&mut self, element: Box<str>, node: Node) {
        if !node.is_empty() {
            self.0.insert(element, node);
        }
    }

    pub fn get(&self, element: &str) -> Option<&Node> {
        self.0.get(element)
    }

    pub fn nodes(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.0.iter().map(|(element, node)| (element.as_ref(), node))
    }

    /// Takes out everything under an element.
    pub fn cut(&mut self, element: &str) {
        self.0.remove(element);
    }

    /// Everything that is in either.
    pub fn union(&self, other: &Set) -> Set {
        let mut out = self.clone();
        for (element, node) in &other.0 {
            let slot = out.0.entry(element.clone()).or_default();
            slot.member |= node.member;
            slot.children = slot.children.union(&node.children);
        }
        out
    }

    /// What is in both.
    pub fn intersection(&self, other: &Set) -> Set {
        let mut out = Set::default();
        for (element, node) in &self.0 {
            if let Some(same) = other.0.get(element) {
                let children = node.children.intersection(&same.children);
                out.put(element.clone(), Node { member: node.member && same.member, children });
            }
        }
        out
    }

    /// What is in this one only. A path that is gone leaves those below it.
    pub fn difference(&self, other: &Set) -> Set {
        let mut out = Set::default();
        for (element, node) in &self.0 {
            let left = match other.0.get(element) {
                Some(same) => {
                    let children = node.children.difference(&same.children);
                    Node { member: node.member && !same.member, children }
                }
                None => node.clone(),
            };
            out.put(element.clone(), left);
        }
        out
    }

    /// Visits every path of the set as clients read it: `.spec.containers[name="x"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.paths_under("", &mut out);
        out
    }

    fn paths_under(&self, prefix: &str, out: &mut Vec<String>) {
        for (element, _) in self.0.iter().filter(|(_, node)| node.member) {
            out.push(format!("{prefix}{}", shown(element)));
        }
        for (element, node) in self.0.iter().filter(|(_, node)| !node.children.is_empty()) {
            node.children.paths_under(&format!("{prefix}{}", shown(element)), out);
        }
    }

    /// As `fieldsV1` holds it.
    pub fn to_value(&self) -> Value {
        Value::Object(self.to_map())
    }

    fn to_map(&self) -> Map<String, Value> {
        let entry = |(element, node): (&str, &Node)| {
            let mut inner = node.children.to_map();
            if node.member && !inner.is_empty() {
                inner.insert(".".into(), Value::Object(Map::new()));
            }
            (element.to_string(), Value::Object(inner))
        };
        self.nodes().map(entry).collect()
    }

    /// Reads `fieldsV1`; elements of a sort that is not known are left out. The error names what cannot be read.
    pub fn from_value(value: &Value) -> Result<Set, String> {
        let mut out = Set::default();
        for (key, value) in value.as_object().into_iter().flatten().filter(|(key, _)| *key != ".") {
            let Some(element) = canonical(key)? else { continue };
            let children = Set::from_value(value)?;
            let member = children.is_empty() || value.get(".").is_some();
            out.put(element, Node { member, children });
        }
        Ok(out)
    }
}

/// An element as this server writes it, whoever wrote it.
fn canonical(key: &str) -> Result<Option<Box<str>>, String> {
    let Some((sort, content)) = key.split_once(':') else { return Err(format!("missing colon: {key}")) };
    let json = || serde_json::from_str::<Value>(content).map_err(|error| format!("{key}: {error}"));
    Ok(match sort {
        "f" | "i" => Some(key.into()),
        "k" | "v" => Some(format!("{sort}:{}", json()?).into()),
        _ => None,
    })
}

/// `.name`, `[name="x",protocol="TCP"]`, `[="x"]`, `[0]`.
pub(super) fn shown(element: &str) -> String {
    let (sort, content) = element.split_once(':').unwrap_or_default();
    match sort {
        "f" => format!(".{content}"),
        "k" => {
            let keys: Map<String, Value> = serde_json::from_str(content).unwrap_or_default();
            let mut out = String::from("[");
            for (index, (name, value)) in keys.iter().enumerate() {
                let comma = if index == 0 { "" } else { "," };
                let _ = write!(out, "{comma}{name}={}", scalar(value));
            }
            out + "]"
        }
        "v" => format!("[={}]", scalar(&serde_json::from_str(content).unwrap_or_default())),
        _ => format!("[{content}]"),
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => quote(text),
        other => other.to_string(),
    }
}
