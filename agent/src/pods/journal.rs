//! What was decided about pods, and why: for "why was this container restarted at 10:42?".
//!
//! Bounded: a pod keeps its last decisions, and of pods that are gone only the last are remembered. Nothing is written
//! down, so it begins with the agent.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use api::PodUid;
use jiff::Timestamp;
use pod::explain::Reason;
use serde::{Deserialize, Serialize};

/// Decisions that a pod keeps; the oldest go first.
const DECISIONS: usize = 48;
/// Pods that are remembered after their end.
const ENDED: usize = 32;

/// One decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// When it was taken.
    pub at: Timestamp,
    #[serde(flatten)]
    pub reason: Reason,
    /// What came of it; `None` while it is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

/// What came of a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub at: Timestamp,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The decisions about one pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    pub uid: String,
    pub namespace: String,
    pub name: String,
    /// Oldest first.
    pub decisions: VecDeque<Decision>,
}

#[derive(Debug, Default)]
struct Pods {
    histories: HashMap<PodUid, History>,
    /// Those of pods that are gone, in the order of their ends.
    ended: VecDeque<PodUid>,
}

/// All that is remembered, written by the workers.
#[derive(Debug, Default)]
pub struct Journal(Mutex<Pods>);

impl Journal {
    /// A decision was taken. `name` is the pod's namespace and name.
    pub fn decided(&self, uid: &PodUid, name: (&str, &str), at: Timestamp, reason: Reason) {
        let mut pods = self.lock();
        let new = || History {
            uid: uid.to_string(),
            namespace: name.0.to_owned(),
            name: name.1.to_owned(),
            decisions: VecDeque::new(),
        };
        let history = pods.histories.entry(uid.clone()).or_insert_with(new);
        if history.decisions.len() >= DECISIONS {
            history.decisions.pop_front();
        }
        history.decisions.push_back(Decision { at, reason, outcome: None });
    }

    /// What came of the decision of that moment.
    pub fn came_to(&self, uid: &PodUid, decided: Timestamp, error: Option<String>) {
        let mut pods = self.lock();
        let Some(history) = pods.histories.get_mut(uid) else { return };
        if let Some(decision) = history.decisions.iter_mut().rev().find(|decision| decision.at == decided) {
            decision.outcome = Some(Outcome { at: Timestamp::now(), error });
        }
    }

    /// Nothing is left of a pod.
    pub fn ended(&self, uid: &PodUid) {
        let mut pods = self.lock();
        if !pods.histories.contains_key(uid) {
            return;
        }
        pods.ended.retain(|known| known != uid);
        pods.ended.push_back(uid.clone());
        if pods.ended.len() > ENDED
            && let Some(oldest) = pods.ended.pop_front()
        {
            pods.histories.remove(&oldest);
        }
    }

    /// The histories of all pods of a name, the one with the latest decision last.
    #[must_use]
    pub fn of(&self, namespace: &str, name: &str) -> Vec<History> {
        let pods = self.lock();
        let named = pods.histories.values().filter(|history| history.namespace == namespace && history.name == name);
        let mut histories: Vec<History> = named.cloned().collect();
        histories.sort_by_key(|history| history.decisions.back().map(|decision| decision.at));
        histories
    }

    fn lock(&self) -> MutexGuard<'_, Pods> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(step: &str) -> Reason {
        Reason { step: step.to_owned(), because: "it has to be".to_owned() }
    }

    #[test]
    fn a_pod_keeps_its_last_decisions_with_what_came_of_them() {
        let (journal, uid) = (Journal::default(), PodUid::new("u"));
        for second in 0..i64::try_from(DECISIONS).unwrap() + 2 {
            let at = Timestamp::from_second(second).unwrap();
            journal.decided(&uid, ("ns", "p"), at, reason(&second.to_string()));
        }
        journal.came_to(&uid, Timestamp::from_second(5).unwrap(), Some("no".to_owned()));
        let history = journal.of("ns", "p").pop().unwrap();
        assert_eq!(history.decisions.len(), DECISIONS);
        assert_eq!(history.decisions[0].reason.step, "2");
        assert_eq!(history.decisions[3].outcome.as_ref().unwrap().error.as_deref(), Some("no"));
        assert!(history.decisions[4].outcome.is_none());
        assert!(journal.of("ns", "other").is_empty());
    }

    #[test]
    fn of_pods_that_are_gone_the_last_are_remembered() {
        let journal = Journal::default();
        for index in 0..ENDED + 3 {
            let (uid, name) = (PodUid::new(format!("u{index}")), format!("p{index}"));
            journal.decided(&uid, ("ns", &name), Timestamp::UNIX_EPOCH, reason("start"));
            journal.ended(&uid);
        }
        assert!(journal.of("ns", "p2").is_empty());
        assert_eq!(journal.of("ns", "p3").len(), 1);
        assert_eq!(journal.lock().histories.len(), ENDED);
    }
}
