//! What the tests of the store share.

use store::{Facets, Hooks, Key};

/// Who is told of commits, and has nothing to say.
pub struct Nobody;

impl Hooks for Nobody {
    fn facets(&self, _: &Key, _: &[u8]) -> Facets {
        Facets::default()
    }

    fn committed(&self, _: &Key, _: Option<&[u8]>) {}
}
