//! Values as a schema of a CustomResourceDefinition describes them: times, durations, bytes and numbers are of their own types, and
//! fields are called as expressions can call them (`apiserver/pkg/cel/common.UnstructuredToVal`).

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube_cel::cel::Value as Cel;
use kube_cel::cel::objects::{Key, Map};
use serde_json::Value;

use crate::evaluate::of_json;
use crate::objects::escaped;

/// What values of a schema are like.
#[derive(Debug, Default)]
pub struct Shape {
    scalar: Scalar,
    fields: BTreeMap<String, Arc<Shape>>,
    /// Of the items of a list.
    items: Option<Arc<Shape>>,
    /// Of the values of a map.
    values: Option<Arc<Shape>>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Scalar {
    #[default]
    AsIs,
    Number,
    Timestamp,
    Date,
    Duration,
    Bytes,
}

impl Shape {
    pub fn of(schema: &Value) -> Self {
        let inner = |schema: &Value| schema.is_object().then(|| Arc::new(Shape::of(schema)));
        let fields = schema["properties"].as_object().into_iter().flatten();
        Shape {
            scalar: Scalar::of(schema),
            fields: fields.map(|(name, schema)| (name.clone(), Arc::new(Shape::of(schema)))).collect(),
            items: inner(&schema["items"]),
            values: inner(&schema["additionalProperties"]),
        }
    }

    pub fn field(&self, name: &str) -> Option<&Arc<Shape>> {
        self.fields.get(name)
    }

    pub fn items(&self) -> Option<&Arc<Shape>> {
        self.items.as_ref()
    }

    pub fn values(&self) -> Option<&Arc<Shape>> {
        self.values.as_ref()
    }

    /// `made` turns a text into the value that the function of a name makes of it.
    pub(crate) fn value(&self, value: &Value, made: &dyn Fn(&str, &str) -> Option<Cel>) -> Cel {
        match value {
            Value::String(text) => self.text(text, made),
            Value::Number(number) if self.scalar == Scalar::Number => Cel::Float(number.as_f64().unwrap_or_default()),
            Value::Array(list) => {
                let item =
                    |item: &Value| self.items.as_ref().map_or_else(|| of_json(item), |one| one.value(item, made));
                Cel::List(Arc::new(list.iter().map(item).collect()))
            }
            Value::Object(map) => {
                let entry = |(name, value): (&String, &Value)| {
                    let declared = self.fields.get(name).or(self.values.as_ref());
                    let value = declared.map_or_else(|| of_json(value), |one| one.value(value, made));
                    // The keys of a map are data, and stay.
                    let key = if self.values.is_some() { name.clone() } else { escaped(name) };
                    (Key::String(Arc::new(key)), value)
                };
                Cel::Map(Map { map: Arc::new(map.iter().map(entry).collect()) })
            }
            other => of_json(other),
        }
    }

    fn text(&self, text: &str, made: &dyn Fn(&str, &str) -> Option<Cel>) -> Cel {
        let special = match self.scalar {
            Scalar::Timestamp => made("timestamp", text),
            Scalar::Date => made("timestamp", &format!("{text}T00:00:00Z")),
            Scalar::Duration => made("duration", text),
            Scalar::Bytes => STANDARD.decode(text).ok().map(|bytes| Cel::Bytes(Arc::new(bytes))),
            Scalar::AsIs | Scalar::Number => None,
        };
        special.unwrap_or_else(|| Cel::String(Arc::new(text.to_owned())))
    }
}

impl Scalar {
    fn of(schema: &Value) -> Self {
        if schema["x-kubernetes-int-or-string"] == true {
            return Scalar::AsIs;
        }
        match (schema["type"].as_str().unwrap_or_default(), schema["format"].as_str().unwrap_or_default()) {
            ("number", _) => Scalar::Number,
            ("string", "date-time") => Scalar::Timestamp,
            ("string", "date") => Scalar::Date,
            ("string", "duration") => Scalar::Duration,
            ("string", "byte") => Scalar::Bytes,
            _ => Scalar::AsIs,
        }
    }
}
