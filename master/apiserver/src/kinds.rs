//! The kinds that the server has now: the built-in ones, and those of CustomResourceDefinitions.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use auth::Observer;
use schema::{Catalog, Kind, Registry};
use serde_json::Value;
use tokio::sync::watch;

const GROUP: &str = "apiextensions.k8s.io";
const RESOURCE: &str = "customresourcedefinitions";

/// Follows the definitions in the order of their commits, so that a kind is there once its definition says so.
pub(crate) struct Kinds {
    current: watch::Sender<Arc<Registry>>,
    custom: Mutex<CustomKinds>,
}

#[derive(Default)]
struct CustomKinds {
    catalog: Catalog,
    by_definition: BTreeMap<String, Vec<&'static Kind>>,
}

impl Kinds {
    pub(crate) fn new() -> Self {
        Kinds { current: watch::Sender::new(Arc::new(Registry::builtin().with([]))), custom: Mutex::default() }
    }

    pub(crate) fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.current.borrow())
    }

    /// Tells of the kinds whenever there are others.
    pub(crate) fn follow(&self) -> watch::Receiver<Arc<Registry>> {
        self.current.subscribe()
    }
}

impl Observer for Kinds {
    fn interests(&self) -> &'static [(&'static str, &'static str)] {
        &[(GROUP, RESOURCE)]
    }

    fn observe(&self, _: &str, _: &str, _: &str, name: &str, object: Option<&Value>) {
        let mut custom = self.custom.lock().unwrap_or_else(PoisonError::into_inner);
        let CustomKinds { catalog, by_definition } = &mut *custom;
        let kinds = object.map(|definition| catalog.kinds(definition)).unwrap_or_default();
        let old = if kinds.is_empty() {
            by_definition.remove(name)
        } else {
            by_definition.insert(name.to_owned(), kinds.clone())
        };
        // The same kinds are the same places in memory.
        if old
            .unwrap_or_default()
            .iter()
            .map(|kind| std::ptr::from_ref(*kind))
            .eq(kinds.iter().map(|kind| std::ptr::from_ref(*kind)))
        {
            return;
        }
        let registry = Registry::builtin().with(by_definition.values().flatten().copied());
        self.current.send_replace(Arc::new(registry));
    }
}
