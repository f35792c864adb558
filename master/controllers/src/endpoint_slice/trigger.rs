//! Since when what a slice says is so: proxies tell by it how long a change took to reach them (`network_programming_duration_seconds`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Service};

use crate::pods;

/// The annotation of slices and Endpoints.
pub(super) const ANNOTATION: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// What was seen of each Service's pods the last time.
#[derive(Default)]
pub(super) struct Triggers {
    seen: Mutex<HashMap<String, HashMap<String, Timestamp>>>,
}

impl Triggers {
    /// The earliest of the changes since the last call: pods that came to be ready or not, or the Service itself where it is new. `None` where
    /// something else has changed.
    pub(super) fn of(&self, key: &str, service: &Service, pods: &[Arc<Pod>]) -> Option<String> {
        let now: HashMap<String, Timestamp> = pods
            .iter()
            .filter_map(|pod| {
                Some((pod.metadata.name.clone()?, pods::condition(pod, "Ready")?.last_transition_time.as_ref()?.0))
            })
            .collect();
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned(), now.clone());
        let time = match seen {
            Some(seen) => {
                now.into_iter().filter(|(pod, at)| seen.get(pod).is_none_or(|old| at > old)).map(|(_, at)| at).min()
            }
            None => service.metadata.creation_timestamp.as_ref().map(|time| time.0),
        };
        time.map(|time| time.to_string())
    }

    /// Of a Service that is gone.
    pub(super) fn forget(&self, key: &str) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_earliest_change_counts_and_each_once() {
        let triggers = Triggers::default();
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": "s", "creationTimestamp": "2026-01-01T00:00:00Z"},
        }))
        .unwrap();
        let pod = |name: &str, at: &str| -> Arc<Pod> {
            let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": at});
            serde_json::from_value(json!({"metadata": {"name": name}, "status": {"conditions": [ready]}})).unwrap()
        };
        let of = |pods: &[Arc<Pod>]| triggers.of("ns/s", &service, pods);
        let (a, b) = (pod("a", "2026-01-01T00:00:05Z"), pod("b", "2026-01-01T00:00:09Z"));
        assert_eq!(of(std::slice::from_ref(&a)).as_deref(), Some("2026-01-01T00:00:00Z"), "the Service is new");
        assert_eq!(of(&[a.clone(), b.clone()]).as_deref(), Some("2026-01-01T00:00:09Z"));
        assert_eq!(of(&[a, b]), None);
        let (a, b) = (pod("a", "2026-01-01T00:00:30Z"), pod("b", "2026-01-01T00:00:20Z"));
        assert_eq!(of(&[a.clone(), b]).as_deref(), Some("2026-01-01T00:00:20Z"));
        triggers.forget("ns/s");
        assert_eq!(of(&[a]).as_deref(), Some("2026-01-01T00:00:00Z"), "made anew");
    }
}
