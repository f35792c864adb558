//! The cluster as it would be if other pods were on one of its nodes.

use crate::cache::{Cache, Namespaces};
use crate::node::{NodeFacts, NodeInfo};
use crate::volumes::Volumes;

/// What filters look at: the cache, perhaps with one node in another state.
#[derive(Clone, Copy)]
pub struct View<'a> {
    cache: &'a Cache,
    instead: Option<(&'a NodeFacts, &'a NodeInfo)>,
}

impl<'a> From<&'a Cache> for View<'a> {
    fn from(cache: &'a Cache) -> Self {
        Self { cache, instead: None }
    }
}

impl<'a> View<'a> {
    /// The cache with this in place of what it knows of the node's pods.
    #[must_use]
    pub fn with(cache: &'a Cache, facts: &'a NodeFacts, node: &'a NodeInfo) -> Self {
        Self { cache, instead: Some((facts, node)) }
    }

    /// All nodes that exist.
    pub fn nodes(self) -> impl Iterator<Item = (&'a NodeFacts, &'a NodeInfo)> {
        self.cache.nodes().map(move |(facts, node)| self.seen(facts, node))
    }

    /// The nodes that may run a pod with required anti-affinity.
    pub fn guarded(self) -> impl Iterator<Item = (&'a NodeFacts, &'a NodeInfo)> {
        let changed = self.instead;
        let others = self.cache.guarded().filter(move |(facts, _)| !is(changed, facts));
        others.chain(changed)
    }

    /// The labels of all namespaces.
    #[must_use]
    pub fn namespaces(self) -> &'a Namespaces {
        self.cache.namespaces()
    }

    /// Claims and volumes.
    #[must_use]
    pub fn volumes(self) -> &'a Volumes {
        self.cache.volumes()
    }

    fn seen(self, facts: &'a NodeFacts, node: &'a NodeInfo) -> (&'a NodeFacts, &'a NodeInfo) {
        self.instead.filter(|_| is(self.instead, facts)).unwrap_or((facts, node))
    }
}

fn is(changed: Option<(&NodeFacts, &NodeInfo)>, facts: &NodeFacts) -> bool {
    changed.is_some_and(|(other, _)| other.name == facts.name)
}
