//! Revisions: numbering ReplicaSets, creating the one of the current template, dropping old ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::plan::{Action, Pass};
use super::scale;
use super::sets::{HASH_LABEL, Set, labelled_template};
use super::status::Progress;
use crate::hash::template_hash;
use crate::owner::controller_reference;

pub(crate) const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
/// Annotations of a Deployment that are its own and not its ReplicaSets'.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    scale::DESIRED,
    scale::MAX,
    "deprecated.deployment.rollback.to",
];

/// Brings the annotations of the new set, if there is one, and of the Deployment up to date.
pub(crate) fn sync_known(pass: &mut Pass<'_>) {
    let next = next_revision(pass);
    let Some(new) = pass.new.clone() else { return };
    let mut wanted = copied_annotations(pass.deployment);
    let own = revision_of(&new);
    let revision = own.max(next);
    if revision != own || new.annotation(REVISION).is_none() {
        wanted.insert(REVISION.into(), revision.to_string());
        if own > 0 {
            wanted.insert(REVISION_HISTORY.into(), history(&new, own));
        }
    }
    wanted.retain(|key, value| new.annotation(key) != Some(value));
    let min_ready = |value: Option<i32>| value.unwrap_or(0);
    let set_min_ready = min_ready(new.object.spec.as_ref().and_then(|spec| spec.min_ready_seconds));
    let own_min_ready = min_ready(pass.deployment.spec.as_ref().and_then(|spec| spec.min_ready_seconds));
    if !wanted.is_empty() || set_min_ready != own_min_ready {
        pass.update(new.object.clone(), new.replicas, wanted);
    }
    note_revision(pass, revision);
    pass.progress = Some(Progress::Found(new.name().to_owned()));
}

/// Plans the ReplicaSet of the current template.
pub(crate) fn create_new(pass: &mut Pass<'_>, replicas: i32) {
    let Some(spec) = &pass.deployment.spec else { return };
    let collisions = pass.deployment.status.as_ref().and_then(|status| status.collision_count).unwrap_or(0);
    let hash = template_hash(&spec.template, collisions);
    let revision = next_revision(pass);
    let mut annotations = copied_annotations(pass.deployment);
    annotations.extend(scale::annotations(&pass.limits));
    annotations.insert(REVISION.into(), revision.to_string());
    let template = labelled_template(&spec.template, &hash);
    let mut selector = spec.selector.clone();
    selector.match_labels.get_or_insert_default().insert(HASH_LABEL.into(), hash.clone());
    let meta = &pass.deployment.metadata;
    let name = format!("{}-{hash}", meta.name.as_deref().unwrap_or_default());
    let set = ReplicaSet {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: meta.namespace.clone(),
            labels: template.metadata.as_ref().and_then(|meta| meta.labels.clone()),
            annotations: Some(annotations),
            owner_references: Some(vec![controller_reference(pass.deployment)]),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: spec.min_ready_seconds,
            selector,
            template: Some(template),
        }),
        status: None,
    };
    pass.actions.push(Action::Create(Box::new(set.clone())));
    note_revision(pass, revision);
    pass.progress = Some(Progress::Created(name));
    pass.new = Some(Set::new(Arc::new(set)));
}

/// Plans the removal of empty old sets beyond revisionHistoryLimit, lowest revision first.
pub(crate) fn clean_up(pass: &mut Pass<'_>) {
    let mut old: Vec<&Set> = pass.old.iter().filter(|set| set.object.metadata.deletion_timestamp.is_none()).collect();
    let Some(surplus) = old.len().checked_sub(pass.limits.history).filter(|surplus| *surplus > 0) else { return };
    old.sort_by_key(|set| revision_of(set));
    let is_idle = |set: &Set| {
        let observed = set.object.status.as_ref().and_then(|status| status.observed_generation);
        set.actual() == 0 && set.replicas == 0 && set.object.metadata.generation <= observed
    };
    let gone = old.into_iter().take(surplus).filter(|set| is_idle(set));
    let gone: Vec<Action> = gone.map(|set| Action::Delete(set.object.clone())).collect();
    pass.actions.extend(gone);
}

pub(crate) fn revision_of(set: &Set) -> i64 {
    set.annotation(REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn next_revision(pass: &Pass<'_>) -> i64 {
    pass.old.iter().map(revision_of).max().unwrap_or(0) + 1
}

fn note_revision(pass: &mut Pass<'_>, revision: i64) {
    let known = pass.deployment.metadata.annotations.as_ref().and_then(|all| all.get(REVISION));
    if known.map(String::as_str) != Some(revision.to_string().as_str()) {
        pass.actions.push(Action::Revision(revision));
    }
}

fn history(set: &Set, own: i64) -> String {
    let known = set.annotation(REVISION_HISTORY).unwrap_or_default();
    let mut seen = BTreeSet::new();
    let all = known.split(',').map(str::to_owned).chain([own.to_string()]);
    let all: Vec<String> = all.filter(|one| !one.is_empty() && seen.insert(one.clone())).collect();
    all.join(",")
}

fn copied_annotations(deployment: &Deployment) -> BTreeMap<String, String> {
    let all = deployment.metadata.annotations.iter().flatten();
    let copied = all.filter(|(key, _)| !NOT_COPIED.contains(&key.as_str()));
    copied.map(|(key, value)| (key.clone(), value.clone())).collect()
}
