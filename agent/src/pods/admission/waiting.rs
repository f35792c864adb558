//! Which pod waits for room that others make. What becomes free until then is its own: upstream waits for the ends itself, and admits
//! nobody meanwhile (`evictPodsToFreeRequests`); here others are admitted that fit beside it.

use std::sync::Arc;
use std::time::Duration;

use api::PodUid;
use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;

/// Who has not asked for so long does not wait any more: it asks some times in a second.
const FORGOTTEN: Duration = Duration::from_secs(5);

/// One at most: whoever would be second asks again later.
#[derive(Debug, Default)]
pub struct Waiting(Option<(PodUid, Arc<Pod>, Instant)>);

impl Waiting {
    /// The pod that comes before another one which asks.
    #[must_use]
    pub fn before(&self, uid: &PodUid, now: Instant) -> Option<(PodUid, Arc<Pod>)> {
        let waiting = self.0.as_ref().filter(|(first, _, asked)| first != uid && now < *asked + FORGOTTEN);
        waiting.map(|(first, pod, _)| (first.clone(), Arc::clone(pod)))
    }

    /// Who waits from now on, if anybody.
    pub fn set(&mut self, pod: Option<(PodUid, Arc<Pod>)>, now: Instant) {
        self.0 = pod.map(|(uid, pod)| (uid, pod, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_waits_for_as_long_as_it_asks() {
        let (first, second) = (PodUid::new("first"), PodUid::new("second"));
        let mut waiting = Waiting::default();
        let now = Instant::now();
        assert_eq!(waiting.before(&first, now), None);
        waiting.set(Some((first.clone(), Arc::default())), now);
        assert_eq!(waiting.before(&first, now), None);
        assert_eq!(waiting.before(&second, now).map(|(uid, _)| uid), Some(first.clone()));
        assert_eq!(waiting.before(&second, now + FORGOTTEN), None);
        waiting.set(None, now);
        assert_eq!(waiting.before(&second, now), None);
    }
}
