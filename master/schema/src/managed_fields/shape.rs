//! How a value is taken apart: which parts of it are merged and owned by themselves.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::set::field;
use crate::kind::Kind;
use crate::types::{Definition, Field, Topology, Type, types};
use crate::value::Object;

/// What the parts of a value are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// None: a scalar, or what is only replaced whole.
    Leaf,
    Struct(&'static Definition),
    Map(Type),
    /// A list of objects that are told apart by keys.
    Keyed(&'static [&'static str], Type),
    /// A list of scalars, each there once.
    Set(Type),
    /// No schema says: objects have parts, nothing else has.
    Free,
}

/// Why a list item cannot be told apart from others.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unidentified(pub String);

impl Shape {
    pub fn root(kind: &Kind) -> Shape {
        kind.root_type().map_or(Shape::Free, |kind| Shape::of(kind, Topology::Plain))
    }

    pub fn of(kind: Type, topology: Topology) -> Shape {
        match (kind, topology) {
            (_, Topology::Atomic) => Shape::Leaf,
            (Type::Any, _) => Shape::Free,
            (Type::Object(index), _) => match types().get(index) {
                Some(definition) if !definition.atomic => Shape::Struct(definition),
                _ => Shape::Leaf,
            },
            (Type::Either(..), _) => Shape::Free,
            (Type::Custom(definition), _) if definition.atomic => Shape::Leaf,
            (Type::Custom(definition), _) => Shape::Struct(definition),
            (Type::Map(item), _) => Shape::Map(*item),
            (Type::List(item), Topology::Keyed(keys)) => Shape::Keyed(keys, *item),
            (Type::List(item), Topology::Set) => Shape::Set(*item),
            _ => Shape::Leaf,
        }
    }

    /// The declared field of a struct.
    pub fn declared(self, name: &str) -> Option<&'static Field> {
        match self {
            Shape::Struct(definition) => definition.field(name),
            _ => None,
        }
    }

    /// What the part under a name is; of an undeclared field nothing is known.
    pub fn member(self, name: &str) -> Shape {
        match self {
            Shape::Struct(definition) => definition.field(name).map_or(Shape::Free, |f| Shape::of(f.kind, f.topology)),
            Shape::Map(item) => Shape::of(item, Topology::Plain),
            _ => Shape::Free,
        }
    }

    /// What the items of a list are.
    pub fn item(self) -> Shape {
        match self {
            Shape::Keyed(_, item) | Shape::Set(item) => Shape::of(item, Topology::Plain),
            _ => Shape::Free,
        }
    }

    /// The path element of a list item (`listItemToPathElement`).
    pub fn element(self, item: &Value) -> Result<Box<str>, Unidentified> {
        let Shape::Keyed(keys, kind) = self else { return set_element(item) };
        let refuse = |why: &str| Err(Unidentified(why.to_owned()));
        let object = match item {
            Value::Object(object) => object,
            Value::Null => return refuse("associative list with keys may not have a null element"),
            _ => return refuse("associative list with keys may not have non-map elements"),
        };
        let mut found = Map::new();
        for key in keys {
            let default = || Shape::of(kind, Topology::Plain).declared(key).and_then(|f| f.default.as_ref());
            if let Some(value) = object.get(*key).or_else(default) {
                found.insert((*key).to_owned(), value.clone());
            }
        }
        if found.is_empty() {
            let names: Vec<String> = keys.iter().map(|key| format!("{key:?}")).collect();
            return refuse(&format!(
                "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
                names.join(" ")
            ));
        }
        Ok(format!("k:{}", Value::Object(found)).into())
    }
}

fn set_element(item: &Value) -> Result<Box<str>, Unidentified> {
    let why = match item {
        Value::Object(_) => "associative list without keys has an element that's a map type",
        Value::Array(_) => "not supported: associative list with lists as elements",
        Value::Null => "associative list without keys has an element that's an explicit null",
        scalar => return Ok(format!("v:{scalar}").into()),
    };
    Err(Unidentified(why.to_owned()))
}

/// The parts of an object, by the element that leads to each.
pub(super) struct Member<'a> {
    pub name: &'a str,
    pub shape: Shape,
    pub left: Option<&'a Value>,
    pub right: Option<&'a Value>,
}

impl Member<'_> {
    pub fn element(&self) -> Box<str> {
        field(self.name)
    }
}

/// The fields of two versions of an object. A field that Go always writes is there with its zero value, unless the whole
/// object is absent.
pub(super) fn members<'a>(shape: Shape, left: Option<&'a Value>, right: Option<&'a Value>) -> Vec<Member<'a>> {
    let (left, right) = (left.map(object), right.map(object));
    let names = |side: Option<&'a Object>| side.into_iter().flatten().map(|(name, _)| name.as_str());
    let mut all: Vec<&str> = names(left).chain(names(right)).collect();
    all.sort_unstable();
    all.dedup();
    let member = |name: &'a str| {
        let declared = shape.declared(name);
        let value = |side: Option<&'a Object>| match side {
            Some(object) => object.get(name).or_else(|| declared.and_then(written_zero)),
            None => None,
        };
        Member { name, shape: shape.member(name), left: value(left), right: value(right) }
    };
    all.into_iter().map(member).collect()
}

/// The fields of an object; none where it is no object.
pub(super) fn object(value: &Value) -> &Object {
    static NONE: LazyLock<Object> = LazyLock::new(Object::new);
    value.as_object().unwrap_or(&NONE)
}

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// What Go writes of a field that nobody set.
fn written_zero(field: &'static Field) -> Option<&'static Value> {
    static ZEROS: LazyLock<[Value; 5]> =
        LazyLock::new(|| [Value::Null, Value::Object(Map::new()), "".into(), 0.into(), false.into()]);
    if field.pointer || field.omit_empty {
        return None;
    }
    let [null, object, text, number, flag] = &*ZEROS;
    Some(match field.kind {
        Type::Object(_) => object,
        Type::Text | Type::Base64 => text,
        Type::Bool => flag,
        Type::Int32 | Type::Int64 | Type::Float | Type::IntOrString => number,
        _ => null,
    })
}

/// The items of a list by element, several where they cannot be told apart; those without an element are left out.
pub(super) fn items<'a>(shape: Shape, value: Option<&'a Value>) -> BTreeMap<Box<str>, Vec<&'a Value>> {
    let mut out: BTreeMap<Box<str>, Vec<&'a Value>> = BTreeMap::new();
    for item in value.map(list).unwrap_or_default() {
        if let Ok(element) = shape.element(item) {
            out.entry(element).or_default().push(item);
        }
    }
    out
}

/// Whether there is nothing in a list or an object.
pub(super) fn is_bare(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(object)) => object.is_empty(),
        Some(_) => false,
    }
}
