//! What the store asks of this crate, and what admission asks of the store.

use std::collections::HashMap;
use std::sync::Arc;

use admission::Lookup;
use auth::Observer;
use schema::{Kind, Registry};
use serde_json::Value;
use store::{Facets, Hooks, Key, ListRequest, Store};

use crate::problem::qualified;

/// The resource part of keys: `pods`, `deployments.apps`.
pub(crate) fn stored_resource(kind: &Kind) -> String {
    qualified(kind.storage.group, kind.storage.plural)
}

pub(crate) fn key(kind: &Kind, namespace: &str, name: &str) -> Key {
    Key::new(&stored_resource(kind), if kind.namespaced { namespace } else { "" }, name)
}

/// What selectors look at in an object of the kind that it is stored as.
pub(crate) fn facets(kind: &Kind, object: &Value) -> Facets {
    if kind.custom.is_some() {
        return Facets { labels: labels(object), fields: Box::default() };
    }
    // Name and namespace are in the key.
    let fields = kind
        .selectable_fields(object)
        .into_iter()
        .filter(|(field, _)| !field.starts_with("metadata."))
        .map(|(field, value)| (field, value.into_boxed_str()))
        .collect();
    Facets { labels: labels(object), fields }
}

/// Sorted by name.
fn labels(object: &Value) -> Box<[(Box<str>, Box<str>)]> {
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
    let mut labels: Vec<(Box<str>, Box<str>)> = labels
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.as_str().into(), value.as_str()?.into())))
        .collect();
    labels.sort();
    labels.into()
}

/// Hands commits to the observers.
pub(crate) struct Followers {
    kinds: HashMap<String, &'static Kind>,
    observers: HashMap<String, Vec<Arc<dyn Observer>>>,
}

impl Followers {
    pub(crate) fn new(all: Vec<Arc<dyn Observer>>) -> Self {
        let mut observers: HashMap<String, Vec<Arc<dyn Observer>>> = HashMap::new();
        for observer in all {
            for (group, resource) in observer.interests() {
                observers.entry(qualified(group, resource)).or_default().push(Arc::clone(&observer));
            }
        }
        let own = |k: &&Kind| (k.storage.group, k.storage.plural) == (k.group, k.plural) && !k.plural.is_empty();
        let kinds = Registry::builtin().kinds().filter(own).map(|k| (stored_resource(k), k)).collect();
        Followers { kinds, observers }
    }
}

impl Hooks for Followers {
    fn facets(&self, key: &Key, json: &[u8]) -> Facets {
        match (self.kinds.get(key.resource()), serde_json::from_slice(json)) {
            (Some(kind), Ok(object)) => facets(kind, &object),
            // Of a custom kind fields are read when they are asked for.
            (None, Ok(object)) => Facets { labels: labels(&object), fields: Box::default() },
            (_, Err(_)) => Facets::default(),
        }
    }

    fn committed(&self, key: &Key, json: Option<&[u8]>) {
        let Some(observers) = self.observers.get(key.resource()) else { return };
        let object: Option<Value> = json.and_then(|json| serde_json::from_slice(json).ok());
        let (resource, group) = key.resource().split_once('.').unwrap_or((key.resource(), ""));
        for observer in observers {
            observer.observe(group, resource, key.namespace(), key.name(), object.as_ref());
        }
    }
}

/// Admission's view of what is committed.
pub(crate) struct CacheLookup(pub Arc<Store>);

impl Lookup for CacheLookup {
    fn get(&self, group: &str, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let entry = self.0.get(&Key::new(&qualified(group, resource), namespace, name))?;
        serde_json::from_slice(entry.json()).ok()
    }

    fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<Value> {
        let resource = qualified(group, resource);
        let request = ListRequest { resource: &resource, namespace, after: None, limit: 0, at: None, filter: None };
        // Of the present there is nothing that could be too old.
        let page = self.0.list(&request).map(|page| page.entries).unwrap_or_default();
        page.iter().filter_map(|entry| serde_json::from_slice(entry.json()).ok()).collect()
    }
}

/// What selectors look at in an object of `kind` that was made ready for storage.
pub(crate) fn stored_facets(kind: &Kind, object: &Value) -> Facets {
    let storage = &kind.storage;
    let own = Registry::builtin().kind(storage.group, storage.version, storage.plural).unwrap_or(kind);
    facets(own, object)
}
