//! How soon a failed pod is replaced, so that a node that refuses a pod and this controller do not chase each other. Pure.

use std::collections::HashMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::DaemonSet;

use super::plan::Plan;
use crate::pods;

/// The pause after the first failure; it doubles with each.
const FIRST: SignedDuration = SignedDuration::from_secs(1);
const LONGEST: SignedDuration = SignedDuration::from_mins(15);

#[derive(Debug, Clone, Copy)]
struct Pause {
    since: Timestamp,
    length: SignedDuration,
}

/// The last replacement of failed pods, by set, its generation, and node.
#[derive(Debug, Default)]
pub(super) struct Pauses(HashMap<(String, i64, String), Pause>);

impl Pauses {
    /// Takes those failed pods out of the plan whose turn has not come yet.
    pub(super) fn hold(&mut self, set: &DaemonSet, plan: &mut Plan, now: Timestamp) {
        self.0.retain(|_, pause| now.duration_since(pause.since) < LONGEST * 2);
        let of = (set.metadata.uid.clone().unwrap_or_default(), set.metadata.generation.unwrap_or(0));
        let mut held = Vec::new();
        plan.failed.retain(|pod| {
            let node = pods::node_name(pod).unwrap_or_default().to_owned();
            let left = self.replace((of.0.clone(), of.1, node), now);
            if let Some(left) = left {
                let soon = left.as_secs().max(1);
                plan.look_again = Some(plan.look_again.map_or(soon, |before| before.min(soon)));
                held.push(pod.metadata.uid.clone());
            }
            left.is_none()
        });
        plan.delete.retain(|pod| !held.contains(&pod.metadata.uid));
    }

    /// Notes a replacement, or answers how long it has to wait.
    fn replace(&mut self, of: (String, i64, String), now: Timestamp) -> Option<Duration> {
        let length = match self.0.get(&of) {
            None => FIRST,
            Some(last) => {
                let left = last.length - now.duration_since(last.since);
                if left.is_positive() {
                    return Some(left.unsigned_abs());
                }
                (last.length * 2).min(LONGEST)
            }
        };
        self.0.insert(of, Pause { since: now, length });
        None
    }
}
