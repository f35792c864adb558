//! Server-side apply and the owners of fields: `metadata.managedFields` (KEP-555).
//!
//! [`update`] notes who changed what in a create, update or patch; [`apply`] merges a configuration into an object, refuses
//! what others own, and takes away what the applier no longer mentions and nobody else owns. The rules are those of
//! `sigs.k8s.io/structured-merge-diff` as `k8s.io/apimachinery/pkg/util/managedfields` uses it. Everything is pure; the time
//! is an argument.

mod check;
mod compare;
mod last_applied;
mod managers;
mod merge;
mod overlay;
mod set;
mod shape;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::kind::Kind;
use crate::value::{Fields, put};

use compare::{compare, fields, remove, with_declared};
use managers::{Entry, Managers, Operation, is_reset};
pub(crate) use overlay::overlay;
use set::Set;
use shape::Shape;

/// Who owned what was there before the first apply.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Who writes an object.
#[derive(Debug, Clone)]
pub struct Manager {
    /// `fieldManager` of the request, or what its User-Agent begins with.
    pub name: String,
    /// Empty for the object itself.
    pub subresource: String,
    pub now: Timestamp,
}

/// A field that somebody else owns with another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The owner, as refusals name him.
    pub manager: String,
    /// `.spec.replicas`
    pub field: String,
}

/// Why a configuration was not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// 400
    #[error("{0}")]
    BadRequest(String),
    /// The configuration does not fit the schema; upstream answers 500.
    #[error("{0}")]
    Typed(String),
    /// 409
    #[error("{}", conflicts(.0))]
    Conflicts(Vec<Conflict>),
}

fn conflicts(list: &[Conflict]) -> String {
    if let [one] = list {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", one.manager, one.field);
    }
    let mut managers: Vec<&str> = list.iter().map(|conflict| conflict.manager.as_str()).collect();
    managers.sort_unstable();
    managers.dedup();
    let mut lines = Vec::new();
    for manager in managers {
        lines.push(format!("conflicts with {manager}:"));
        lines.extend(list.iter().filter(|c| c.manager == manager).map(|c| format!("- {}", c.field)));
    }
    format!("Apply failed with {} conflicts: {}", list.len(), lines.join("\n"))
}

impl Manager {
    fn entry(&self, kind: &Kind, operation: Operation, fields: Set) -> Entry {
        Entry {
            name: if self.name.is_empty() { "unknown".into() } else { self.name.clone() },
            operation,
            api_version: kind.api_version(),
            subresource: self.subresource.clone(),
            time: Some(format!("{:.0}", self.now)),
            fields,
        }
    }
}

/// Notes in `new` who owns what it changes of `old`; of a new object `old` is `None`.
pub(crate) fn update(kind: &Kind, old: Option<&Value>, new: &mut Value, by: &Manager) {
    let stored = || old.and_then(|old| Managers::of(old).ok()).unwrap_or_default();
    let managers = if !by.subresource.is_empty() {
        stored()
    } else if is_reset(new) {
        Managers::default()
    } else {
        // Clients that do not know the field must not take it away.
        Managers::of(new).ok().filter(|given| !given.0.is_empty()).unwrap_or_else(stored)
    };
    if let Some(meta) = new.get_mut("metadata") {
        put(meta, "managedFields", Value::Null);
    }
    // An object whose owners were forgotten is followed again from its next apply.
    if old.is_some() && managers.0.is_empty() {
        return;
    }
    let empty = json!({});
    updated(kind, (old.unwrap_or(&empty), new), managers, by).write(new);
}

fn updated(kind: &Kind, (old, new): (&Value, &Value), mut managers: Managers, by: &Manager) -> Managers {
    let mut difference = compare(Shape::root(kind), old, new);
    for fields in [&mut difference.changed, &mut difference.removed] {
        reset(kind, &by.subresource, fields);
    }
    managers.take(&difference.removed, None);
    managers.take(&difference.changed, None);
    if !difference.changed.is_empty() {
        let mut entry = by.entry(kind, Operation::Update, difference.changed);
        if let Some(before) = managers.find(&entry) {
            entry.fields = entry.fields.union(&before.fields);
        }
        strip(&mut entry.fields);
        managers.replace(entry);
    }
    managers.cap();
    managers
}

/// Leaves out what a write of this part of the object cannot change (`GetResetFields`).
fn reset(kind: &Kind, subresource: &str, fields: &mut Set) {
    match subresource {
        "" if kind.has_status() => fields.cut("f:status"),
        "status" => {
            let others: Vec<String> = fields
                .nodes()
                .map(|(e, _)| e.to_owned())
                .filter(|e| !matches!(e.as_str(), "f:metadata" | "f:status"))
                .collect();
            others.iter().for_each(|element| fields.cut(element));
        }
        _ => {}
    }
}

/// Leaves out what nobody owns: the type, the name, and what the server keeps (`stripMetaManager`).
fn strip(fields: &mut Set) {
    const SERVERS: [&str; 9] = [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    ];
    fields.cut("f:apiVersion");
    fields.cut("f:kind");
    if let Some(node) = fields.get("f:metadata").cloned() {
        let mut node = set::Node { member: false, ..node };
        SERVERS.iter().for_each(|name| node.children.cut(&set::field(name)));
        fields.cut("f:metadata");
        fields.put("f:metadata".into(), node);
    }
}

/// An apply on its way.
struct Apply<'a> {
    kind: &'a Kind,
    shape: Shape,
    live: &'a Value,
    config: &'a Value,
    by: &'a Manager,
}

/// The object that an apply of `config` makes of `old`, its owners noted in it. It is neither decoded nor defaulted yet.
pub(crate) fn apply(
    kind: &Kind,
    old: Option<&Value>,
    config: &Value,
    by: &Manager,
    force: bool,
) -> Result<Value, ApplyError> {
    check_type(kind, config)?;
    if config.at("metadata").has("managedFields") {
        return Err(ApplyError::BadRequest("metadata.managedFields must be nil".into()));
    }
    check::check(kind, config).map_err(|why| {
        let meta = config.at("metadata");
        let namespace = meta.text("namespace");
        let object = format!("{namespace}/{}; {}", meta.text("name"), go_kind(config));
        ApplyError::Typed(format!("failed to create typed patch object ({object}): {why}"))
    })?;
    let empty = json!({ "apiVersion": kind.api_version(), "kind": kind.kind });
    let live = old.unwrap_or(&empty);
    let mut managers =
        Managers::of(live).map_err(|why| ApplyError::Typed(format!("failed to decode managed fields: {why}")))?;
    if managers.0.is_empty() && old.is_some() {
        managers =
            updated(kind, (&json!({}), live), managers, &Manager { name: BEFORE_FIRST_APPLY.into(), ..by.clone() });
    }
    let apply = Apply { kind, shape: Shape::root(kind), live, config, by };
    match apply.run(managers.clone(), force) {
        Err(ApplyError::Conflicts(found)) if by.name == last_applied::MANAGER => {
            match last_applied::foreign(&apply, found) {
                Some(conflicts) => Err(ApplyError::Conflicts(conflicts)),
                None => apply.run(managers, true),
            }
        }
        other => other,
    }
    .map(|mut object| {
        last_applied::keep(config, by, &mut object);
        object
    })
}

fn check_type(kind: &Kind, config: &Value) -> Result<(), ApplyError> {
    if config.text("kind") == kind.kind && config.text("apiVersion") == kind.api_version() {
        return Ok(());
    }
    Err(ApplyError::BadRequest(format!("invalid object type: {}", go_kind(config))))
}

/// As Go prints a GroupVersionKind.
fn go_kind(object: &Value) -> String {
    let version = object.text("apiVersion");
    let slash = if version.contains('/') { "" } else { "/" };
    format!("{slash}{version}, Kind={}", object.text("kind"))
}

impl Apply<'_> {
    fn run(&self, mut managers: Managers, force: bool) -> Result<Value, ApplyError> {
        let merged = merge::merge(self.shape, Some(self.live), Some(self.config)).unwrap_or_default();
        let mut owned = fields(self.shape, self.config);
        reset(self.kind, &self.by.subresource, &mut owned);
        let mut entry = self.by.entry(self.kind, Operation::Apply, owned);
        let before = managers.find(&entry).cloned();
        managers.replace(entry.clone());
        let mut new = self.pruned(merged, &managers, before.as_ref());
        let mut difference = compare(self.shape, self.live, &new);
        for fields in [&mut difference.changed, &mut difference.removed] {
            reset(self.kind, &self.by.subresource, fields);
        }
        let conflicts = found_conflicts(&managers, &entry, &difference.changed);
        if !force && !conflicts.is_empty() {
            return Err(ApplyError::Conflicts(conflicts));
        }
        managers.take(&difference.changed, Some(&entry));
        managers.take(&difference.removed, Some(&entry));
        if new == *self.live {
            entry.time = before.and_then(|before| before.time);
        }
        strip(&mut entry.fields);
        managers.replace(entry);
        managers.write(&mut new);
        Ok(new)
    }

    /// Without what this manager applied the last time and nobody owns now.
    fn pruned(&self, merged: Value, managers: &Managers, before: Option<&Entry>) -> Value {
        let all = managers.all();
        let Some(last) = before.map(|entry| &entry.fields).filter(|last| !last.difference(&all).is_empty()) else {
            return merged;
        };
        let shape = self.shape;
        let last = with_declared(shape, last);
        let have = with_declared(shape, &fields(shape, &merged));
        let rest = |value: &Value| with_declared(shape, &fields(shape, value));
        // Without all of it; what somebody owns comes back; then what was not applied the last time does.
        let bare = remove(shape, &merged, &last);
        let kept = rest(&bare).union(&with_declared(shape, &all));
        let owned = remove(shape, &merged, &have.difference(&kept));
        remove(shape, &merged, &have.difference(&rest(&owned)).intersection(&last))
    }
}

fn found_conflicts(managers: &Managers, own: &Entry, changed: &Set) -> Vec<Conflict> {
    let others = managers.0.iter().filter(|entry| !entry.is(own));
    others
        .flat_map(|entry| {
            let manager = entry.shown();
            let fields = entry.fields.intersection(changed).paths();
            fields.into_iter().map(move |field| Conflict { manager: manager.clone(), field })
        })
        .collect()
}

/// Keeps the times of the old owners where nothing else differs, so that a write that changes nothing is none.
pub(crate) fn settle(new: &mut Value, old: &Value) {
    let owners = |object| -> &[Value] { Fields::at(object, "metadata").list("managedFields") };
    let same_owners = owners(new).len() == owners(old).len()
        && owners(new).iter().zip(owners(old)).all(|(a, b)| same_but(a, b, "time"));
    let meta = (new.at("metadata"), old.at("metadata"));
    if same_owners && same_but(meta.0, meta.1, "managedFields") && same_but(new, old, "metadata") {
        *new = old.clone();
    }
}

/// Whether two objects are the same but for one field.
fn same_but(a: &Value, b: &Value, field: &str) -> bool {
    let others = |object| shape::object(object).iter().filter(|(name, _)| *name != field);
    others(a).eq(others(b))
}

#[cfg(test)]
mod tests;
