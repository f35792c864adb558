//! The ReplicaSets of a Deployment as one pass sees and changes them, and the numbers that limit a rollout.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// The label that tells the pods of one template from those of another.
pub(crate) const HASH_LABEL: &str = "pod-template-hash";
/// Upstream's "no deadline".
const NO_DEADLINE: i32 = i32::MAX;

/// One ReplicaSet, with what this pass plans for it.
#[derive(Debug, Clone)]
pub(crate) struct Set {
    pub(crate) object: Arc<ReplicaSet>,
    /// spec.replicas, as planned so far.
    pub(crate) replicas: i32,
    pub(crate) available: i32,
}

impl Set {
    pub(crate) fn new(object: Arc<ReplicaSet>) -> Self {
        let replicas = object.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        let available = object.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0);
        Self { object, replicas, available }
    }

    pub(crate) fn name(&self) -> &str {
        self.object.metadata.name.as_deref().unwrap_or_default()
    }

    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        self.object.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// Pods that exist, by the status.
    pub(crate) fn actual(&self) -> i32 {
        self.object.status.as_ref().map_or(0, |status| status.replicas)
    }

    pub(crate) fn ready(&self) -> i32 {
        self.object.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0)
    }

    pub(crate) fn age_order(&self) -> impl Ord + use<'_> {
        (self.object.metadata.creation_timestamp.as_ref(), self.name())
    }
}

/// What a Deployment asks for, with defaults and limits resolved.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) replicas: i32,
    pub(crate) max_surge: i32,
    pub(crate) max_unavailable: i32,
    pub(crate) rolling: bool,
    pub(crate) deadline: Option<i32>,
    pub(crate) history: usize,
}

impl Limits {
    /// Percentages of maxSurge are rounded up, of maxUnavailable down; when both are zero, one pod may be unavailable.
    pub(crate) fn of(spec: &DeploymentSpec) -> Self {
        let replicas = spec.replicas.unwrap_or(1);
        let strategy = spec.strategy.as_ref();
        let rolling = strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("Recreate");
        let update = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let quarter = IntOrString::String("25%".into());
        let surge = update.and_then(|update| update.max_surge.as_ref()).unwrap_or(&quarter);
        let unavailable = update.and_then(|update| update.max_unavailable.as_ref()).unwrap_or(&quarter);
        let (max_surge, mut max_unavailable) = (scaled(surge, replicas, true), scaled(unavailable, replicas, false));
        if max_surge == 0 && max_unavailable == 0 {
            max_unavailable = 1;
        }
        Self {
            replicas,
            max_surge: if rolling { max_surge } else { 0 },
            max_unavailable: if rolling { max_unavailable.min(replicas) } else { 0 },
            rolling,
            deadline: spec.progress_deadline_seconds.filter(|seconds| *seconds != NO_DEADLINE),
            history: usize::try_from(spec.revision_history_limit.unwrap_or(10)).unwrap_or(usize::MAX),
        }
    }
}

/// A number, or a percentage of `total`.
pub(crate) fn scaled(value: &IntOrString, total: i32, round_up: bool) -> i32 {
    match value {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let percent = text.trim_end_matches('%').parse::<i64>().unwrap_or(0);
            let product = percent * i64::from(total);
            let share = if round_up { product.div_euclid(100) + i64::from(product % 100 != 0) } else { product / 100 };
            i32::try_from(share).unwrap_or(i32::MAX)
        }
    }
}

/// The Deployment's template with the hash label, as its ReplicaSets carry it.
pub(crate) fn labelled_template(template: &PodTemplateSpec, hash: &str) -> PodTemplateSpec {
    let mut template = template.clone();
    let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
    labels.insert(HASH_LABEL.into(), hash.into());
    template
}

/// Whether both describe the same pods.
pub(crate) fn same_template(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    a.spec == b.spec && plain_labels(a) == plain_labels(b) && annotations(a) == annotations(b)
}

fn plain_labels(template: &PodTemplateSpec) -> BTreeMap<&str, &str> {
    let labels = template.metadata.iter().filter_map(|meta| meta.labels.as_ref()).flatten();
    labels.filter(|(key, _)| *key != HASH_LABEL).map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

fn annotations(template: &PodTemplateSpec) -> BTreeMap<&str, &str> {
    let annotations = template.metadata.iter().filter_map(|meta| meta.annotations.as_ref()).flatten();
    annotations.map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

/// The set of the current template (the oldest, should there be several) and all others, oldest first.
pub(crate) fn split(deployment: &Deployment, sets: Vec<Arc<ReplicaSet>>) -> (Option<Set>, Vec<Set>) {
    let mut sets: Vec<Set> = sets.into_iter().map(Set::new).collect();
    sets.sort_by(|a, b| a.age_order().cmp(&b.age_order()));
    let template = deployment.spec.as_ref().map(|spec| &spec.template);
    let matches = |set: &Set| {
        let own = set.object.spec.as_ref().and_then(|spec| spec.template.as_ref());
        template.zip(own).is_some_and(|(wanted, own)| same_template(wanted, own))
    };
    let position = sets.iter().position(matches);
    let new = position.map(|at| sets.remove(at));
    (new, sets)
}
