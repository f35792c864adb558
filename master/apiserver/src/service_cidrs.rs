//! ServiceCIDRs: where Services have their addresses from. A new one is ready at once; one that is deleted gives out no more
//! addresses, and stays as long as a Service has one of its own (KEP-1880; `pkg/controller/servicecidrs`). Addresses are given
//! out here, so that this is known here.

use std::sync::{Arc, Weak};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use store::ListRequest;

use crate::hooks::stored_resource;
use crate::ip_addresses;
use crate::objects;
use crate::server::Core;

pub(crate) const GROUP: &str = "networking.k8s.io";
pub(crate) const RESOURCE: &str = "servicecidrs";
/// How soon one that is being deleted is looked at again.
const AGAIN: Duration = Duration::from_secs(10);
const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";

/// Does what is due until the server is gone.
pub(crate) async fn follow(core: Weak<Core>) {
    loop {
        let Some(strong) = core.upgrade() else { return };
        // Addresses that nobody needs keep no network.
        let is_early = ip_addresses::repair(&strong).await;
        let is_again = refresh(&strong).await || is_early;
        let allocators = Arc::clone(&strong.allocators);
        drop(strong);
        // Both may be dropped: a notice that nobody waits for is kept.
        match is_again {
            // Nobody tells that a grace has passed.
            true => drop(tokio::time::timeout(AGAIN, allocators.changed()).await),
            false => allocators.changed().await,
        }
    }
}

/// Whether one is being deleted.
async fn refresh(core: &Core) -> bool {
    let Some(kind) = core.kinds.registry().kind(GROUP, "v1", RESOURCE) else { return false };
    let resource = stored_resource(kind);
    let all = ListRequest { resource: &resource, namespace: "", after: None, limit: 0, at: None, filter: None };
    let Ok(page) = core.store.list(&all) else { return false };
    let mut is_any_deleted = false;
    for entry in &page.entries {
        let name = entry.key.name();
        let Ok(cidr) = objects::parse_stored(kind, entry.json()) else { continue };
        is_any_deleted |= is_deleted(&cidr);
        let Some(new) = due(&cidr, core.allocators.is_needed(name), Timestamp::now()) else { continue };
        if let Err(problem) = objects::replace(core, kind, entry, new).await {
            tracing::warn!(name, reason = problem.message, "a ServiceCIDR was not written");
        }
    }
    is_any_deleted
}

fn is_deleted(cidr: &Value) -> bool {
    cidr["metadata"].get("deletionTimestamp").is_some()
}

/// The ServiceCIDR as it should be; `None` where it is so already.
fn due(cidr: &Value, is_needed: bool, now: Timestamp) -> Option<Value> {
    let mut new = cidr.clone();
    let mut finalizers: Vec<Value> = cidr["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    finalizers.retain(|one| one != FINALIZER);
    let (status, reason, message) = match (is_deleted(cidr), is_needed) {
        (true, false) => {
            let metadata = new["metadata"].as_object_mut()?;
            match finalizers.is_empty() {
                true => metadata.remove("finalizers"),
                false => metadata.insert("finalizers".into(), finalizers.into()),
            };
            return (new != *cidr).then_some(new);
        }
        (true, true) => (
            "False",
            "Terminating",
            "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR",
        ),
        (false, _) => ("True", "", "Kubernetes Service CIDR is ready"),
    };
    finalizers.push(FINALIZER.into());
    new["metadata"]["finalizers"] = finalizers.into();
    let conditions = cidr["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let (ours, mut rest): (Vec<Value>, Vec<Value>) = conditions.into_iter().partition(|one| one["type"] == "Ready");
    if !ours.iter().any(|one| one["status"] == status) {
        rest.push(json!({
            "type": "Ready", "status": status, "reason": reason, "message": message,
            "lastTransitionTime": format!("{now:.0}"),
        }));
        new["status"]["conditions"] = rest.into();
    }
    (new != *cidr).then_some(new)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::{FINALIZER, due};

    fn judged(cidr: &Value, is_needed: bool) -> Option<Value> {
        due(cidr, is_needed, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_network_is_ready_and_stays_while_it_is_needed() {
        let fresh = json!({ "metadata": { "name": "more" }, "spec": { "cidrs": ["10.0.0.0/24"] } });
        let mut ready = judged(&fresh, false).unwrap();
        assert_eq!(ready["metadata"]["finalizers"], json!([FINALIZER]));
        assert_eq!(ready["status"]["conditions"][0]["status"], "True");
        assert_eq!(judged(&ready, true), None);
        ready["metadata"]["deletionTimestamp"] = "1970-01-01T00:00:00Z".into();
        let kept = judged(&ready, true).unwrap();
        assert_eq!(kept["status"]["conditions"][0]["reason"], "Terminating");
        assert_eq!(judged(&kept, true), None);
        assert_eq!(judged(&kept, false).unwrap()["metadata"].get("finalizers"), None);
        ready["metadata"]["finalizers"] = json!(["other", FINALIZER]);
        assert_eq!(judged(&ready, false).unwrap()["metadata"]["finalizers"], json!(["other"]));
    }
}
