//! The probers of a pod: exactly those that the plan asks for.

use std::borrow::Cow;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use pod::{Event, ProbeTarget, Role, events};
use probes::{Asked, Kind, Report};

use super::{Worker, pod_of};
use crate::metrics::families::{PROBE_DURATION, PROBES, forget_probes};
use crate::pods::probing::{RuntimeExec, Subject};
use crate::pods::stages::Say;

impl Worker {
    pub(super) fn probe(&mut self, pod: Option<&Arc<Pod>>, targets: &[ProbeTarget], previous: Option<&PodStatus>) {
        self.probing.keep(targets);
        let Some(pod) = pod else { return };
        let ip = self.ips().into_iter().next();
        for target in targets {
            let spec = pod.spec.as_ref().and_then(|spec| api::pod::container(spec, &target.name));
            let container = self.seen.containers.iter().find(|container| container.id == target.id);
            let (Some(spec), Some(container)) = (spec, container) else { continue };
            let resumed = !self.memory.started.contains(&target.id);
            let subject = Subject { spec: &spec, container, ip, status: previous, resumed };
            let exec = Arc::new(RuntimeExec { runtime: self.context.runtime.clone(), id: target.id.clone() });
            let (context, pod, name) = (Arc::clone(&self.context), Arc::clone(pod), target.name.clone());
            let asked = move |kind: Kind, asked: Asked| {
                count(&pod, &name, kind, &asked);
                let Some(report) = asked.report else { return };
                let role = events::role(&pod, &name).unwrap_or(Role::App);
                let event = match report {
                    Report::Unhealthy(text) => Event::warning("Unhealthy", &text),
                    Report::Warning(text) => Event::warning("ProbeWarning", &text),
                };
                Say::new(&context.recorder, Some(&pod)).event(event.of_container(role, &name));
            };
            self.probing.start(target, &subject, &exec, &asked);
        }
    }

    /// The pod is no more: nobody asks what its probes found.
    pub(super) fn forget_probes(&self) {
        let Some(pod) = pod_of(&self.inputs.desired.borrow()) else { return };
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        forget_probes(self.uid.as_str(), &text(&pod.metadata.name), &text(&pod.metadata.namespace));
    }
}

/// Of those that succeed it is counted how long they took, too; what counts neither way is not counted here either.
fn count(pod: &Pod, container: &str, kind: Kind, asked: &Asked) {
    type Label = Cow<'static, str>;
    let Some(result) = asked.result else { return };
    let text = |text: &Option<String>| Label::Owned(text.clone().unwrap_or_default());
    let (name, namespace) = (text(&pod.metadata.name), text(&pod.metadata.namespace));
    let (kind, container) = (Label::Owned(kind.to_string()), Label::Owned(container.to_owned()));
    if result == "successful" {
        let labels = [kind.clone(), container.clone(), name.clone(), namespace.clone()];
        PROBE_DURATION.observe(labels, asked.took);
    }
    PROBES.count([kind, result.into(), container, name, namespace, text(&pod.metadata.uid)]);
}
