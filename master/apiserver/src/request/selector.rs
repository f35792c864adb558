//! Label and field selectors of a request as a filter over the store; how they are read and what they mean is `api`'s.

use std::sync::Arc;

use api::selector::{FieldSelector, Selector as LabelSelector};
use schema::Kind;
use serde_json::Value;
use store::{Entry, Filter};

use crate::problem::{Problem, Result};

/// What `labelSelector` and `fieldSelector` ask for; every requirement must hold.
#[derive(Debug, Default, Clone)]
pub(crate) struct Selector {
    labels: LabelSelector,
    fields: FieldSelector,
}

pub(crate) type FieldsOf = Arc<dyn Fn(&Entry) -> Vec<(&'static str, String)> + Send + Sync>;

impl Selector {
    /// 400 for a selector that cannot be read, or a field that the kind does not select by.
    pub(crate) fn parse(kind: &Kind, labels: &str, fields: &str) -> Result<Self> {
        let labels = LabelSelector::parse(labels).map_err(|error| Problem::bad_request(error.to_string()))?;
        let fields = FieldSelector::parse(fields).map_err(|error| Problem::bad_request(error.to_string()))?;
        for requirement in &fields.requirements {
            kind.check_field_label(&requirement.field).map_err(|error| Problem::bad_request(error.to_string()))?;
        }
        Ok(Selector { labels, fields })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.requirements.is_empty()
    }

    /// What the store can judge, and beside it the fields that are seen only after a webhook has converted the object.
    pub(crate) fn split(self, kind: &Kind) -> (Self, Option<Self>) {
        let is_converted = kind.custom.is_some_and(|custom| custom.conversion.is_some());
        let is_late = |field: &str| is_converted && !field.starts_with("metadata.");
        if !self.fields.requirements.iter().any(|requirement| is_late(&requirement.field)) {
            return (self, None);
        }
        let (late, early) = self.fields.requirements.into_iter().partition(|one| is_late(&one.field));
        let fields = FieldSelector { requirements: early };
        let late = Selector { fields: FieldSelector { requirements: late }, ..Self::default() };
        (Selector { labels: self.labels, fields }, Some(late))
    }

    /// Whether an object has the fields, as its kind shows it.
    pub(crate) fn selects(&self, kind: &Kind, object: &Value) -> bool {
        let own = kind.selectable_fields(object);
        self.fields.matches(|field| own.iter().find(|(known, _)| *known == field).map(|(_, value)| value.as_str()))
    }

    /// As the store's filter; `None` lets everything pass. `fields_of` reads the fields of kinds that are stored as
    /// another kind, whose entries carry that one's.
    pub(crate) fn filter(self, fields_of: Option<FieldsOf>) -> Option<Filter> {
        if self.is_empty() {
            return None;
        }
        Some(Arc::new(move |entry: &Entry| self.matches(entry, fields_of.as_ref())))
    }

    fn matches(&self, entry: &Entry, fields_of: Option<&FieldsOf>) -> bool {
        if !self.labels.requirements.iter().all(|r| r.matches_value(entry.facets.label(&r.key))) {
            return false;
        }
        if self.fields.requirements.is_empty() {
            return true;
        }
        let own = fields_of.map(|fields_of| fields_of(entry));
        self.fields.matches(|field| match (field, &own) {
            ("metadata.name", _) => Some(entry.key.name()),
            ("metadata.namespace", _) => Some(entry.key.namespace()),
            (field, Some(own)) => own.iter().find(|(f, _)| *f == field).map(|(_, v)| v.as_str()),
            (field, None) => entry.facets.field(field),
        })
    }
}
