//! Conditions of objects: `lastTransitionTime` moves only when `status` changes (API conventions).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{NodeCondition, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// What conditions of different kinds have in common.
pub trait AnyCondition {
    /// `type`.
    fn type_name(&self) -> &str;
    /// `True`, `False` or `Unknown`.
    fn status(&self) -> &str;
    /// `lastTransitionTime`.
    fn transition(&self) -> Option<Timestamp>;
    /// Sets `lastTransitionTime`.
    fn set_transition(&mut self, at: Timestamp);
}

macro_rules! optional_transition {
    ($kind:ty) => {
        impl AnyCondition for $kind {
            fn type_name(&self) -> &str {
                &self.type_
            }
            fn status(&self) -> &str {
                &self.status
            }
            fn transition(&self) -> Option<Timestamp> {
                self.last_transition_time.as_ref().map(|time| time.0)
            }
            fn set_transition(&mut self, at: Timestamp) {
                self.last_transition_time = Some(Time(at));
            }
        }
    };
}

optional_transition!(PodCondition);
optional_transition!(NodeCondition);
optional_transition!(k8s_openapi::api::apps::v1::DeploymentCondition);
optional_transition!(k8s_openapi::api::apps::v1::ReplicaSetCondition);
optional_transition!(k8s_openapi::api::apps::v1::DaemonSetCondition);

impl AnyCondition for Condition {
    fn type_name(&self) -> &str {
        &self.type_
    }
    fn status(&self) -> &str {
        &self.status
    }
    fn transition(&self) -> Option<Timestamp> {
        Some(self.last_transition_time.0)
    }
    fn set_transition(&mut self, at: Timestamp) {
        self.last_transition_time = Time(at);
    }
}

/// The condition of a type.
#[must_use]
pub fn get<'a, C: AnyCondition>(conditions: &'a [C], type_name: &str) -> Option<&'a C> {
    conditions.iter().find(|condition| condition.type_name() == type_name)
}

/// Whether the condition of a type is `True`.
#[must_use]
pub fn is_true<C: AnyCondition>(conditions: &[C], type_name: &str) -> bool {
    get(conditions, type_name).is_some_and(|condition| condition.status() == "True")
}

/// Puts a condition in the place of the one of its type, or at the end. Its `lastTransitionTime` becomes that of the
/// old one when `status` stays the same, else `now`.
pub fn set<C: AnyCondition>(conditions: &mut Vec<C>, mut condition: C, now: Timestamp) {
    match conditions.iter_mut().find(|old| old.type_name() == condition.type_name()) {
        Some(old) => {
            let kept = old.transition().filter(|_| old.status() == condition.status());
            condition.set_transition(kept.unwrap_or(now));
            *old = condition;
        }
        None => {
            condition.set_transition(now);
            conditions.push(condition);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transition_time_moves_with_status_only() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let ready = |status: &str, reason: &str| PodCondition {
            type_: "Ready".into(),
            status: status.into(),
            reason: Some(reason.into()),
            ..PodCondition::default()
        };
        let mut conditions = Vec::new();
        set(&mut conditions, ready("False", "a"), at(1));
        set(&mut conditions, ready("False", "b"), at(2));
        assert_eq!(get(&conditions, "Ready").unwrap().transition(), Some(at(1)));
        assert_eq!(conditions[0].reason.as_deref(), Some("b"));
        set(&mut conditions, ready("True", ""), at(3));
        assert_eq!(conditions[0].transition(), Some(at(3)));
        assert!(is_true(&conditions, "Ready") && conditions.len() == 1);
    }
}
