//! The pods that wait for a node. Pure: the time is an argument.
//!
//! ```text
//!            add                    pop
//!  (new) ---------> active ------------------> (deciding)
//!                    ^  ^                          | no node fits
//!     pause is over  |  | event, pause was over    v
//!                 backing off <-------------- unschedulable
//!                              event
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::plugins::Reason;
use crate::pod::PodInfo;

/// The pause after the first failure; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A pod is tried again after this long even when nothing seemed to help it (kube-scheduler: podMaxInUnschedulablePodsDuration).
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// What happened in the cluster that may make room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A node came, or its labels changed.
    NodeLabels,
    /// A node came, or has more to give.
    NodeAllocatable,
    /// A node came, or its taints or spec.unschedulable changed.
    NodeTaints,
    /// A node came, or can do other things than before.
    NodeFeatures,
    /// A pod with a node is gone, ended, or holds less than before.
    PodGone,
    /// A pod got a node: affinity may be met now.
    PodPlaced,
    /// A pod with a node changed its labels: affinity may be met, and anti-affinity no longer be in the way.
    PodRelabelled,
    /// A node is gone: it may have been the domain with the fewest pods.
    NodeGone,
    /// A namespace's labels changed.
    Namespace,
    /// A claim, a volume or a class came or changed.
    Volume,
}

impl Event {
    /// What it is that a pod with a node is seen; `before` is the same pod on the same node.
    #[must_use]
    pub fn of_placed(before: Option<&PodInfo>, pod: &PodInfo) -> Vec<Self> {
        let Some(before) = before else { return vec![Self::PodPlaced] };
        let relabelled = (before.labels != pod.labels).then_some(Self::PodRelabelled);
        // Pods are resized in place (KEP-1287).
        let shrunk = pod.requests.is_less_of_any(&before.requests).then_some(Self::PodGone);
        relabelled.into_iter().chain(shrunk).collect()
    }

    /// Whether it can make a node fit that was refused for this reason.
    #[must_use]
    pub fn helps(self, reason: &Reason) -> bool {
        let by: &[Self] = match reason {
            Reason::Unschedulable | Reason::Taint => &[Self::NodeTaints],
            Reason::Features => &[Self::NodeFeatures],
            Reason::OtherNode => &[Self::NodeLabels],
            Reason::NodeAffinity | Reason::NotNamed => &[Self::NodeLabels],
            Reason::Ports | Reason::ClaimInUse => &[Self::PodGone],
            Reason::Smaller(_) => &[Self::NodeAllocatable],
            Reason::Insufficient(_) | Reason::TooManyPods => &[Self::PodGone, Self::NodeAllocatable],
            Reason::Spread | Reason::SpreadLabel => &[
                Self::PodGone,
                Self::PodPlaced,
                Self::PodRelabelled,
                Self::NodeLabels,
                Self::NodeTaints,
                Self::NodeGone,
            ],
            Reason::PodAffinity => &[Self::PodPlaced, Self::PodRelabelled, Self::NodeLabels, Self::Namespace],
            Reason::Claim(_) | Reason::VolumeLost => &[Self::Volume],
            Reason::VolumeElsewhere | Reason::VolumeZone | Reason::NoVolume => &[Self::Volume, Self::NodeLabels],
            Reason::PodAntiAffinity => &[Self::PodGone, Self::PodRelabelled, Self::NodeLabels, Self::Namespace],
            Reason::ExistingAntiAffinity => &[Self::PodGone, Self::NodeLabels, Self::Namespace],
        };
        by.contains(&self)
    }
}

/// Priority first, then age, then uid: the order in which pods are decided.
type Turn = (Reverse<i32>, Timestamp, String);

#[derive(Debug)]
enum Place {
    Active(Turn),
    BackingOff(Instant),
    Unschedulable {
        reasons: HashSet<Reason>,
        until: Instant,
    },
    /// Popped, being decided or bound.
    Out,
    /// Waits for its scheduling gates to be removed.
    Gated,
}

#[derive(Debug)]
struct Waiting {
    pod: Arc<PodInfo>,
    place: Place,
    attempts: u32,
    pause_over: Instant,
}

/// All pods without a node.
#[derive(Debug, Default)]
pub struct Queue {
    pods: HashMap<String, Waiting>,
    active: BTreeSet<Turn>,
    /// When pods that back off or are unschedulable are due.
    timers: BTreeSet<(Instant, String)>,
}

impl Queue {
    /// A pod without a node was seen, for the first time or changed. A change wakes it.
    pub fn set(&mut self, pod: Arc<PodInfo>, now: Instant) {
        let uid = pod.uid.clone();
        let Some(known) = self.pods.get_mut(&uid) else {
            self.pods.insert(uid.clone(), Waiting { pod, place: Place::Out, attempts: 0, pause_over: now });
            return self.activate(&uid, now);
        };
        let woken = may_fit_better(&known.pod, &pod);
        known.pod = pod;
        match known.place {
            Place::Gated => self.activate(&uid, now),
            Place::Unschedulable { .. } if woken => self.activate(&uid, now),
            _ => (),
        }
    }

    /// The pod is gone or has a node.
    pub fn remove(&mut self, uid: &str) {
        self.leave(uid);
        self.pods.remove(uid);
    }

    /// The next pod to decide on.
    pub fn pop(&mut self) -> Option<Arc<PodInfo>> {
        let (_, _, uid) = self.active.pop_first()?;
        let waiting = self.pods.get_mut(&uid)?;
        waiting.place = Place::Out;
        waiting.attempts += 1;
        Some(waiting.pod.clone())
    }

    /// No node fits the popped pod: it waits for an event that helps against one of these reasons.
    pub fn unschedulable(&mut self, uid: &str, reasons: HashSet<Reason>, now: Instant) {
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        waiting.pause_over = now + pause(waiting.attempts);
        let until = now + LONGEST_WAIT;
        waiting.place = Place::Unschedulable { reasons, until };
        self.timers.insert((until, uid.to_owned()));
    }

    /// Binding the popped pod failed: it is tried again after a pause.
    pub fn failed(&mut self, uid: &str, now: Instant) {
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        waiting.pause_over = now + pause(waiting.attempts);
        self.activate(uid, now);
    }

    /// The pod lost the room that was kept for it: it looks for other room.
    pub fn retry(&mut self, uid: &str, now: Instant) {
        if self.pods.get(uid).is_some_and(|waiting| matches!(waiting.place, Place::Unschedulable { .. })) {
            self.activate(uid, now);
        }
    }

    /// Wakes the pods that the event may help.
    pub fn wake(&mut self, event: Event, now: Instant) {
        if self.timers.is_empty() {
            return;
        }
        let helped = self.pods.iter().filter(|(_, waiting)| match &waiting.place {
            Place::Unschedulable { reasons, .. } => {
                reasons.is_empty() || reasons.iter().any(|reason| event.helps(reason))
            }
            _ => false,
        });
        let helped: Vec<String> = helped.map(|(uid, _)| uid.clone()).collect();
        for uid in helped {
            self.activate(&uid, now);
        }
    }

    /// Moves the pods that are due to the active queue.
    pub fn flush(&mut self, now: Instant) {
        while let Some((due, uid)) = self.timers.first().cloned() {
            if due > now {
                break;
            }
            self.activate(&uid, now);
            self.timers.remove(&(due, uid));
        }
    }

    /// When [`Queue::flush`] has something to do next.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Whether a pod is ready to be decided.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        !self.active.is_empty()
    }

    /// The uids of all waiting pods.
    #[must_use]
    pub fn uids(&self) -> Vec<String> {
        self.pods.keys().cloned().collect()
    }

    /// The pod, if it waits here.
    #[must_use]
    pub fn get(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        self.pods.get(uid).map(|waiting| &waiting.pod)
    }

    /// Whether the pod waits here.
    #[must_use]
    pub fn contains(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    fn activate(&mut self, uid: &str, now: Instant) {
        self.leave(uid);
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        if waiting.pod.gated {
            waiting.place = Place::Gated;
        } else if waiting.pause_over > now {
            waiting.place = Place::BackingOff(waiting.pause_over);
            self.timers.insert((waiting.pause_over, uid.to_owned()));
        } else {
            let turn = (Reverse(waiting.pod.priority), waiting.pod.created, uid.to_owned());
            waiting.place = Place::Active(turn.clone());
            self.active.insert(turn);
        }
    }

    fn leave(&mut self, uid: &str) {
        match self.pods.get(uid).map(|waiting| &waiting.place) {
            Some(Place::Active(turn)) => {
                self.active.remove(turn);
            }
            Some(Place::BackingOff(due) | Place::Unschedulable { until: due, .. }) => {
                self.timers.remove(&(*due, uid.to_owned()));
            }
            Some(Place::Out | Place::Gated) | None => (),
        }
    }
}

fn pause(attempts: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << attempts.saturating_sub(1).min(8)).min(LONGEST_PAUSE)
}

/// Whether a change of the waiting pod itself is worth a new try: status changes are not.
fn may_fit_better(old: &PodInfo, new: &PodInfo) -> bool {
    old.labels != new.labels
        || old.requests != new.requests
        || old.tolerations != new.tolerations
        || old.gated != new.gated
        || old.deleting != new.deleting
}
