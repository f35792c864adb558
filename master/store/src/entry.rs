//! One version of one object, as it is served.

use std::fmt;

use bytes::Bytes;

use crate::{Encoded, Key, Record};

/// What selectors look at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facets {
    /// Sorted by name.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    pub fields: Box<[(&'static str, Box<str>)]>,
}

impl Facets {
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(n, _)| n.as_ref() == name).map(|(_, value)| value.as_ref())
    }

    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_ref())
    }
}

/// One version of one object: its JSON with `metadata.resourceVersion` filled in, and what selectors look at.
pub struct Entry {
    pub key: Key,
    pub revision: u64,
    pub facets: Facets,
    json: Bytes,
    splice: u32,
}

impl Encoded {
    /// The object at a revision.
    pub fn json_at(&self, revision: u64) -> Bytes {
        let (head, tail) = self.json.split_at((self.splice as usize).min(self.json.len()));
        spliced(head, revision, tail)
    }
}

impl Entry {
    pub(crate) fn new(key: Key, revision: u64, value: &Encoded, facets: Facets) -> Self {
        Entry { key, revision, facets, json: value.json_at(revision), splice: value.splice }
    }

    /// The object as clients see it.
    pub fn json(&self) -> &Bytes {
        &self.json
    }

    /// The object with another resourceVersion: a deletion shows the last state at the revision of the deletion.
    pub fn json_at(&self, revision: u64) -> Bytes {
        let (head, rest) = self.json.split_at((self.splice as usize).min(self.json.len()));
        let own = field(self.revision).len();
        spliced(head, revision, rest.get(own..).unwrap_or_default())
    }

    /// The version as the backend keeps it.
    pub(crate) fn record(&self) -> Record {
        let (head, rest) = self.json.split_at((self.splice as usize).min(self.json.len()));
        let tail = rest.get(field(self.revision).len()..).unwrap_or_default();
        let value = Encoded { json: [head, tail].concat().into(), splice: self.splice };
        Record { revision: self.revision, key: self.key.clone(), value: Some(value) }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the JSON: it may be a Secret's.
        f.debug_struct("Entry").field("key", &self.key).field("revision", &self.revision).finish_non_exhaustive()
    }
}

fn field(revision: u64) -> String {
    format!("\"resourceVersion\":\"{revision}\",")
}

fn spliced(head: &[u8], revision: u64, tail: &[u8]) -> Bytes {
    let field = field(revision);
    let mut out = Vec::with_capacity(head.len() + field.len() + tail.len());
    out.extend_from_slice(head);
    out.extend_from_slice(field.as_bytes());
    out.extend_from_slice(tail);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::{Entry, Facets};
    use crate::{Encoded, Key};

    #[test]
    fn the_revision_is_spliced_and_replaced() {
        let value = Encoded { json: r#"{"metadata":{"name":"x"}}"#.into(), splice: 13 };
        let entry = Entry::new(Key::new("pods", "a", "x"), 99, &value, Facets::default());
        assert_eq!(entry.json().as_ref(), br#"{"metadata":{"resourceVersion":"99","name":"x"}}"#);
        assert_eq!(entry.json_at(100).as_ref(), br#"{"metadata":{"resourceVersion":"100","name":"x"}}"#);
        assert_eq!(entry.record().value, Some(value));
    }
}
