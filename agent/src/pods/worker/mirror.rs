//! Who wants a pod, and which object its status is told to: the pod's own, or the mirror of a static pod.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ContainerState, Pod, PodStatus};
use pod::{Desired, Source};
use tokio::sync::watch;

use super::{Worker, pod_of};

/// What the API server has under the name of a static pod.
pub type Mirrors = watch::Receiver<Option<Arc<Pod>>>;

/// Who wants a pod.
#[derive(Clone)]
pub enum Origin {
    Api,
    /// A manifest of the node's own.
    Manifest(Mirror),
}

/// The mirror of a static pod, or what is in its place.
#[derive(Clone)]
pub struct Mirror {
    watched: Mirrors,
    now: Option<Arc<Pod>>,
    /// Whether a mirror of this very pod was seen.
    met: bool,
}

impl Origin {
    /// A manifest of the node's own.
    #[must_use]
    pub fn manifest(mut watched: Mirrors) -> Self {
        let now = watched.borrow_and_update().clone();
        Self::Manifest(Mirror { watched, now, met: false })
    }

    /// As the plan sees it.
    pub(super) fn source(&self) -> Source {
        match self {
            Self::Api => Source::Api,
            Self::Manifest(mirror) => Source::Static { mirror: mirror.now.clone() },
        }
    }

    /// Whether the API server has something under the name of this static pod.
    pub(super) fn has_mirror(&self) -> bool {
        matches!(self, Self::Manifest(mirror) if mirror.now.is_some())
    }

    /// Waits for a change of the mirror. Cancel-safe: what is not read stays.
    pub(super) async fn changed(&mut self) {
        let Self::Manifest(mirror) = self else { return std::future::pending().await };
        match mirror.watched.changed().await {
            Ok(()) => mirror.now.clone_from(&mirror.watched.borrow_and_update()),
            // The set of workers is about to end this one too.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Mirror {
    fn of(&self, pod: &Pod) -> Option<Arc<Pod>> {
        let hash = api::pod::annotation(pod, api::pod::HASH_ANNOTATION);
        self.now.clone().filter(|mirror| api::pod::annotation(mirror, api::pod::MIRROR_ANNOTATION) == hash)
    }
}

impl Worker {
    /// What a step has made of the mirror: the watch will say the same, later.
    pub(super) fn mirrored(&mut self, mirror: Option<Arc<Pod>>) {
        if let Origin::Manifest(known) = &mut self.inputs.origin {
            known.now = mirror;
        }
    }

    /// Sees to it that the right object is told. Answers what that was told last.
    pub(super) fn told(&mut self, desired: &Desired) -> Option<PodStatus> {
        let pod = pod_of(desired)?;
        let object = match &mut self.inputs.origin {
            Origin::Api => Some(pod),
            Origin::Manifest(mirror) => {
                let found = mirror.of(&pod);
                if found.is_some() && !std::mem::replace(&mut mirror.met, true) {
                    // An agent before this one may have told the mirror more than this one can know.
                    self.status = None;
                }
                found
            }
        };
        match (&object, desired) {
            (Some(object), Desired::Present(_)) => self.publication.seen(object),
            (None, _) => self.publication.lost(),
            (Some(_), Desired::Gone { .. }) => {}
        }
        let status = object.and_then(|object| object.status.clone())?;
        Some(if matches!(self.inputs.origin, Origin::Api) { status } else { found_in_mirror(status) })
    }
}

/// What the status of a mirror is worth to an agent that finds it. As a kubelet, it asks the runtime alone how the init containers ended,
/// and takes those that were removed to have ended well. Nor does the mirror say that the pod has ended: a machine that went down, or a
/// refusal of an earlier agent, is no reason not to run what the manifest asks for (`podWorkers.UpdatePod` asks the manifest's status).
fn found_in_mirror(mut status: PodStatus) -> PodStatus {
    let has_ended = |state: &ContainerState| state.terminated.is_some();
    if let Some(list) = &mut status.init_container_statuses {
        list.retain(|init| !init.state.as_ref().is_some_and(has_ended));
    }
    if api::pod::is_terminal_phase(status.phase.as_deref()) {
        (status.phase, status.reason, status.message) = (None, None, None);
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{ContainerStateRunning, ContainerStateTerminated, ContainerStatus};

    #[test]
    fn a_mirror_does_not_tell_how_init_containers_ended() {
        let of = |name: &str, state| ContainerStatus { name: name.into(), state: Some(state), ..Default::default() };
        let ended = ContainerState { terminated: Some(ContainerStateTerminated::default()), ..Default::default() };
        let runs = ContainerState { running: Some(ContainerStateRunning::default()), ..Default::default() };
        let told = PodStatus {
            init_container_statuses: Some(vec![of("init", ended.clone()), of("sidecar", runs)]),
            container_statuses: Some(vec![of("main", ended)]),
            ..Default::default()
        };
        let status = found_in_mirror(told.clone());
        let names: Vec<_> = status.init_container_statuses.iter().flatten().map(|init| init.name.as_str()).collect();
        assert_eq!(names, ["sidecar"]);
        assert_eq!(status.container_statuses, told.container_statuses);
    }

    #[test]
    fn a_mirror_does_not_tell_that_the_pod_has_ended() {
        let of = |phase: &str| {
            let word = |text: &str| Some(text.to_owned());
            let told = PodStatus { phase: word(phase), reason: word("r"), message: word("m"), ..Default::default() };
            let status = found_in_mirror(told);
            [status.phase, status.reason, status.message].map(Option::unwrap_or_default)
        };
        assert_eq!(of("Running"), ["Running", "r", "m"]);
        assert_eq!([of("Failed"), of("Succeeded")], [["", "", ""], ["", "", ""]]);
    }
}
