//! Events with upstream's reasons and sentences (`pkg/kubelet/events`): of a situation, and of steps.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodCondition, PodSpec, PodStatus, ResourceRequirements};
use serde::Serialize;

use crate::plan::{Event, EventKind, Role, Step};
use crate::status::{IN_PROGRESS, PENDING};
use crate::view::Member;
use crate::world::{ContainerState, Failure};

impl Event {
    /// A normal event about the pod.
    #[must_use]
    pub fn normal(reason: &str, message: &str) -> Self {
        Self {
            kind: EventKind::Normal,
            reason: reason.to_owned(),
            message: message.to_owned(),
            field_path: None,
            annotations: BTreeMap::new(),
        }
    }

    /// A warning about the pod.
    #[must_use]
    pub fn warning(reason: &str, message: &str) -> Self {
        Self { kind: EventKind::Warning, ..Self::normal(reason, message) }
    }

    /// The same event with facts for machines.
    #[must_use]
    pub fn annotated(mut self, annotations: &BTreeMap<String, String>) -> Self {
        self.annotations.clone_from(annotations);
        self
    }

    /// The same event about one of the pod's containers.
    #[must_use]
    pub fn of_container(mut self, role: Role, name: &str) -> Self {
        self.field_path = Some(field_path(role, name));
        self
    }

    pub(crate) fn back_off(pod: &Pod, role: Role, name: &str) -> Self {
        let message = format!("Back-off restarting failed container {name} in pod {}", api::pod::full_name(pod));
        Self::warning("BackOff", &message).of_container(role, name)
    }

    /// The image manager's word, and what becomes of the container (`startContainer`).
    pub(crate) fn image_back_off(member: &Member<'_>) -> [Self; 2] {
        let image = member.spec.image.as_deref().unwrap_or_default();
        let waits = Self::normal("BackOff", &format!("Back-off pulling image \"{image}\""));
        let fails = Self::warning("Failed", "Error: ImagePullBackOff");
        [waits, fails].map(|event| event.of_container(member.role, &member.spec.name))
    }
}

/// `involvedObject.fieldPath` of a container.
#[must_use]
pub fn field_path(role: Role, name: &str) -> String {
    let list = match role {
        Role::Init | Role::Sidecar => "initContainers",
        Role::App => "containers",
        Role::Ephemeral => "ephemeralContainers",
    };
    format!("spec.{list}{{{name}}}")
}

/// The part of the container of a name in a pod.
#[must_use]
pub fn role(pod: &Pod, name: &str) -> Option<Role> {
    let spec = pod.spec.as_ref()?;
    let init = spec.init_containers.iter().flatten().find(|container| container.name == name);
    if let Some(container) = init {
        return Some(if api::resources::is_sidecar(container) { Role::Sidecar } else { Role::Init });
    }
    let is_app = spec.containers.iter().any(|container| container.name == name);
    let is_ephemeral = || spec.ephemeral_containers.iter().flatten().any(|container| container.name == name);
    if is_app { Some(Role::App) } else { is_ephemeral().then_some(Role::Ephemeral) }
}

/// What to record before a step is executed.
#[must_use]
pub fn begun(pod: &Pod, step: &Step) -> Option<Event> {
    let Step::KillContainer(kill) = step else { return None };
    let event = Event::normal("Killing", &kill.message);
    Some(match role(pod, &kill.name) {
        Some(role) => event.of_container(role, &kill.name),
        None => event,
    })
}

/// What to record after a container was created, and after it was started.
#[must_use]
pub fn started(role: Role, name: &str, state: &ContainerState) -> Option<Event> {
    match state {
        ContainerState::Created => Some(Event::normal("Created", "Container created").of_container(role, name)),
        ContainerState::Running => Some(Event::normal("Started", "Container started").of_container(role, name)),
        ContainerState::Exited { .. } | ContainerState::Unknown => None,
    }
}

/// What to record after a step failed.
#[must_use]
pub fn failed(pod: &Pod, step: &Step, failure: &Failure) -> Option<Event> {
    let message = &failure.message;
    match step {
        Step::RunSandbox { .. } => {
            Some(Event::warning("FailedCreatePodSandBox", &format!("Failed to create pod sandbox: {message}")))
        }
        Step::StopSandbox { .. } => Some(Event::warning("FailedKillPod", &format!("error killing pod: {message}"))),
        Step::PrepareVolumes => Some(Event::warning("FailedMount", message)),
        Step::CreateCgroup => Some(Event::warning("FailedCreatePodContainer", message)),
        Step::StartContainer(start) => {
            let text = match failure.reason.as_str() {
                "PostStartHookError" => {
                    return Some(Event::warning("FailedPostStartHook", message).of_container(start.role, &start.name));
                }
                // What is wrong with an image was told by whoever looked for it.
                reason if is_about_image(reason) => format!("Error: {reason}"),
                _ => format!("Error: {message}"),
            };
            Some(Event::warning("Failed", &text).of_container(start.role, &start.name))
        }
        Step::KillContainer(kill) => {
            let event = Event::warning("FailedKillPod", &format!("error killing pod: {message}"));
            Some(role(pod, &kill.name).map_or(event.clone(), |role| event.of_container(role, &kill.name)))
        }
        _ => None,
    }
}

/// What there is to say when the status before becomes the one after: how far a resize has come. `asked` is the pod as it
/// is wanted, `given` the same with the resources that it has.
#[must_use]
pub fn resize(before: Option<&PodStatus>, after: &PodStatus, asked: &Pod, given: &Pod) -> Vec<Event> {
    let condition = |status: Option<&PodStatus>, name: &str| {
        api::conditions::get(status?.conditions.as_deref().unwrap_or_default(), name).cloned()
    };
    let (pending, was_pending) = (condition(Some(after), PENDING), condition(before, PENDING));
    let (now, was) = (condition(Some(after), IN_PROGRESS), condition(before, IN_PROGRESS));
    let mut events = Vec::new();
    if let Some(now) = &pending {
        let key = |condition: &PodCondition| (condition.reason.clone(), condition.observed_generation);
        if was_pending.as_ref().map(key) != Some(key(now)) {
            let reason = now.reason.as_deref().unwrap_or_default();
            let text = summary(asked, now.observed_generation, now.message.as_deref());
            events.push(Event::warning(&format!("Resize{reason}"), &format!("Pod resize {reason}: {text}")));
        }
    }
    let generation = |condition: &Option<PodCondition>| condition.as_ref().and_then(|c| c.observed_generation);
    match (&was, &now) {
        (was, Some(now)) if was.is_none() || generation(was) != now.observed_generation => {
            let text = summary(given, now.observed_generation, None);
            events.push(Event::normal("ResizeStarted", &format!("Pod resize started: {text}")));
        }
        (Some(was), None) if !api::pod::is_terminal_phase(after.phase.as_deref()) => {
            let text = summary(given, was.observed_generation, None);
            events.push(Event::normal("ResizeCompleted", &format!("Pod resize completed: {text}")));
        }
        _ => {}
    }
    let error = |condition: &Option<PodCondition>| condition.as_ref().and_then(|c| c.message.clone());
    if let Some(message) = error(&now).filter(|message| error(&was).as_ref() != Some(message)) {
        let text = summary(given, generation(&now), Some(&message));
        events.push(Event::warning("ResizeError", &format!("Pod resize error: {text}")));
    }
    events
}

/// The resources of a pod's containers, as the kubelet puts them into these events.
fn summary(pod: &Pod, generation: Option<i64>, error: Option<&str>) -> String {
    let listed = |containers: &[Container]| {
        let given = |container: &Container| Given {
            name: container.name.clone(),
            resources: container.resources.clone().unwrap_or_default(),
        };
        containers.iter().map(given).collect()
    };
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let summary = Summary {
        init_containers: listed(spec.init_containers.as_deref().unwrap_or_default()),
        containers: listed(&spec.containers),
        generation: generation.unwrap_or(0),
        error,
    };
    serde_json::to_string(&summary).unwrap_or_default()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    init_containers: Vec<Given>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    containers: Vec<Given>,
    generation: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct Given {
    name: String,
    resources: ResourceRequirements,
}

/// Reasons of `pkg/kubelet/images`.
fn is_about_image(reason: &str) -> bool {
    matches!(
        reason,
        "ErrImagePull"
            | "ErrImageNeverPull"
            | "ImageInspectError"
            | "InvalidImageName"
            | "RegistryUnavailable"
            | "SignatureValidationFailed"
    )
}
