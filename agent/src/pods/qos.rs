//! The cgroups of the QoS classes: all Burstable pods together have the CPU shares that they ask for
//! (pkg/kubelet/cm/qos_container_manager_linux.go).

use std::sync::{Mutex, PoisonError};

use api::PodUid;
use cgroups::QosLevel::Burstable;

use super::Context;
use super::stages::limits;
use crate::client::watch::describe;

/// The millicores that were written last, by this agent.
#[derive(Debug, Default)]
pub struct Shares(Mutex<Option<u64>>);

/// Writes the shares of the pods that are on the node now, without `leaving`. What fails is made good with the next
/// pod. Blocks.
pub fn update(context: &Context, leaving: Option<&PodUid>) {
    let mut written = context.shares.0.lock().unwrap_or_else(PoisonError::into_inner);
    // Read while nobody else writes: the last to come writes what is true then.
    let pods = context.registry.active();
    let staying = pods.iter().filter(|(uid, _)| Some(uid) != leaving);
    let requests = limits::burstable_requests(staying.filter_map(|(_, pod)| pod.spec.as_ref()));
    if *written == Some(requests) {
        return;
    }
    let name = context.tree.qos(Burstable);
    // Made when the agent starts, and removed only where it leaves.
    if !context.cgroups.exists(&name) {
        return;
    }
    match context.cgroups.ensure(&name, &cgroups::values::qos(Burstable, requests)) {
        Ok(()) => *written = Some(requests),
        Err(error) => tracing::warn!(error = %describe(&error), "shares of Burstable pods not written"),
    }
}
