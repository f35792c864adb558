//! All kinds by path and by name.

use std::sync::OnceLock;

use crate::kind::Kind;
use crate::kinds;

/// An API group and its versions, preferred first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub name: &'static str,
    pub versions: Vec<&'static str>,
}

/// The kinds that a server knows.
pub struct Registry {
    kinds: Vec<&'static Kind>,
}

impl Registry {
    /// The kinds of this crate.
    pub fn builtin() -> &'static Registry {
        static BUILTIN: OnceLock<Registry> = OnceLock::new();
        BUILTIN.get_or_init(|| Registry { kinds: kinds::ALL.to_vec() })
    }

    /// Every kind, those that are only bodies too.
    pub fn kinds(&self) -> impl Iterator<Item = &'static Kind> + '_ {
        self.kinds.iter().copied()
    }

    /// Every kind that has a path, as discovery lists it.
    pub fn resources<'a>(&'a self, group: &'a str, version: &'a str) -> impl Iterator<Item = &'static Kind> + 'a {
        self.kinds().filter(move |k| !k.plural.is_empty() && k.group == group && k.version == version)
    }

    /// The groups that have resources, core (`""`) first, in the order of the descriptions.
    pub fn groups(&self) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for kind in self.kinds().filter(|k| !k.plural.is_empty()) {
            match groups.iter_mut().find(|g| g.name == kind.group) {
                Some(group) if group.versions.contains(&kind.version) => {}
                Some(group) => group.versions.push(kind.version),
                None => groups.push(Group { name: kind.group, versions: vec![kind.version] }),
            }
        }
        groups
    }

    /// (group, version) of everything that has resources.
    pub fn group_versions(&self) -> Vec<(&'static str, &'static str)> {
        self.groups().iter().flat_map(|g| g.versions.iter().map(|v| (g.name, *v))).collect()
    }

    /// By the parts of a path.
    pub fn kind(&self, group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
        if plural.is_empty() {
            return None;
        }
        self.kinds().find(|k| k.plural == plural && k.group == group && k.version == version)
    }

    /// By what an object says of itself.
    pub fn by_kind(&self, api_version: &str, kind: &str) -> Option<&'static Kind> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.kinds().find(|k| k.kind == kind && k.group == group && k.version == version)
    }
}
