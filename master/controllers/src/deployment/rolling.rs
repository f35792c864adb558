//! Strategies RollingUpdate and Recreate.

use super::plan::Pass;
use super::revision;

/// One step of a rolling update. Never more than replicas + maxSurge pods are asked for, and never so few old ones that
/// fewer than replicas - maxUnavailable could be available.
pub(crate) fn roll(pass: &mut Pass<'_>) {
    revision::sync_known(pass);
    if pass.new.is_none() {
        let replicas = new_replicas(pass, 0);
        revision::create_new(pass, replicas);
    } else if grow_new(pass) {
        return;
    }
    shrink_old(pass);
}

/// Ends all old pods before the first new one starts.
pub(crate) fn recreate(pass: &mut Pass<'_>, with_pods: &[String]) {
    revision::sync_known(pass);
    let active: Vec<String> = pass.old.iter().filter(|set| set.replicas > 0).map(|set| set.name().to_owned()).collect();
    if !active.is_empty() {
        for name in active {
            pass.resize(&name, 0);
        }
        return;
    }
    let has_pods = |uid: &Option<String>| uid.as_ref().is_some_and(|uid| with_pods.contains(uid));
    if pass.old.iter().any(|set| has_pods(&set.object.metadata.uid)) {
        return;
    }
    match pass.new.as_ref().map(|set| set.name().to_owned()) {
        Some(name) => {
            pass.resize(&name, pass.limits.replicas);
        }
        None => revision::create_new(pass, pass.limits.replicas),
    }
}

/// How many replicas the new set may have now, when it has `current`.
fn new_replicas(pass: &Pass<'_>, current: i32) -> i32 {
    let limits = &pass.limits;
    let room = limits.replicas + limits.max_surge - pass.total();
    if room <= 0 { current } else { current + room.min(limits.replicas - current) }
}

fn grow_new(pass: &mut Pass<'_>) -> bool {
    let Some((name, current)) = pass.new.as_ref().map(|set| (set.name().to_owned(), set.replicas)) else {
        return false;
    };
    let wanted = match current.cmp(&pass.limits.replicas) {
        std::cmp::Ordering::Equal => return false,
        std::cmp::Ordering::Greater => pass.limits.replicas,
        std::cmp::Ordering::Less => new_replicas(pass, current),
    };
    wanted != current && pass.resize(&name, wanted)
}

fn shrink_old(pass: &mut Pass<'_>) {
    if pass.old.iter().all(|set| set.replicas == 0) {
        return;
    }
    let least = pass.limits.replicas - pass.limits.max_unavailable;
    let (new_size, new_available) = pass.new.as_ref().map_or((0, 0), |set| (set.replicas, set.available));
    let spare = pass.total() - least - (new_size - new_available);
    if spare <= 0 {
        return;
    }
    drop_unhealthy(pass, spare);
    let available: i32 = pass.all().map(|set| set.available.min(set.replicas)).sum();
    let mut surplus = available - least;
    let active: Vec<(String, i32)> = pass.old.iter().map(|set| (set.name().to_owned(), set.replicas)).collect();
    for (name, replicas) in active {
        let step = replicas.min(surplus);
        if step > 0 {
            surplus -= step;
            pass.resize(&name, replicas - step);
        }
    }
}

/// Old pods that are not available go first, so that a broken revision cannot hold up the next one.
fn drop_unhealthy(pass: &mut Pass<'_>, most: i32) {
    let mut left = most;
    let sets: Vec<(String, i32, i32)> =
        pass.old.iter().map(|set| (set.name().to_owned(), set.replicas, set.available)).collect();
    for (name, replicas, available) in sets {
        let step = (replicas - available).min(left);
        if replicas > 0 && step > 0 {
            left -= step;
            pass.resize(&name, replicas - step);
        }
    }
}
