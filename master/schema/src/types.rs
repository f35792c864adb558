//! The types of all kinds: compact tables read once from `data/types.json.gz`.
//!
//! Names are interned and live as long as the process: the whole is about 200 KiB, without descriptions.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::Value;

static DATA: &[u8] = include_bytes!("../data/types.json.gz");

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Text,
    Bool,
    Int32,
    Int64,
    Float,
    Base64,
    Quantity,
    IntOrString,
    Time,
    MicroTime,
    /// Kept as it comes.
    Any,
    List(&'static Type),
    Map(&'static Type),
    /// Index of a definition.
    Object(usize),
    /// An object of the definition with this index, or something else.
    Either(usize, Else),
    /// An object of a custom resource.
    Custom(&'static Definition),
}

/// What may stand where an object may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Else {
    Bool,
    /// A list of such objects.
    Objects,
    /// A list of texts.
    Texts,
}

/// Who may own what in a list or map (`x-kubernetes-list-type`, `-list-map-keys`, `-map-type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Topology {
    /// What the type says by itself: lists are replaced whole, maps and structs are merged.
    Plain,
    /// Replaced whole.
    Atomic,
    /// A list of scalars, each there once.
    Set,
    /// A list of objects that are told apart by these fields.
    Keyed(&'static [&'static str]),
}

/// One field of a definition.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub name: &'static str,
    pub kind: Type,
    /// A Go pointer: its zero value differs from its absence.
    pub pointer: bool,
    /// Left out of JSON when empty.
    pub omit_empty: bool,
    /// Its Go type where that is not the plain one: `v1.PullPolicy`.
    pub go: &'static str,
    /// A `+default=` marker.
    pub default: Option<Value>,
    pub merge_key: Option<&'static str>,
    /// patchStrategy `merge`
    pub merge: bool,
    pub topology: Topology,
}

/// One definition.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Definition {
    pub name: &'static str,
    /// Its Go struct, for the texts of type errors.
    pub go: &'static str,
    /// Whether values of it are only replaced whole (`x-kubernetes-map-type: atomic`).
    pub atomic: bool,
    /// Whether it may have fields that are not declared.
    pub open: bool,
    /// Sorted by name.
    pub fields: Box<[Field]>,
}

impl Definition {
    pub fn field(&self, name: &str) -> Option<&Field> {
        let index = self.fields.binary_search_by(|f| f.name.cmp(name)).ok()?;
        self.fields.get(index)
    }
}

/// All definitions.
#[derive(Debug, Default)]
pub(crate) struct Types {
    definitions: Vec<Definition>,
    by_name: HashMap<&'static str, usize>,
}

/// The tables, read on first use.
pub(crate) fn types() -> &'static Types {
    static TYPES: OnceLock<Types> = OnceLock::new();
    TYPES.get_or_init(|| match load() {
        Ok(types) => types,
        Err(error) => {
            // The data is part of the program, and a test reads it: this cannot be a user's fault.
            tracing::error!(%error, "the built-in type tables cannot be read");
            Types::default()
        }
    })
}

impl Types {
    pub fn get(&self, index: usize) -> Option<&Definition> {
        self.definitions.get(index)
    }

    pub fn root(&self, name: &str) -> Option<Type> {
        self.by_name.get(name).copied().map(Type::Object)
    }
}

#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error("decompress types.json.gz")]
    Decompress(#[from] std::io::Error),
    #[error("parse types.json.gz")]
    Parse(#[from] serde_json::Error),
}

type RawDefinition = (String, String, bool, Vec<RawField>);

/// One row; trailing columns may be missing.
#[derive(Deserialize)]
struct RawField(Vec<Value>);

fn load() -> Result<Types, LoadError> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(DATA).read_to_string(&mut text)?;
    let raw: Vec<RawDefinition> = serde_json::from_str(&text)?;
    let mut names = Interner::default();
    let mut types = Types::default();
    for (index, (name, go, atomic, fields)) in raw.into_iter().enumerate() {
        let name = names.intern(&name);
        let fields = fields.into_iter().map(|f| field(f, &mut names)).collect();
        types.definitions.push(Definition { name, go: names.intern(&go), atomic, open: false, fields });
        types.by_name.insert(name, index);
    }
    Ok(types)
}

fn field(raw: RawField, names: &mut Interner) -> Field {
    let column = |i: usize| raw.0.get(i).and_then(Value::as_str).unwrap_or_default();
    let strategy = column(6);
    let default = raw.0.get(4).filter(|v| !matches!(v, Value::Null | Value::Bool(false)) && **v != "" && **v != 0);
    Field {
        name: names.intern(column(0)),
        kind: parse_type(column(1)),
        pointer: column(2).contains('p'),
        omit_empty: column(2).contains('e'),
        go: names.intern(column(3)),
        default: default.cloned(),
        merge_key: Some(column(5)).filter(|k| !k.is_empty()).map(|k| names.intern(k)),
        merge: strategy.split(',').any(|s| s == "merge"),
        topology: match column(7) {
            "atomic" => Topology::Atomic,
            "set" => Topology::Set,
            "map" => Topology::Keyed(map_keys(raw.0.get(8), names)),
            _ => Topology::Plain,
        },
    }
}

fn map_keys(keys: Option<&Value>, names: &mut Interner) -> &'static [&'static str] {
    let keys = keys.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    Vec::leak(keys.map(|key| names.intern(key)).collect())
}

fn parse_type(text: &str) -> Type {
    let mut rest = text.chars();
    match rest.next() {
        Some('s') | Some('d') => Type::Text,
        Some('b') => Type::Bool,
        Some('i') => Type::Int32,
        Some('l') => Type::Int64,
        Some('f') => Type::Float,
        Some('B') => Type::Base64,
        Some('q') => Type::Quantity,
        Some('o') => Type::IntOrString,
        Some('t') => Type::Time,
        Some('m') => Type::MicroTime,
        Some('[') => Type::List(Box::leak(Box::new(parse_type(rest.as_str())))),
        Some('{') => Type::Map(Box::leak(Box::new(parse_type(rest.as_str())))),
        Some('#') => rest.as_str().parse().map_or(Type::Any, Type::Object),
        Some('?') => either(rest.as_str(), Else::Bool),
        Some('/') => either(rest.as_str(), Else::Objects),
        Some('%') => either(rest.as_str(), Else::Texts),
        _ => Type::Any,
    }
}

fn either(index: &str, other: Else) -> Type {
    index.parse().map_or(Type::Any, |index| Type::Either(index, other))
}

/// One copy of each name, kept for good: the tables are never dropped.
#[derive(Default)]
pub(crate) struct Interner(HashSet<&'static str>);

impl Interner {
    pub fn intern(&mut self, text: &str) -> &'static str {
        if let Some(known) = self.0.get(text) {
            return known;
        }
        let kept: &'static str = Box::leak(text.to_string().into_boxed_str());
        self.0.insert(kept);
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Registry;

    #[test]
    fn every_kind_has_its_definition() {
        for kind in Registry::builtin().kinds() {
            assert!(types().root(kind.definition).is_some(), "{}", kind.definition);
        }
    }

    #[test]
    fn merge_keys_and_flags_are_read() {
        let tables = types();
        let Some(Type::Object(index)) = tables.root("io.k8s.api.core.v1.PodSpec") else { panic!("no PodSpec") };
        let spec = tables.get(index).unwrap();
        let containers = spec.field("containers").unwrap();
        assert_eq!((containers.merge_key, containers.merge), (Some("name"), true));
        let volumes = spec.field("volumes").unwrap();
        assert!(volumes.merge);
        assert_eq!(containers.topology, Topology::Keyed(&["name"]));
        assert_eq!(spec.field("tolerations").unwrap().topology, Topology::Atomic);
        assert!(spec.field("enableServiceLinks").unwrap().pointer);
        assert!(!spec.field("hostNetwork").unwrap().pointer);
    }
}
