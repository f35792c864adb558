//! Custom kinds: what a CustomResourceDefinition describes becomes a [`Kind`] as the built-in ones are, and its objects go
//! down the same road.
//!
//! A kind is made once for each definition as it stands, and lives as long as the process: everything that handles objects
//! holds `&'static Kind`. [`Catalog`] keeps them, so that a definition that comes again gives the same kinds.

mod check;
pub(crate) mod definition;
mod embedded;
pub(crate) mod expressions;
mod formats;
mod json_path;
mod lists;
mod openapi;
mod prune;
mod rule_problems;
mod rules;
mod schema;
pub(crate) mod structural;
mod types;
pub(crate) mod warnings;

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::errors::{DecodeError, Errors, Path};
use crate::kind::{
    Column, Decoded, FieldLabel, FieldValidation, Hooks, Kind, Names, Part, Priority, Storage, Subresource,
};
use crate::table;
use crate::types::{Definition, Type};
use crate::value::{Fields, Object, put};

use check::Place;
use json_path::JsonPath;
pub(crate) use openapi::add as add_openapi;
pub(crate) use rule_problems::problems as rule_problems;
use schema::Schema;
use types::intern;

/// What a custom kind is, beyond what all kinds are.
pub struct Custom {
    schema: Schema,
    /// The schema as it was written.
    raw: Value,
    rules: Option<rules::Rules>,
    root: &'static Definition,
    cells: Vec<(JsonPath, &'static str)>,
    scale: Option<ScalePaths>,
    /// `spec.conversion.webhook`, where a webhook converts between versions.
    pub conversion: Option<Value>,
    /// What clients of this version are told.
    pub deprecation: Option<String>,
    /// Whether the definition is being deleted: no new objects then.
    pub is_terminating: bool,
}

/// Where the numbers of the scale subresource are.
#[derive(Debug, Clone)]
pub(crate) struct ScalePaths {
    pub spec_replicas: Vec<String>,
    pub status_replicas: Vec<String>,
    pub selector: Option<Vec<String>>,
}

/// The custom kinds that were made so far, by their definition.
#[derive(Default)]
pub struct Catalog(HashMap<String, Vec<&'static Kind>>);

impl Catalog {
    /// The kinds that a CustomResourceDefinition serves, one a version; none before it is established.
    pub fn kinds(&mut self, definition: &Value) -> Vec<&'static Kind> {
        if !is_true(definition, "Established") {
            return Vec::new();
        }
        let (spec, names) = (definition.at("spec"), definition.at("status").at("acceptedNames"));
        let terminating = is_true(definition, "Terminating");
        let key = json!([spec, names, terminating]).to_string();
        let make = || {
            let served = spec.list("versions").iter().filter(|version| version.flag("served"));
            served.map(|version| kind(spec, names, version, terminating)).collect()
        };
        self.0.entry(key).or_insert_with(make).clone()
    }
}

/// Whether a condition of a CustomResourceDefinition is true.
pub(crate) fn is_true(definition: &Value, condition: &str) -> bool {
    let conditions = definition.at("status").list("conditions");
    conditions.iter().any(|c| c.text("type") == condition && c.text("status") == "True")
}

const VERBS: &[&str] = &["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
const LAST_VERBS: &[&str] = &["delete", "deletecollection", "get", "list", "watch"];

fn kind(spec: &Value, names: &Value, version: &Value, is_terminating: bool) -> &'static Kind {
    let text = |field: &str| intern(names.text(field));
    let list = |field: &str| -> &'static [&'static str] {
        Vec::leak(names.list(field).iter().filter_map(Value::as_str).map(intern).collect())
    };
    let (group, own) = (intern(spec.text("group")), intern(version.text("name")));
    let stored = spec.list("versions").iter().find(|v| v.flag("storage")).map_or(own, |v| intern(v.text("name")));
    let spelled =
        Names { kind: text("kind"), list: text("listKind"), plural: text("plural"), singular: text("singular") };
    let definition = intern(&definition_name(group, own, spelled.kind));
    let columns = columns(version);
    let custom = Custom::new(spec, version, (definition, spelled.kind), is_terminating);
    let base = match spec.text("scope") {
        "Namespaced" => Kind::namespaced(group, own, spelled),
        _ => Kind::cluster(group, own, spelled),
    };
    Box::leak(Box::new(Kind {
        short_names: list("shortNames"),
        categories: list("categories"),
        verbs: if is_terminating { LAST_VERBS } else { VERBS },
        subresources: subresources(version, (group, own, spelled.kind)),
        storage: Storage { group, version: stored, plural: spelled.plural },
        definition,
        generation: true,
        unconditional_update: false,
        fields: labels(version),
        columns,
        custom: Some(Box::leak(Box::new(custom))),
        hooks: Hooks { warnings: warnings::finalizers, ..Hooks::PLAIN },
        ..base
    }))
}

/// `com.example.v1.Foo`
fn definition_name(group: &str, version: &str, kind: &str) -> String {
    let reversed: Vec<&str> = group.split('.').rev().collect();
    format!("{}.{version}.{kind}", reversed.join("."))
}

fn subresources(
    version: &Value,
    (group, own, kind): (&'static str, &'static str, &'static str),
) -> &'static [Subresource] {
    let asked = version.at("subresources");
    let status = asked.has("status").then(|| Subresource::status(group, own, kind));
    let scale = asked.has("scale").then_some(Subresource::SCALE);
    Vec::leak(status.into_iter().chain(scale).collect())
}

fn labels(version: &Value) -> &'static [FieldLabel] {
    let label = |field: &Value| {
        let path = steps(field.text("jsonPath"));
        FieldLabel::text(intern(&path.join(".")), intern(&format!("/{}", path.join("/"))))
    };
    Vec::leak(version.list("selectableFields").iter().map(label).collect())
}

/// The names of a path that is nothing but names.
fn steps(path: &str) -> Vec<String> {
    path.split('.').filter(|step| !step.is_empty()).map(str::to_owned).collect()
}

/// What is shown where nothing was asked for.
fn asked_columns(version: &Value) -> Vec<Value> {
    match version.list("additionalPrinterColumns") {
        [] => vec![json!({ "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp",
            "description": "CreationTimestamp is a timestamp representing the server time when this object was created." })],
        some => some.to_vec(),
    }
}

fn columns(version: &Value) -> &'static [Column] {
    let column = |column: &Value| {
        let description = match column.text("description") {
            "" => format!("Custom resource definition column (in JSONPath format): {}", column.text("jsonPath")),
            text => text.to_owned(),
        };
        Column {
            name: intern(column.text("name")),
            kind: intern(column.text("type")),
            format: intern(column.text("format")),
            description: intern(&description),
            priority: if column.int("priority").unwrap_or(0) > 0 { Priority::Wide } else { Priority::Normal },
        }
    };
    let asked = asked_columns(version);
    Vec::leak(std::iter::once(Column::NAME).chain(asked.iter().map(column)).collect())
}

impl Custom {
    fn new(spec: &Value, version: &Value, (definition, kind): (&'static str, &str), is_terminating: bool) -> Custom {
        let raw = version.at("schema").at("openAPIV3Schema").clone();
        let mut schema = Schema::parse(&raw);
        schema.preserve |= spec.flag("preserveUnknownFields");
        let scale = version.at("subresources").at("scale");
        let place = |field: &str| Some(steps(scale.text(field))).filter(|steps| !steps.is_empty());
        let scale = scale.is_object().then(|| ScalePaths {
            spec_replicas: place("specReplicasPath").unwrap_or_default(),
            status_replicas: place("statusReplicasPath").unwrap_or_default(),
            selector: place("labelSelectorPath"),
        });
        let cell = |column: &Value| {
            let path = JsonPath::parse(column.text("jsonPath")).unwrap_or_else(|error| {
                tracing::debug!(%error, "a printer column stays empty");
                JsonPath::nowhere()
            });
            (path, intern(column.text("type")))
        };
        let deprecation = version.flag("deprecated").then(|| match version.text("deprecationWarning") {
            "" => format!("{}/{} {kind} is deprecated", spec.text("group"), version.text("name")),
            text => text.to_owned(),
        });
        let conversion = spec.at("conversion");
        let conversion = (conversion.text("strategy") == "Webhook").then(|| conversion.at("webhook").clone());
        Custom {
            root: types::root(&schema, definition),
            rules: rules::compile(&raw),
            cells: asked_columns(version).iter().map(cell).collect(),
            schema,
            raw,
            scale,
            conversion,
            deprecation,
            is_terminating,
        }
    }

    /// The type of objects, for those who take them apart.
    pub(crate) fn root(&self) -> Type {
        Type::Custom(self.root)
    }

    /// The schema as it was written.
    pub(crate) fn shown(&self) -> &Value {
        &self.raw
    }

    pub(crate) fn scale(&self) -> Option<&ScalePaths> {
        self.scale.as_ref()
    }

    /// Reads a body: undeclared fields dropped and reported.
    pub(crate) fn decode(
        &self,
        mut value: Value,
        mut warnings: Vec<String>,
        validation: FieldValidation,
    ) -> Result<Decoded, DecodeError> {
        let Value::Object(object) = &value else {
            let why = "json: cannot unmarshal into Go value of type map[string]interface {}";
            return Err(DecodeError::Type(why.into()));
        };
        for (field, shown) in [("kind", "Kind"), ("apiVersion", "apiVersion")] {
            if object.text(field).is_empty() {
                return Err(DecodeError::Type(format!("Object '{shown}' is missing in '{value}'")));
            }
        }
        prune::prune(&self.schema, &mut value, &mut warnings)?;
        match validation {
            FieldValidation::Strict if !warnings.is_empty() => Err(DecodeError::Strict(warnings)),
            FieldValidation::Ignore => Ok(Decoded { value, warnings: Vec::new() }),
            _ => Ok(Decoded { value, warnings }),
        }
    }

    pub(crate) fn default(&self, object: &mut Value) {
        prune::drop_nulls(&self.schema, object);
        prune::default(&self.schema, object);
    }

    /// A stored object as this version shows it; it may have been stored under an older schema.
    pub(crate) fn stored(&self, kind: &Kind, mut object: Value) -> Value {
        put(&mut object, "apiVersion", kind.api_version().into());
        // What its metadata is was checked when it came.
        let _ = prune::prune(&self.schema, &mut object, &mut Vec::new());
        self.default(&mut object);
        object
    }

    /// Everything wrong with an object or a part of it, metadata apart.
    pub(crate) fn validate(&self, part: Part, object: &Value, old: Option<&Value>, errors: &mut Errors) {
        let before = errors.len();
        if part == Part::Status {
            let status = Path::root("status");
            if let (Some(schema), Some(value)) = (self.schema.field("status"), object.get("status")) {
                let old = old.and_then(|old| old.get("status"));
                check::check(schema, Place { value, old, path: Some(&status) }, errors);
            }
        } else {
            check::check(&self.schema, Place { value: object, old, path: None }, errors);
        }
        self.check_scale(part, object, errors);
        embedded::check(&self.schema, object, None, errors);
        let mut earlier = Errors::default();
        if let Some(old) = old {
            lists::check(&self.schema, old, None, &mut earlier);
        }
        if earlier.is_empty() {
            lists::check(&self.schema, object, None, errors);
        }
        if errors.len() > before {
            return;
        }
        if let Some(rules) = &self.rules {
            rules::check(rules, object, old, errors);
        }
    }

    fn check_scale(&self, part: Part, object: &Value, errors: &mut Errors) {
        let Some(scale) = &self.scale else { return };
        let mut paths = vec![&scale.status_replicas];
        if part != Part::Status {
            paths.insert(0, &scale.spec_replicas);
        }
        for path in paths {
            let shown = format!(".{}", path.join("."));
            let place = Path::root(&shown);
            match at(object, path) {
                None => {}
                Some(value) => match value.as_i64() {
                    Some(..0) => errors.invalid(&place, value.clone(), "should be a non-negative integer"),
                    Some(number) if number > i64::from(i32::MAX) => {
                        errors.invalid(&place, number, "should be less than or equal to 2147483647");
                    }
                    Some(_) => {}
                    None => {
                        let why = format!("{shown} accessor error: {value} is of the wrong type, expected int64");
                        errors.invalid(&place, 0, &why);
                    }
                },
            }
        }
    }

    /// The cells of a Table's row.
    pub(crate) fn row(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let cell = |(path, kind): &(JsonPath, &'static str)| {
            path.find(object).first().map_or(Value::Null, |value| cell(kind, value, now))
        };
        std::iter::once(table::name(object)).chain(self.cells.iter().map(cell)).collect()
    }
}

/// What stands at the end of a path of names.
pub(crate) fn at<'a>(object: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(object, |at, name| at.get(name))
}

/// Sets what stands at the end of a path of names; what is missing on the way is made.
pub(crate) fn set_at(object: &mut Object, path: &[String], value: Value) {
    match path {
        [] => {}
        [last] => {
            object.insert(last.clone(), value);
        }
        [first, rest @ ..] => set_at(crate::value::object_in(object, first), rest, value),
    }
}

fn cell(kind: &str, value: &Value, now: Timestamp) -> Value {
    match (kind, value) {
        ("string", Value::String(_)) => value.clone(),
        ("string", other) => other.to_string().into(),
        ("integer", Value::Number(number)) => match number.as_i64() {
            Some(_) => value.clone(),
            None => number.as_f64().map_or(Value::Null, |number| (number as i64).into()),
        },
        ("number", Value::Number(_)) | ("boolean", Value::Bool(_)) => value.clone(),
        ("date", Value::String(text)) => match text.parse::<Timestamp>() {
            Ok(_) => table::since(Some(value), now).into(),
            Err(_) => "<invalid>".into(),
        },
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests;
