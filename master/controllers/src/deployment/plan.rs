//! What one pass over a Deployment does. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};

use super::revision;
use super::rolling;
use super::scale;
use super::sets::{Limits, Set, split};
use super::status::{self, Progress};

/// Everything a pass looks at.
pub(crate) struct Facts<'a> {
    pub(crate) deployment: &'a Deployment,
    /// The ReplicaSets it owns.
    pub(crate) sets: Vec<Arc<ReplicaSet>>,
    /// uids of ReplicaSets of which pods still run or end.
    pub(crate) with_pods: Vec<String>,
    pub(crate) now: Timestamp,
}

/// One write.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// Create the ReplicaSet of the current template.
    Create(Box<ReplicaSet>),
    /// Change a ReplicaSet's size and annotations.
    Update { set: Arc<ReplicaSet>, replicas: i32, annotations: BTreeMap<String, String>, min_ready_seconds: i32 },
    /// Remove a ReplicaSet beyond the history limit.
    Delete(Arc<ReplicaSet>),
    /// Set the Deployment's revision annotation.
    Revision(i64),
}

/// The writes of a pass, and the status after it.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) actions: Vec<Action>,
    pub(crate) status: DeploymentStatus,
    /// Seconds until the progress deadline is to be checked.
    pub(crate) check_after: Option<u64>,
}

/// The sets of a pass and what was decided so far.
pub(crate) struct Pass<'a> {
    pub(crate) deployment: &'a Deployment,
    pub(crate) limits: Limits,
    pub(crate) new: Option<Set>,
    /// All others, oldest first.
    pub(crate) old: Vec<Set>,
    pub(crate) actions: Vec<Action>,
    /// Something about the new set that belongs into the Progressing condition.
    pub(crate) progress: Option<Progress>,
}

impl Pass<'_> {
    /// The new set, then the old ones.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Set> {
        self.new.iter().chain(&self.old)
    }

    /// Sum of spec.replicas as planned.
    pub(crate) fn total(&self) -> i32 {
        self.all().map(|set| set.replicas).sum()
    }

    /// Plans a size for a set, and the annotations that go with it; true when the size changes.
    pub(crate) fn resize(&mut self, name: &str, replicas: i32) -> bool {
        let annotations = scale::annotations(&self.limits);
        let Some(set) = self.new.iter_mut().chain(&mut self.old).find(|set| set.name() == name) else { return false };
        let differs = annotations.iter().any(|(key, value)| set.annotation(key) != Some(value));
        let changed = set.replicas != replicas;
        if !changed && !differs {
            return false;
        }
        set.replicas = replicas;
        let object = set.object.clone();
        self.update(object, replicas, annotations);
        changed
    }

    /// Merges a change into the planned one of the same set.
    pub(crate) fn update(&mut self, set: Arc<ReplicaSet>, replicas: i32, more: BTreeMap<String, String>) {
        let min_ready = self.deployment.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
        for action in &mut self.actions {
            if let Action::Update { set: known, replicas: size, annotations, .. } = action
                && known.metadata.uid == set.metadata.uid
            {
                *size = replicas;
                annotations.extend(more);
                return;
            }
        }
        self.actions.push(Action::Update { set, replicas, annotations: more, min_ready_seconds: min_ready });
    }
}

/// Decides what to do.
pub(crate) fn plan(facts: Facts<'_>) -> Option<Plan> {
    let deployment = facts.deployment;
    let spec = deployment.spec.as_ref()?;
    let (new, old) = split(deployment, facts.sets);
    let limits = Limits::of(spec);
    let mut pass = Pass { deployment, limits, new, old, actions: Vec::new(), progress: None };
    let paused = spec.paused == Some(true);
    let mut rollout = false;
    if deployment.metadata.deletion_timestamp.is_none() {
        if paused || scale::is_wanted(&pass) {
            revision::sync_known(&mut pass);
            scale::scale(&mut pass);
            if paused {
                revision::clean_up(&mut pass);
            }
        } else {
            rollout = true;
            if limits.rolling {
                rolling::roll(&mut pass);
            } else {
                rolling::recreate(&mut pass, &facts.with_pods);
            }
            if status::is_complete(deployment, deployment.status.as_ref(), &limits) {
                revision::clean_up(&mut pass);
            }
        }
    }
    let status = status::calculate(&pass, rollout, facts.now);
    let check_after = status::seconds_to_deadline(&status, &limits, facts.now).filter(|_| rollout);
    Some(Plan { actions: pass.actions, status, check_after })
}
