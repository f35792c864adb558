//! What pods have left behind on this machine outside the runtime.

use std::collections::HashSet;

use api::PodUid;

use super::Context;
use crate::client::watch::describe;

/// Pods with a folder or a cgroup. Blocks.
#[must_use]
pub fn leftovers(context: &Context) -> HashSet<PodUid> {
    let mut found = HashSet::new();
    match volumes::teardown::existing(&context.layout) {
        Ok(uids) => found.extend(uids.iter().map(PodUid::new)),
        Err(error) => tracing::warn!(error = %describe(&error), "folders of pods cannot be read"),
    }
    match cgroups::driver::pods(context.cgroups.as_ref(), &context.tree) {
        Ok(pods) => found.extend(pods.iter().map(|(_, uid)| PodUid::new(uid))),
        Err(error) => tracing::warn!(error = %describe(&error), "cgroups of pods cannot be read"),
    }
    found
}
