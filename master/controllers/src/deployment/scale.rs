//! Scaling while nothing, or several revisions, run: sizes grow and shrink in proportion.

use std::collections::BTreeMap;

use super::plan::Pass;
use super::sets::{Limits, Set};

pub(crate) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub(crate) const MAX: &str = "deployment.kubernetes.io/max-replicas";

/// What each set says about the size of the whole Deployment at its last resize.
pub(crate) fn annotations(limits: &Limits) -> BTreeMap<String, String> {
    let max = limits.replicas + limits.max_surge;
    [(DESIRED.to_owned(), limits.replicas.to_string()), (MAX.to_owned(), max.to_string())].into()
}

/// Whether spec.replicas changed since the sets were last sized.
pub(crate) fn is_wanted(pass: &Pass<'_>) -> bool {
    let active = pass.all().filter(|set| set.replicas > 0);
    let sized_for = active.filter_map(|set| set.annotation(DESIRED)?.parse::<i32>().ok());
    sized_for.into_iter().any(|desired| desired != pass.limits.replicas)
}

/// Brings the sum of all sizes to what spec.replicas and maxSurge allow.
pub(crate) fn scale(pass: &mut Pass<'_>) {
    let active: Vec<&Set> = pass.all().filter(|set| set.replicas > 0).collect();
    let only = match active.as_slice() {
        [] => pass.new.as_ref().or(pass.old.last()),
        [one] => Some(*one),
        _ => None,
    };
    if let Some(name) = only.map(|set| set.name().to_owned()) {
        pass.resize(&name, pass.limits.replicas);
        return;
    }
    if active.is_empty() {
        return;
    }
    if pass.new.as_ref().is_some_and(|new| is_saturated(new, &pass.limits)) {
        let old: Vec<String> =
            pass.old.iter().filter(|set| set.replicas > 0).map(|set| set.name().to_owned()).collect();
        for name in old {
            pass.resize(&name, 0);
        }
        return;
    }
    if pass.limits.rolling {
        proportionally(pass);
    }
}

fn is_saturated(new: &Set, limits: &Limits) -> bool {
    let desired = new.annotation(DESIRED).and_then(|text| text.parse::<i32>().ok());
    new.replicas == limits.replicas && desired == Some(limits.replicas) && new.available == limits.replicas
}

fn proportionally(pass: &mut Pass<'_>) {
    let limits = pass.limits;
    let allowed = if limits.replicas > 0 { limits.replicas + limits.max_surge } else { 0 };
    let to_add = allowed - pass.total();
    let mut sets: Vec<Set> = pass.all().filter(|set| set.replicas > 0).cloned().collect();
    // Large sets first; of equal ones the newest grows first and the oldest shrinks first.
    sets.sort_by(|a, b| {
        let by_age = a.age_order().cmp(&b.age_order());
        b.replicas.cmp(&a.replicas).then(if to_add > 0 { by_age.reverse() } else { by_age })
    });
    let before = pass.deployment.status.as_ref().and_then(|status| status.replicas).unwrap_or(0);
    let mut added = 0;
    let mut sizes = Vec::with_capacity(sets.len());
    for set in &sets {
        let share = if to_add == 0 { 0 } else { share(set, &limits, before) };
        let open = to_add - added;
        let step = if to_add > 0 { share.clamp(0, open.max(0)) } else { share.clamp(open.min(0), 0) };
        sizes.push(set.replicas + step);
        added += step;
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    for (set, size) in sets.iter().zip(sizes) {
        pass.resize(set.name(), size);
    }
}

/// How much one set grows (or shrinks, negative) when the whole goes from its former to its new size.
fn share(set: &Set, limits: &Limits, status_replicas: i32) -> i32 {
    if limits.replicas == 0 {
        return -set.replicas;
    }
    let before = set.annotation(MAX).and_then(|text| text.parse::<i32>().ok()).filter(|max| *max > 0);
    let before = i64::from(before.unwrap_or(status_replicas).max(1));
    let product = i64::from(set.replicas) * i64::from(limits.replicas + limits.max_surge);
    let size = (2 * product + before) / (2 * before);
    i32::try_from(size).unwrap_or(i32::MAX) - set.replicas
}
