//! All kinds by path and by name.

use std::cmp::{Ordering, Reverse};
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

    /// These kinds, and custom ones behind them: of each group the newest version first.
    pub fn with(&self, custom: impl IntoIterator<Item = &'static Kind>) -> Registry {
        let mut custom: Vec<&'static Kind> = custom.into_iter().collect();
        custom.sort_by(|a, b| {
            (a.group, version_rank(b.version), a.plural).cmp(&(b.group, version_rank(a.version), b.plural))
        });
        Registry { kinds: self.kinds().chain(custom).collect() }
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

/// Orders versions of a group that nothing else orders.
pub fn newest_first(a: &str, b: &str) -> Ordering {
    version_rank(b).cmp(&version_rank(a))
}

/// How a version ranks: stable before beta before alpha, then by numbers, then whatever is no such version, by name
/// (`apimachinery/pkg/version.CompareKubeAwareVersionStrings`).
fn version_rank(version: &str) -> (u8, u64, u64, Reverse<&str>) {
    let other = (0, 0, 0, Reverse(version));
    let Some(rest) = version.strip_prefix('v') else { return other };
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (major, rest) = rest.split_at(digits);
    let Ok(major) = major.parse() else { return other };
    let minor = |text: &str| text.parse::<u64>().ok();
    match rest {
        "" => (3, major, 0, Reverse("")),
        _ => {
            let beta = rest.strip_prefix("beta").and_then(minor).map(|minor| (2, major, minor, Reverse("")));
            let alpha = || rest.strip_prefix("alpha").and_then(minor).map(|minor| (1, major, minor, Reverse("")));
            beta.or_else(alpha).unwrap_or(other)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::version_rank;

    #[test]
    fn stable_versions_come_first() {
        let mut versions =
            ["foo1", "v1", "v2beta1", "v10", "v1alpha1", "foo10", "v11alpha2", "v2", "v12alpha1", "v11beta2"];
        versions.sort_by(|a, b| version_rank(b).cmp(&version_rank(a)));
        let wanted = ["v10", "v2", "v1", "v11beta2", "v2beta1", "v12alpha1", "v11alpha2", "v1alpha1", "foo1", "foo10"];
        assert_eq!(versions, wanted);
    }
}
