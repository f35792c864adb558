//! Admission webhooks: others are asked about writes, as MutatingWebhookConfigurations and ValidatingWebhookConfigurations
//! say (`apiserver/pkg/admission/plugin/webhook`); [`policies`] judge before them. They come after the plugins that this server
//! has itself.

mod client;
mod matching;
mod policies;
mod review;

use std::sync::Arc;

use admission::{Lookup as _, Operation};
use auth::{Refusal, UserInfo};
use futures::future::join_all;
use schema::{FieldValidation, Kind};
use serde_json::Value;

use crate::conversion;
use crate::hooks::CacheLookup;
use crate::problem::{Problem, Result};
use crate::server::Core;
use client::CallError;
pub(crate) use client::post;
use matching::Place;
use review::{Answer, Patch};

const GROUP: &str = "admissionregistration.k8s.io";
const MUTATING: &str = "mutatingwebhookconfigurations";
const VALIDATING: &str = "validatingwebhookconfigurations";

/// One write on its way in, as webhooks are told of it.
#[derive(Clone, Copy)]
pub(crate) struct Attributes<'a> {
    pub user: &'a UserInfo,
    pub operation: Operation,
    /// The kind of the resource in the path.
    pub kind: &'static Kind,
    pub subresource: &'a str,
    /// (group, version, kind) of the object, if that is another: Eviction, PodAttachOptions.
    pub body: Option<(&'a str, &'a str, &'a str)>,
    pub namespace: &'a str,
    pub name: &'a str,
    pub old: Option<&'a Value>,
    pub dry_run: bool,
}

impl Attributes<'_> {
    /// What rules see of the request, were it about this version of the kind.
    fn place(&self, kind: &'static Kind) -> Place<'static> {
        Place {
            operation: self.operation.as_str(),
            group: kind.group,
            version: kind.version,
            resource: kind.plural,
            subresource: self.subresource.to_owned(),
            namespaced: kind.namespaced && !self.namespace.is_empty(),
        }
    }
}

/// A webhook that is to be asked, and in which version of the kind.
struct Due {
    hook: Value,
    version: &'static Kind,
}

/// Asks the mutating webhooks one after the other; `Ok` holds what the client must be told.
pub(crate) async fn mutate(core: &Core, attributes: &Attributes<'_>, object: &mut Value) -> Result<Vec<String>> {
    let mut told = Vec::new();
    let hooks = configured(core, MUTATING, attributes);
    if hooks.is_empty() {
        return Ok(told);
    }
    let mut asked: Vec<(usize, Value)> = Vec::new();
    for (index, hook) in hooks.iter().enumerate() {
        if ask_to_mutate(core, attributes, hook, (object, &mut told)).await? {
            asked.push((index, object.clone()));
        }
    }
    // Who wishes is asked once more, if others changed the object after him (KEP-492).
    for (index, left) in asked {
        let Some(hook) = hooks.get(index).filter(|hook| hook["reinvocationPolicy"] == "IfNeeded") else { continue };
        if left != *object {
            ask_to_mutate(core, attributes, hook, (object, &mut told)).await?;
        }
    }
    Ok(told)
}

/// Whether the webhook was asked.
async fn ask_to_mutate(
    core: &Core,
    attributes: &Attributes<'_>,
    hook: &Value,
    (object, told): (&mut Value, &mut Vec<String>),
) -> Result<bool> {
    let Some(due) = due(core, attributes, hook, Some(object))? else { return Ok(false) };
    let kind = attributes.kind;
    let shown = conversion::between(core, kind, due.version, object).await?;
    let Some(answer) = ask(core, attributes, &due, Some(&shown)).await? else { return Ok(true) };
    told.extend(answer.warnings);
    let Some(patch) = answer.patch else { return Ok(true) };
    let patched = apply(&due, &patch, shown)?;
    let back = conversion::between(core, due.version, kind, &patched).await?;
    *object = if attributes.body.is_some() { back } else { taken(kind, back)? };
    Ok(true)
}

fn apply(due: &Due, patch: &Patch, mut object: Value) -> Result<Value> {
    let name = due.hook["name"].as_str().unwrap_or_default();
    json_patch::patch(&mut object, &patch.0)
        .map_err(|error| Problem::internal(&format!("failed calling webhook \"{name}\": {error}")))?;
    Ok(object)
}

/// A patched object is read as one that a client sent.
fn taken(kind: &Kind, object: Value) -> Result<Value> {
    let decoded = kind.decode_value(object, FieldValidation::Ignore);
    let mut object = decoded.map_err(|error| Problem::internal(&error.to_string()))?.value;
    kind.default(&mut object);
    Ok(object)
}

/// Asks the policies, and then all validating webhooks at once; `Ok` holds what the client must be told.
pub(crate) async fn validate(core: &Core, attributes: &Attributes<'_>, object: Option<&Value>) -> Result<Vec<String>> {
    let mut told = policies::validate(core, attributes, object)?;
    let hooks = configured(core, VALIDATING, attributes);
    let asks = hooks.iter().map(|hook| async move {
        let Some(due) = due(core, attributes, hook, object)? else { return Ok(None) };
        let shown = match object {
            Some(object) => Some(conversion::between(core, attributes.kind, due.version, object).await?),
            None => None,
        };
        ask(core, attributes, &due, shown.as_ref()).await
    });
    for answer in join_all(asks).await {
        told.extend(answer?.map(|answer| answer.warnings).unwrap_or_default());
    }
    Ok(told)
}

/// All webhooks of a sort, in the order of their configurations' names; none for the configurations themselves.
fn configured(core: &Core, sort: &str, attributes: &Attributes<'_>) -> Vec<Value> {
    if attributes.kind.group == GROUP {
        return Vec::new();
    }
    let lookup = CacheLookup(Arc::clone(&core.store));
    let configurations = lookup.list(GROUP, sort, "");
    configurations
        .into_iter()
        .flat_map(|mut configuration| match configuration["webhooks"].take() {
            Value::Array(list) => list,
            _ => Vec::new(),
        })
        .collect()
}

/// Whether the webhook is to be asked about the write.
fn due(core: &Core, attributes: &Attributes<'_>, hook: &Value, object: Option<&Value>) -> Result<Option<Due>> {
    let Some(version) = version(core, attributes, hook, "rules") else { return Ok(None) };
    if !selected(core, attributes, hook, object) {
        return Ok(None);
    }
    let conditions = review::conditions(hook, attributes, version, object);
    match conditions {
        Ok(true) => Ok(Some(Due { hook: hook.clone(), version })),
        Ok(false) => Ok(None),
        Err(_) if hook["failurePolicy"] == "Ignore" => Ok(None),
        Err(error) => {
            let name = hook["name"].as_str().unwrap_or_default();
            let why = format!("failed to evaluate match conditions of webhook \"{name}\": {error}");
            Err(Refusal::forbidden(attributes.kind.group, attributes.kind.plural, attributes.name, &why).into())
        }
    }
}

/// Whether the selectors of a webhook or policy let it judge the write.
fn selected(core: &Core, attributes: &Attributes<'_>, matches: &Value, object: Option<&Value>) -> bool {
    let lookup = CacheLookup(Arc::clone(&core.store));
    let labels = |object: &Value| object["metadata"]["labels"].clone();
    let namespace = match (attributes.kind.plural, object) {
        ("namespaces", Some(object)) if attributes.kind.group.is_empty() => Some(labels(object)),
        _ if attributes.namespace.is_empty() => None,
        _ => lookup.get("", "namespaces", "", attributes.namespace).as_ref().map(labels),
    };
    if let Some(namespace) = namespace
        && !selects(&matches["namespaceSelector"], &namespace)
    {
        return false;
    }
    let by_labels = |object: Option<&Value>| object.is_some_and(|o| selects(&matches["objectSelector"], &labels(o)));
    // What selects everything selects what has no labels at all, as the parameters of a connection.
    selects(&matches["objectSelector"], &Value::Null) || by_labels(object) || by_labels(attributes.old)
}

/// A selector that is not there selects everything.
fn selects(selector: &Value, labels: &Value) -> bool {
    selector.is_null() || schema::selects(selector, labels)
}

/// The version of the kind that a rule of the webhook is about: the request's own, or under `Equivalent` another one of the
/// same objects.
fn version(core: &Core, attributes: &Attributes<'_>, matches: &Value, rules: &str) -> Option<&'static Kind> {
    let own = attributes.kind;
    if matching::any(matches, rules, &attributes.place(own)) {
        return Some(own);
    }
    if matches["matchPolicy"] == "Exact" {
        return None;
    }
    let same =
        |kind: &&'static Kind| !std::ptr::eq(*kind, own) && !kind.plural.is_empty() && kind.storage == own.storage;
    let registry = core.kinds.registry();
    registry.kinds().filter(same).find(|kind| matching::any(matches, rules, &attributes.place(kind)))
}

/// Asks one webhook. `None` where it could not be asked and need not be.
async fn ask(core: &Core, attributes: &Attributes<'_>, due: &Due, object: Option<&Value>) -> Result<Option<Answer>> {
    let hook = &due.hook;
    let name = hook["name"].as_str().unwrap_or_default();
    if attributes.dry_run && !matches!(hook["sideEffects"].as_str(), Some("None" | "NoneOnDryRun")) {
        let why = format!("admission webhook \"{name}\" does not support dry run");
        return Err(Problem::bad_request(why));
    }
    let old = match attributes.old {
        Some(old) => Some(conversion::between(core, attributes.kind, due.version, old).await?),
        None => None,
    };
    let request = review::request(attributes, due.version, (object, old.as_ref()));
    let seconds = hook["timeoutSeconds"].as_u64().unwrap_or(10);
    let answered = client::review(core, &hook["clientConfig"], seconds, &request).await;
    let answer = answered.and_then(|answer| review::read(&answer, &request).map_err(CallError::Answer));
    match answer {
        Ok(answer) => answer.allowed(name).map(Some),
        Err(error) if hook["failurePolicy"] == "Ignore" => {
            tracing::warn!(webhook = name, %error, "webhook failed, and is ignored");
            Ok(None)
        }
        Err(error) => {
            let what = if matches!(error, CallError::Answer(_)) { "" } else { "failed to call webhook: " };
            Err(Problem::internal(&format!("failed calling webhook \"{name}\": {what}{error}")))
        }
    }
}
