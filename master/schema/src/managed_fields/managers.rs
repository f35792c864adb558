//! `metadata.managedFields`: who owns which fields.

use serde_json::{Map, Value};

use super::set::Set;
use crate::errors::quote;
use crate::value::{Fields, put};

/// Updaters beyond this many are merged, oldest first (`DefaultMaxUpdateManagers`).
const MOST_UPDATERS: usize = 10;
/// Who owns what merged updaters owned.
const ANCIENT: &str = "ancient-changes";

/// How a manager came to own fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

/// One entry.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub name: String,
    pub operation: Operation,
    pub api_version: String,
    pub subresource: String,
    pub time: Option<String>,
    pub fields: Set,
}

/// All entries of an object, in no order.
#[derive(Debug, Clone, Default)]
pub(super) struct Managers(pub Vec<Entry>);

impl Entry {
    /// Whether both are one manager; appliers are one whatever version they wrote.
    pub fn is(&self, other: &Entry) -> bool {
        (&self.name, self.operation, &self.subresource) == (&other.name, other.operation, &other.subresource)
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// As refusals name it.
    pub fn shown(&self) -> String {
        let mut text = quote(&self.name);
        if !self.subresource.is_empty() {
            text += &format!(" with subresource {}", quote(&self.subresource));
        }
        if self.operation == Operation::Update {
            text += &format!(" using {}", self.api_version);
        }
        text
    }

    fn read(entry: &Value, index: usize) -> Result<Entry, String> {
        let operation = match entry.text("operation") {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return Err("operation must be `Apply` or `Update`".into()),
        };
        if entry.text("apiVersion").is_empty() {
            return Err("apiVersion must not be empty".into());
        }
        match entry.text("fieldsType") {
            "FieldsV1" => {}
            "" => return Err(format!("missing fieldsType in managed fields entry {index}")),
            other => return Err(format!("invalid fieldsType {} in managed fields entry {index}", quote(other))),
        }
        Ok(Entry {
            name: entry.text("manager").to_owned(),
            operation,
            api_version: entry.text("apiVersion").to_owned(),
            subresource: entry.text("subresource").to_owned(),
            time: entry.at("time").as_str().map(str::to_owned),
            fields: Set::from_value(entry.at("fieldsV1"))?,
        })
    }

    fn to_value(&self) -> Value {
        let operation = match self.operation {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        };
        let texts = [
            ("manager", self.name.as_str()),
            ("operation", operation),
            ("apiVersion", &self.api_version),
            ("time", self.time.as_deref().unwrap_or_default()),
            ("fieldsType", "FieldsV1"),
            ("subresource", &self.subresource),
        ];
        let mut out: Map<String, Value> =
            texts.iter().filter(|(_, text)| !text.is_empty()).map(|(k, v)| ((*k).into(), (*v).into())).collect();
        out.insert("fieldsV1".into(), self.fields.to_value());
        Value::Object(out)
    }
}

impl Managers {
    /// Reads `metadata.managedFields`. The error says what is wrong with it.
    pub fn of(object: &Value) -> Result<Managers, String> {
        let list = object.at("metadata").list("managedFields");
        list.iter().enumerate().map(|(index, entry)| Entry::read(entry, index)).collect::<Result<_, _>>().map(Managers)
    }

    pub fn write(mut self, object: &mut Value) {
        self.0.sort_by(|a, b| {
            let key = |e: &Entry| (e.operation, e.time.clone(), e.name.clone(), e.api_version.clone());
            key(a).cmp(&key(b)).then_with(|| a.subresource.cmp(&b.subresource))
        });
        let entries: Vec<Value> = self.0.iter().map(Entry::to_value).collect();
        let list = if entries.is_empty() { Value::Null } else { Value::Array(entries) };
        if let Some(meta) = object.get_mut("metadata") {
            put(meta, "managedFields", list);
        }
    }

    /// The entry of the same manager.
    pub fn find(&self, manager: &Entry) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.is(manager))
    }

    /// Puts an entry in the place of the one that its manager had.
    pub fn replace(&mut self, entry: Entry) {
        self.0.retain(|other| !other.is(&entry));
        if !entry.fields.is_empty() {
            self.0.push(entry);
        }
    }

    /// Takes fields away from everybody but one manager; who has none left is forgotten.
    pub fn take(&mut self, fields: &Set, but: Option<&Entry>) {
        for entry in self.0.iter_mut().filter(|entry| but.is_none_or(|but| !entry.is(but))) {
            entry.fields = entry.fields.difference(fields);
        }
        self.0.retain(|entry| !entry.fields.is_empty());
    }

    /// Everything that somebody owns.
    pub fn all(&self) -> Set {
        self.0.iter().fold(Set::default(), |all, entry| all.union(&entry.fields))
    }

    /// Merges the oldest updaters of a version while there are too many.
    pub fn cap(&mut self) {
        let mut updaters: Vec<Entry> =
            self.0.iter().filter(|entry| entry.operation == Operation::Update).cloned().collect();
        if updaters.len() <= MOST_UPDATERS {
            return;
        }
        updaters.sort_by(|a, b| (&a.time, &a.name).cmp(&(&b.time, &b.name)));
        let mut firsts: Vec<Entry> = Vec::new();
        let mut left = updaters.len();
        for entry in updaters {
            if left <= MOST_UPDATERS {
                break;
            }
            let Some(first) = firsts.iter().find(|first| first.api_version == entry.api_version) else {
                firsts.push(entry);
                continue;
            };
            let bucket = Entry { name: ANCIENT.into(), subresource: String::new(), ..entry.clone() };
            let before = self.find(&bucket).or_else(|| self.find(first)).cloned();
            let first = first.clone();
            self.0.retain(|other| !other.is(&entry) && !other.is(&first));
            let fields = before.map_or_else(Set::default, |before| before.fields).union(&entry.fields);
            self.replace(Entry { fields, ..bucket });
            left -= 1;
        }
    }
}

/// Whether a request asks to forget all owners: an empty list, or one empty entry.
pub(super) fn is_reset(object: &Value) -> bool {
    match object.at("metadata").at("managedFields") {
        Value::Array(list) => match list.as_slice() {
            [] => true,
            [one] => one.as_object().is_some_and(|entry| entry.is_empty()),
            _ => false,
        },
        _ => false,
    }
}
