//! The probers of a pod: exactly those that the plan asks for.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use pod::{Event, ProbeTarget, Role, events};
use probes::Report;

use super::Worker;
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
            let report = move |report: Report| {
                let role = events::role(&pod, &name).unwrap_or(Role::App);
                let event = match report {
                    Report::Unhealthy(text) => Event::warning("Unhealthy", &text),
                    Report::Warning(text) => Event::warning("ProbeWarning", &text),
                };
                Say::new(&context.recorder, Some(&pod)).event(event.of_container(role, &name));
            };
            self.probing.start(target, &subject, &exec, &report);
        }
    }
}
