//! What a namespace that is being deleted says about what is still in it. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// What could not be deleted yet.
#[derive(Debug, Default)]
pub(super) struct Remaining {
    /// Objects by kind (`pods.`, `deployments.apps`).
    pub(super) objects: BTreeMap<String, usize>,
    /// Objects by finalizer.
    pub(super) finalizers: BTreeMap<String, usize>,
    /// Why the kinds could not be discovered.
    pub(super) discovery: Option<String>,
    /// Why objects could not be deleted.
    pub(super) failures: Vec<String>,
}

impl Remaining {
    pub(super) fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.discovery.is_none() && self.failures.is_empty()
    }

    /// Counts the objects of a kind by their finalizers.
    pub(super) fn note(&mut self, kind: &str, finalizers: impl Iterator<Item = Vec<String>>) {
        let mut count = 0;
        for finalizers in finalizers {
            count += 1;
            for finalizer in finalizers {
                *self.finalizers.entry(finalizer).or_default() += 1;
            }
        }
        if count > 0 {
            self.objects.insert(kind.to_owned(), count);
        }
    }
}

/// What is wrong where versions of groups have a server that does not answer: what there is of them is not known
/// (`discovery.ErrGroupDiscoveryFailed`).
pub(super) fn undiscovered(stale: &[String]) -> Option<String> {
    let each: Vec<String> =
        stale.iter().map(|version| format!("{version}: stale GroupVersion discovery: {version}")).collect();
    (!each.is_empty()).then(|| {
        format!(
            "Discovery failed for some groups, {} failing: unable to retrieve the complete list of server APIs: {}",
            each.len(),
            each.join(", ")
        )
    })
}

/// status.conditions with upstream's types, reasons and texts; those of others stay.
pub(super) fn conditions(namespace: &Namespace, left: &Remaining, now: Timestamp) -> Vec<NamespaceCondition> {
    let list = |all: &BTreeMap<String, usize>, word: &str| {
        let parts: Vec<String> =
            all.iter().map(|(name, count)| format!("{name} {word} {count} resource instances")).collect();
        parts.join(", ")
    };
    let discovery = left.discovery.clone();
    let failures = (!left.failures.is_empty()).then(|| {
        format!("Failed to delete all resource types, {} remaining: {}", left.failures.len(), left.failures.join(", "))
    });
    let objects =
        (!left.objects.is_empty()).then(|| format!("Some resources are remaining: {}", list(&left.objects, "has")));
    let finalizers = (!left.finalizers.is_empty())
        .then(|| format!("Some content in the namespace has finalizers remaining: {}", list(&left.finalizers, "in")));
    let rows = [
        (
            "NamespaceDeletionDiscoveryFailure",
            discovery,
            "DiscoveryFailed",
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            "GroupVersionParsingFailed",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        (
            "NamespaceDeletionContentFailure",
            failures,
            "ContentDeletionFailed",
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        (
            "NamespaceContentRemaining",
            objects,
            "SomeResourcesRemain",
            "ContentRemoved",
            "All content successfully removed",
        ),
        (
            "NamespaceFinalizersRemaining",
            finalizers,
            "SomeFinalizersRemain",
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished",
        ),
    ];
    let known = namespace.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let mut conditions = known.to_vec();
    for (kind, trouble, bad, good, fine) in rows {
        let condition = condition(known, kind, trouble, (bad, good, fine), now);
        match conditions.iter_mut().find(|known| known.type_ == kind) {
            Some(known) => *known = condition,
            None => conditions.push(condition),
        }
    }
    conditions
}

fn condition(
    known: &[NamespaceCondition],
    kind: &str,
    trouble: Option<String>,
    (bad, good, fine): (&str, &str, &str),
    now: Timestamp,
) -> NamespaceCondition {
    let status = if trouble.is_some() { "True" } else { "False" };
    let reason = if trouble.is_some() { bad } else { good };
    let before = known.iter().find(|condition| condition.type_ == kind && condition.status == status);
    NamespaceCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(trouble.unwrap_or_else(|| fine.to_owned())),
        last_transition_time: before.and_then(|before| before.last_transition_time.clone()).or(Some(Time(now))),
    }
}
