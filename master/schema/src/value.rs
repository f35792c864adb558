//! Reading fields of dynamic objects, where absent, null and the zero value are the same, as they are in Go.

use serde_json::{Map, Value};

pub(crate) type Object = Map<String, Value>;

/// How deep an object may be. What a parser takes is deeper, but managed fields are deeper than their object by some levels,
/// and what is stored must be read again.
pub const DEEPEST: usize = 100;

static NULL: Value = Value::Null;

/// Field access that never fails.
pub(crate) trait Fields {
    /// The field, or null.
    fn at(&self, field: &str) -> &Value;

    /// A text, or the empty one.
    fn text(&self, field: &str) -> &str {
        self.at(field).as_str().unwrap_or_default()
    }

    fn int(&self, field: &str) -> Option<i64> {
        self.at(field).as_i64()
    }

    fn flag(&self, field: &str) -> bool {
        self.at(field).as_bool().unwrap_or_default()
    }

    fn list(&self, field: &str) -> &[Value] {
        self.at(field).as_array().map(Vec::as_slice).unwrap_or_default()
    }

    /// The entries of a map field.
    fn entries(&self, field: &str) -> impl Iterator<Item = (&String, &Value)> {
        self.at(field).as_object().into_iter().flatten()
    }

    /// Whether the field is set to something.
    fn has(&self, field: &str) -> bool {
        !self.at(field).is_null()
    }
}

impl Fields for Value {
    fn at(&self, field: &str) -> &Value {
        self.get(field).unwrap_or(&NULL)
    }
}

impl Fields for Object {
    fn at(&self, field: &str) -> &Value {
        self.get(field).unwrap_or(&NULL)
    }
}

/// The object in a field, made if there is none.
pub(crate) fn object_in<'a>(parent: &'a mut Object, field: &str) -> &'a mut Object {
    let slot = parent.entry(field).or_insert_with(|| Value::Object(Object::new()));
    if !slot.is_object() {
        *slot = Value::Object(Object::new());
    }
    match slot {
        Value::Object(object) => object,
        _ => unreachable!("made an object above"),
    }
}

/// Sets a field that is absent, null or the empty string.
pub(crate) fn set_if_unset(object: &mut Object, field: &str, value: impl Into<Value>) {
    let unset = match object.get(field) {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(_) => false,
    };
    if unset {
        object.insert(field.to_string(), value.into());
    }
}

/// Sets a field of an object, or removes it where the value is null.
pub(crate) fn put(object: &mut Value, field: &str, value: Value) {
    if let Value::Object(map) = object {
        if value.is_null() {
            map.remove(field);
        } else {
            map.insert(field.to_string(), value);
        }
    }
}

/// The objects of a list field.
pub(crate) fn objects_in<'a>(parent: &'a mut Object, field: &str) -> impl Iterator<Item = &'a mut Object> {
    parent.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

/// Whether two fields mean the same: null, absent and empty are one.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            x.iter().all(|(k, v)| same(v, y.at(k))) && y.iter().all(|(k, v)| x.contains_key(k) || is_zero(v))
        }
        (Value::Array(x), Value::Array(y)) => x.len() == y.len() && x.iter().zip(y).all(|(v, w)| same(v, w)),
        _ => a == b || (is_zero(a) && is_zero(b)),
    }
}

/// Whether a value has more than so many lists and objects within each other.
pub fn is_deeper(value: &Value, than: usize) -> bool {
    let below = |inner: &Value| is_deeper(inner, than - 1);
    match value {
        Value::Array(_) | Value::Object(_) if than == 0 => true,
        Value::Array(list) => list.iter().any(below),
        Value::Object(object) => object.values().any(below),
        _ => false,
    }
}

/// A float as Go writes it: without decimals where there are none.
pub(crate) fn float(value: f64) -> Value {
    const WHOLE: f64 = 9.0e18;
    if value.fract() == 0.0 && value.abs() < WHOLE { (value as i64).into() } else { value.into() }
}

/// Null, or an empty list or map.
pub(crate) fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}
