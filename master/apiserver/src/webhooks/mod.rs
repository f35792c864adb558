//! Admission by others than this server's plugins: policies and webhooks. They are asked about writes, as
//! MutatingWebhookConfigurations, ValidatingWebhookConfigurations and the bindings of policies say
//! (`apiserver/pkg/admission/plugin/{webhook,policy}`). All that may change an object comes before all that may only refuse it.

mod authorizer;
mod client;
mod configured;
mod matching;
mod policies;
mod reinvocation;
mod review;

use std::sync::Arc;

use admission::{Lookup as _, Operation, Request};
use auth::{Refusal, UserInfo};
use futures::future::join_all;
use schema::{FieldValidation, Kind};
use serde_json::Value;

use crate::conversion;
use crate::hooks::CacheLookup;
use crate::objects::{DeleteOptions, operate};
use crate::problem::{Problem, Result};
use crate::request::Query;
use crate::server::Core;
use client::CallError;
pub(crate) use client::post;
pub(crate) use configured::Configured;
use configured::Hook;
use matching::Place;
use reinvocation::Reinvocation;
use review::{Answer, Patch};

const GROUP: &str = "admissionregistration.k8s.io";
const MUTATING: &str = "mutatingwebhookconfigurations";
const VALIDATING: &str = "validatingwebhookconfigurations";

/// What the client wishes beside the object.
#[derive(Clone, Copy)]
pub(crate) enum Wishes<'a> {
    /// Of a create or update they are in the query. A patch is told of as what is done for it.
    Query(&'a Query),
    Delete(&'a DeleteOptions),
    /// A connection's are its object.
    Connect,
}

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
    pub wishes: Wishes<'a>,
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
            name: self.name.to_owned(),
        }
    }

    /// An object of one version as another shows it; what is of another kind than the resource is the same in all of them.
    async fn between(&self, core: &Core, from: &'static Kind, to: &'static Kind, object: &Value) -> Result<Value> {
        match self.body {
            Some(_) => Ok(object.clone()),
            None => conversion::between(core, from, to, object).await,
        }
    }

    /// `admission.NewForbidden`
    fn forbidden(&self, object: Option<&Value>, why: &str) -> Problem {
        let named = object.and_then(|object| object["metadata"]["name"].as_str()).unwrap_or_default();
        let name = if self.name.is_empty() { named } else { self.name };
        Refusal::forbidden(self.kind.group, self.kind.plural, name, why).into()
    }
}

/// The object in another version of its kind.
fn in_version(kind: &'static Kind, version: &'static Kind, object: &Value) -> Value {
    if std::ptr::eq(kind, version) { object.clone() } else { version.from_storage(kind.to_storage(object.clone())) }
}

/// A webhook that is to be asked, and in which version of the kind.
struct Due<'a> {
    hook: &'a Hook,
    version: &'static Kind,
}

/// Lets all change an object that may: the plugins of this server, policies, webhooks. If one of the latter did, all plugins
/// see it once more, and those of the latter who wish (KEP-492). `Ok` holds what the client must be told.
pub(crate) async fn mutate(
    core: &Core,
    request: &Request<'_>,
    attributes: &Attributes<'_>,
    object: &mut Value,
) -> Result<Vec<String>> {
    let mut told = Vec::new();
    let (mut by_policies, mut by_hooks) = (Reinvocation::default(), Reinvocation::default());
    core.admission.admit(request, object)?;
    if !is_anybody_asked(core, attributes) {
        return Ok(told);
    }
    let before = object.clone();
    policies::mutate(core, attributes, &mut by_policies, object)?;
    by_policies.done(object);
    ask_to_mutate(core, attributes, &mut by_hooks, (object, &mut told)).await?;
    by_hooks.done(object);
    if before != *object {
        core.admission.admit(request, object)?;
        by_policies.again(object);
        policies::mutate(core, attributes, &mut by_policies, object)?;
        by_hooks.again(object);
        ask_to_mutate(core, attributes, &mut by_hooks, (object, &mut told)).await?;
    }
    Ok(told)
}

fn is_anybody_asked(core: &Core, attributes: &Attributes<'_>) -> bool {
    attributes.kind.group != GROUP
        && [MUTATING, policies::MUTATING.bindings].iter().any(|sort| core.configured.any(sort))
}

/// Asks the mutating webhooks about a deletion, which they may refuse; there is nothing that they could change.
pub(crate) async fn mutate_deletion(core: &Core, attributes: &Attributes<'_>) -> Result<Vec<String>> {
    let mut told = Vec::new();
    for hook in configured(core, MUTATING, attributes) {
        let Some(due) = due(core, attributes, &hook, None)? else { continue };
        let Some(answer) = ask(core, attributes, &due, None).await? else { continue };
        told.extend(answer.warnings);
        if answer.patch.is_some() && hook.said()["failurePolicy"] != "Ignore" {
            let name = hook.name();
            let why = format!(
                "admission webhook \"{name}\" attempted to modify the object, which is not supported for this operation"
            );
            return Err(Problem::internal(&why));
        }
    }
    Ok(told)
}

/// Asks the mutating webhooks one after the other.
async fn ask_to_mutate(
    core: &Core,
    attributes: &Attributes<'_>,
    round: &mut Reinvocation,
    (object, told): (&mut Value, &mut Vec<String>),
) -> Result<()> {
    for hook in configured(core, MUTATING, attributes) {
        let key = hook.key();
        if !round.is_due(&key) {
            continue;
        }
        let Some(due) = due(core, attributes, &hook, Some(object))? else { continue };
        let shown = attributes.between(core, attributes.kind, due.version, object).await?;
        let answer = ask(core, attributes, &due, Some(&shown)).await?;
        let (warnings, patch) = answer.map(|answer| (answer.warnings, answer.patch)).unwrap_or_default();
        told.extend(warnings);
        let before = object.clone();
        if let Some(patch) = patch {
            let patched = apply(&due, &patch, shown)?;
            let back = attributes.between(core, due.version, attributes.kind, &patched).await?;
            *object = if attributes.body.is_some() { back } else { taken(attributes.kind, back)? };
        }
        round.asked(key, *object != before, hook.said()["reinvocationPolicy"] == "IfNeeded");
    }
    Ok(())
}

fn apply(due: &Due<'_>, patch: &Patch, mut object: Value) -> Result<Value> {
    let name = due.hook.name();
    operate(&mut object, &patch.0)
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
    policies::are_readable(core, attributes, object)?;
    let mut told = policies::validate(core, attributes, object)?;
    let hooks = configured(core, VALIDATING, attributes);
    let asks = hooks.iter().map(|hook| async move {
        let Some(due) = due(core, attributes, hook, object)? else { return Ok(None) };
        let shown = match object {
            Some(object) => Some(attributes.between(core, attributes.kind, due.version, object).await?),
            None => None,
        };
        ask(core, attributes, &due, shown.as_ref()).await
    });
    for answer in join_all(asks).await {
        told.extend(answer?.map(|answer| answer.warnings).unwrap_or_default());
    }
    Ok(told)
}

/// All webhooks of a sort; none for the configurations of admission themselves, which nobody may keep from being changed
/// (`IsExemptAdmissionConfigurationResource`).
fn configured(core: &Core, sort: &str, attributes: &Attributes<'_>) -> Vec<Hook> {
    if attributes.kind.group == GROUP { Vec::new() } else { core.configured.hooks(sort) }
}

/// Whether the webhook is to be asked about the write.
fn due<'a>(
    core: &Core,
    attributes: &Attributes<'_>,
    hook: &'a Hook,
    object: Option<&Value>,
) -> Result<Option<Due<'a>>> {
    let Some(version) = version(core, attributes, hook.said(), "rules") else { return Ok(None) };
    if !selected(core, attributes, hook.said(), object) {
        return Ok(None);
    }
    let conditions = review::conditions(core, hook, (attributes, version), object);
    match conditions {
        Ok(true) => Ok(Some(Due { hook, version })),
        Ok(false) => Ok(None),
        Err(_) if hook.said()["failurePolicy"] == "Ignore" => Ok(None),
        Err(error) => {
            let name = hook.name();
            let why = format!("failed to evaluate match conditions of webhook \"{name}\": {error}");
            Err(attributes.forbidden(object, &why))
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
async fn ask(
    core: &Core,
    attributes: &Attributes<'_>,
    due: &Due<'_>,
    object: Option<&Value>,
) -> Result<Option<Answer>> {
    let (hook, name) = (due.hook.said(), due.hook.name());
    if attributes.dry_run && !matches!(hook["sideEffects"].as_str(), Some("None" | "NoneOnDryRun")) {
        let why = format!("admission webhook \"{name}\" does not support dry run");
        return Err(Problem::bad_request(why));
    }
    let old = match attributes.old {
        Some(old) => Some(attributes.between(core, attributes.kind, due.version, old).await?),
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
