//! Events end one hour after they were last seen (`--event-ttl`).

use std::sync::Weak;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use store::{CommitError, Entry, Expect, Facets, ListRequest, Proposal, Write};

use crate::server::Core;

const TTL: SignedDuration = SignedDuration::from_hours(1);
const SWEEP_EVERY: Duration = Duration::from_secs(120);
const RESOURCE: &str = "events";

/// Removes what is too old, now and then, until the server is gone.
pub(crate) async fn sweep(core: Weak<Core>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let Some(core) = core.upgrade() else { return };
        remove_before(&core, Timestamp::now() - TTL).await;
    }
}

async fn remove_before(core: &Core, limit: Timestamp) {
    let request = ListRequest { resource: RESOURCE, namespace: "", after: None, limit: 0, at: None, filter: None };
    let Ok(page) = core.store.list(&request) else { return };
    for entry in page.entries.iter().filter(|entry| last_seen(entry).is_some_and(|at| at < limit)) {
        let write =
            Write { key: entry.key.clone(), expect: Expect::Revision(entry.revision), needs: None, value: None };
        match core.store.commit(Proposal { write, facets: Facets::default() }).await {
            // It was seen again, or is gone already.
            Ok(_) | Err(CommitError::Mismatch { .. }) => {}
            Err(error) => return tracing::warn!(%error, "old events were not removed"),
        }
    }
}

fn last_seen(entry: &Entry) -> Option<Timestamp> {
    let event: Value = serde_json::from_slice(entry.json()).ok()?;
    let times = ["/metadata/creationTimestamp", "/lastTimestamp", "/eventTime", "/series/lastObservedTime"];
    times.iter().filter_map(|pointer| event.pointer(pointer)?.as_str()?.parse().ok()).max()
}
