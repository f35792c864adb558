//! Priority: a pod's PriorityClass becomes numbers when the pod is made.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use auth::Observer;
use serde_json::{Value, json};

use crate::{Context, Operation, Plugin, Refusal, Request, text};

const GROUP: &str = "scheduling.k8s.io";
const RESOURCE: &str = "priorityclasses";
const INTERESTS: [(&str, &str); 1] = [(GROUP, RESOURCE)];
const PREEMPT: &str = "PreemptLowerPriority";
/// Classes that every cluster has (`pkg/apis/scheduling/v1/helpers.go`).
const SYSTEM: [(&str, i64); 2] = [("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

/// The PriorityClasses as they are committed.
#[derive(Debug, Default)]
pub struct PriorityClasses {
    classes: RwLock<BTreeMap<String, Class>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Class {
    name: String,
    value: i64,
    preemption_policy: String,
    is_default: bool,
}

impl PriorityClasses {
    pub fn new() -> Self {
        Self::default()
    }

    fn get(&self, name: &str) -> Option<Class> {
        let classes = self.classes.read().unwrap_or_else(PoisonError::into_inner);
        let system =
            || SYSTEM.iter().find(|(system, _)| *system == name).map(|(name, value)| Class::system(name, *value));
        classes.get(name).cloned().or_else(system)
    }

    /// The class of pods that name none; the lowest when there are several.
    fn default_class(&self) -> Option<Class> {
        let classes = self.classes.read().unwrap_or_else(PoisonError::into_inner);
        classes.values().filter(|class| class.is_default).min_by_key(|class| class.value).cloned()
    }
}

impl Class {
    fn system(name: &str, value: i64) -> Self {
        Class { name: name.to_owned(), value, preemption_policy: PREEMPT.to_owned(), is_default: false }
    }

    fn of(name: &str, object: &Value) -> Self {
        let policy = text(object, "/preemptionPolicy");
        Class {
            name: name.to_owned(),
            value: object["value"].as_i64().unwrap_or_default(),
            preemption_policy: if policy.is_empty() { PREEMPT } else { policy }.to_owned(),
            is_default: object["globalDefault"].as_bool().unwrap_or_default(),
        }
    }
}

impl Observer for PriorityClasses {
    fn interests(&self) -> &[(&'static str, &'static str)] {
        &INTERESTS
    }

    fn observe(&self, group: &str, resource: &str, _: &str, name: &str, object: Option<&Value>) {
        if (group, resource) != (GROUP, RESOURCE) {
            return;
        }
        let mut classes = self.classes.write().unwrap_or_else(PoisonError::into_inner);
        match object {
            Some(object) => classes.insert(name.to_owned(), Class::of(name, object)),
            None => classes.remove(name),
        };
    }
}

pub struct Priority;

impl Plugin for Priority {
    fn admit(&self, context: &Context, request: &Request<'_>, pod: &mut Value) -> Result<(), Refusal> {
        if !request.is("", "pods", "") {
            return Ok(());
        }
        match request.operation {
            Operation::Create => resolve(context, request, pod),
            Operation::Update => {
                keep(request, pod);
                Ok(())
            }
            Operation::Delete | Operation::Connect => Ok(()),
        }
    }

    fn validate(&self, context: &Context, request: &Request<'_>, object: Option<&Value>) -> Result<(), Refusal> {
        let Some(class) = object.filter(|_| request.is(GROUP, RESOURCE, "")) else { return Ok(()) };
        if !class["globalDefault"].as_bool().unwrap_or_default() {
            return Ok(());
        }
        let Some(default) = context.priority_classes.default_class() else { return Ok(()) };
        if request.operation == Operation::Update && default.name == request.name {
            return Ok(());
        }
        let why = format!("PriorityClass {} is already marked as default. Only one default can exist", default.name);
        Err(request.forbidden(Some(class), &why))
    }
}

fn resolve(context: &Context, request: &Request<'_>, pod: &mut Value) -> Result<(), Refusal> {
    let name = text(pod, "/spec/priorityClassName").to_owned();
    let class = if name.is_empty() {
        context.priority_classes.default_class().unwrap_or_else(|| Class::system("", 0))
    } else {
        let missing = || request.forbidden(Some(pod), &format!("no PriorityClass with name {name} was found"));
        context.priority_classes.get(&name).ok_or_else(missing)?
    };
    if let Some(given) = pod["spec"]["priority"].as_i64().filter(|given| *given != class.value) {
        let why = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {} from the given PriorityClass name",
            class.value
        );
        return Err(request.forbidden(Some(pod), &why));
    }
    let policy = text(pod, "/spec/preemptionPolicy");
    if !policy.is_empty() && policy != class.preemption_policy {
        let why = format!(
            "the string value of PreemptionPolicy ({policy}) must not be provided in pod spec; priority admission controller computed {} from the given PriorityClass name",
            class.preemption_policy
        );
        return Err(request.forbidden(Some(pod), &why));
    }
    let spec = &mut pod["spec"];
    if !class.name.is_empty() {
        spec["priorityClassName"] = json!(class.name);
    }
    spec["priority"] = json!(class.value);
    spec["preemptionPolicy"] = json!(class.preemption_policy);
    Ok(())
}

/// A client that does not know the fields must not lose them.
fn keep(request: &Request<'_>, pod: &mut Value) {
    let Some(old) = request.old else { return };
    for field in ["priority", "preemptionPolicy"] {
        if pod["spec"][field].is_null() && !old["spec"][field].is_null() {
            pod["spec"][field] = old["spec"][field].clone();
        }
    }
}

#[cfg(test)]
mod tests;
