//! Types of expressions, and those of objects out of OpenAPI documents (`apiserver/pkg/cel/common.SchemaDeclType`).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

/// A type. [`fmt::Display`] is as cel-go prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ty {
    /// Any type, judged when the expression runs.
    Dyn,
    /// Of an item of an empty list: what it is, is not known yet.
    Free,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    Text,
    Bytes,
    Timestamp,
    Duration,
    Type,
    List(Box<Ty>),
    Map(Box<Ty>, Box<Ty>),
    Optional(Box<Ty>),
    Object(Arc<Struct>),
    /// Of a library, or made by an expression: only its name is known.
    Named(Arc<str>),
}

/// An object with declared fields.
#[derive(Debug, PartialEq, Eq)]
pub struct Struct {
    pub name: String,
    pub fields: BTreeMap<String, Ty>,
}

impl Ty {
    pub fn list(item: Ty) -> Ty {
        Ty::List(Box::new(item))
    }

    pub fn map(value: Ty) -> Ty {
        Ty::Map(Box::new(Ty::Text), Box::new(value))
    }

    pub fn named(name: &str) -> Ty {
        Ty::Named(name.into())
    }

    pub fn object(name: &str, fields: &[(&str, Ty)]) -> Ty {
        let fields = fields.iter().map(|(name, ty)| ((*name).to_owned(), ty.clone())).collect();
        Ty::Object(Arc::new(Struct { name: name.to_owned(), fields }))
    }

    /// Of what a schema of a CustomResourceDefinition describes, which may be a whole resource. `None`: expressions do not see it.
    pub fn of_schema(schema: &Value, is_resource: bool) -> Option<Ty> {
        Schemas(&Value::Null).ty(schema, "selfType", usize::from(!is_resource))
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Ty::Dyn | Ty::Free)
    }

    /// Whether a value of this type can stand where one of `wanted` must.
    pub(crate) fn fits(&self, wanted: &Ty) -> bool {
        if self.is_open() || wanted.is_open() {
            return true;
        }
        match (self, wanted) {
            (Ty::List(a), Ty::List(b)) | (Ty::Optional(a), Ty::Optional(b)) => a.fits(b),
            (Ty::Map(a, c), Ty::Map(b, d)) => a.fits(b) && c.fits(d),
            (Ty::Null, Ty::Object(_) | Ty::Timestamp | Ty::Duration | Ty::Named(_) | Ty::Optional(_)) => true,
            // One type that two documents describe.
            (Ty::Object(a), Ty::Object(b)) => Arc::ptr_eq(a, b) || a.name == b.name,
            (a, b) => a == b,
        }
    }

    /// What both are; `None` where they have nothing in common.
    pub(crate) fn join(&self, other: &Ty) -> Option<Ty> {
        Some(match (self, other) {
            (Ty::Free, ty) | (ty, Ty::Free) => ty.clone(),
            (Ty::Dyn, _) | (_, Ty::Dyn) => Ty::Dyn,
            (Ty::List(a), Ty::List(b)) => Ty::list(a.join(b)?),
            (Ty::Map(a, c), Ty::Map(b, d)) => Ty::Map(Box::new(a.join(b)?), Box::new(c.join(d)?)),
            (Ty::Optional(a), Ty::Optional(b)) => Ty::Optional(Box::new(a.join(b)?)),
            (a, b) if a.fits(b) => b.clone(),
            (a, b) if b.fits(a) => a.clone(),
            _ => return None,
        })
    }
}

impl fmt::Display for Ty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = match self {
            Ty::Dyn | Ty::Free => "dyn",
            Ty::Null => "null",
            Ty::Bool => "bool",
            Ty::Int => "int",
            Ty::Uint => "uint",
            Ty::Double => "double",
            Ty::Text => "string",
            Ty::Bytes => "bytes",
            Ty::Timestamp => "timestamp",
            Ty::Duration => "duration",
            Ty::Type => "type",
            Ty::Object(object) => &object.name,
            Ty::Named(name) => name,
            Ty::List(item) => return write!(f, "list({item})"),
            Ty::Map(key, value) => return write!(f, "map({key}, {value})"),
            Ty::Optional(inner) => return write!(f, "optional_type({inner})"),
        };
        f.write_str(plain)
    }
}

/// An OpenAPI v3 document, asked for types of objects.
pub struct Schemas<'a>(pub &'a Value);

/// How deep schemas are followed: those that hold themselves have no end.
const DEEPEST: usize = 24;

impl Schemas<'_> {
    /// The type of a kind; `None` where the document has none.
    pub fn kind(&self, group: &str, version: &str, kind: &str) -> Option<Ty> {
        let schemas = self.0.pointer("/components/schemas")?.as_object()?;
        let is_it = |schema: &&Value| {
            schema["x-kubernetes-group-version-kind"].as_array().into_iter().flatten().any(|said| {
                said["group"].as_str().unwrap_or_default() == group
                    && said["version"] == version
                    && said["kind"] == kind
            })
        };
        self.ty(schemas.values().find(is_it)?, kind, 0)
    }

    fn resolved<'b>(&'b self, schema: &'b Value) -> &'b Value {
        let reference = schema["$ref"].as_str().or_else(|| schema["allOf"][0]["$ref"].as_str());
        let target = reference.and_then(|target| self.0.pointer(target.trim_start_matches('#')));
        target.unwrap_or(schema)
    }

    /// `None`: expressions do not see it.
    fn ty(&self, schema: &Value, name: &str, depth: usize) -> Option<Ty> {
        let schema = self.resolved(schema);
        if schema["x-kubernetes-int-or-string"] == true || schema["format"] == "int-or-string" || depth > DEEPEST {
            return Some(Ty::Dyn);
        }
        Some(match (schema["type"].as_str()?, schema["format"].as_str().unwrap_or_default()) {
            ("array", _) => Ty::list(self.ty(&schema["items"], &format!("{name}.@idx"), depth + 1)?),
            ("object", _) if schema["additionalProperties"].is_object() => {
                Ty::map(self.ty(&schema["additionalProperties"], &format!("{name}.@elem"), depth + 1)?)
            }
            ("object", _) => self.object(schema, name, depth),
            ("string", "byte") => Ty::Bytes,
            ("string", "duration") => Ty::Duration,
            ("string", "date" | "date-time") => Ty::Timestamp,
            ("string", _) => Ty::Text,
            ("boolean", _) => Ty::Bool,
            ("number", _) => Ty::Double,
            ("integer", _) => Ty::Int,
            _ => return None,
        })
    }

    fn object(&self, schema: &Value, name: &str, depth: usize) -> Ty {
        let mut fields = BTreeMap::new();
        for (field, inner) in schema["properties"].as_object().into_iter().flatten() {
            if let Some(ty) = self.ty(inner, &format!("{name}.{field}"), depth + 1) {
                fields.insert(field.clone(), ty);
            }
        }
        let embedded = schema["x-kubernetes-embedded-resource"] == true;
        if depth == 0 || embedded {
            with_metadata(&mut fields);
        }
        Ty::Object(Arc::new(Struct { name: name.to_owned(), fields }))
    }
}

/// What each resource has, whether its schema says so or not (`WithTypeAndObjectMeta`).
fn with_metadata(fields: &mut BTreeMap<String, Ty>) {
    for field in ["kind", "apiVersion"] {
        fields.insert(field.to_owned(), Ty::Text);
    }
    const NAMES: [&str; 2] = ["name", "generateName"];
    let is_said = |ty: &Ty| matches!(ty, Ty::Object(said) if NAMES.iter().all(|name| said.fields.contains_key(*name)));
    if !fields.get("metadata").is_some_and(is_said) {
        fields.insert("metadata".to_owned(), Ty::object("object", &NAMES.map(|name| (name, Ty::Text))));
    }
}
