//! Changing objects: PUT, and what PATCH shares with it.

use std::sync::Arc;

use admission::{Operation, Request};
use bytes::Bytes;
use http::{Response, StatusCode};
use schema::{FieldError, Kind, Manager, Part};
use serde_json::Value;
use store::{CommitError, Entry, Expect, Facets, Key, Proposal, Write};

use super::create::{Creation, create};
use super::delete::{has_namespace_finalizers, is_namespace};
use super::manager::manager;
use super::owners::{self, Stage};
use super::{codec, find, meta, render, store_failed};
use crate::allocate::Reservation;
use crate::body::{self, Body};
use crate::conversion;
use crate::hooks;
use crate::ip_addresses;
use crate::problem::{Problem, Result};
use crate::quota::{self, Charge};
use crate::road::{Call, permit_create};
use crate::server::Core;
use crate::subresources;
use crate::webhooks::{self, Attributes, Wishes};

/// How often a change is made anew when others change the object meanwhile.
const ATTEMPTS: usize = 16;
/// What the body of `scale` is.
const SCALE: (&str, &str, &str) = ("autoscaling", "v1", "Scale");

/// One change of an object.
pub(crate) struct Change<'a> {
    pub part: Part,
    /// Makes the new object out of the stored one; called again when that changed meanwhile.
    pub make: &'a (dyn Fn(&Value) -> Result<Value> + Send + Sync),
    pub dry_run: bool,
    /// Whether the new object may be without a resourceVersion whatever its kind says: patches start from the stored one.
    pub unconditional: bool,
    /// Who is noted as the owner of what changes; `None` where `make` notes it, and where nobody is to be noted.
    pub manager: Option<Manager>,
}

pub(super) async fn answer(core: &Arc<Core>, call: &mut Call, body: Body, part: Part) -> Result<Response<Body>> {
    let dry_run = call.query.dry_run("UpdateOptions")?;
    let validation = call.query.field_validation("UpdateOptions")?;
    let bytes = body::read(body).await?;
    let mut object = codec::decode(call.kind, &call.head.headers, &bytes, validation, &mut call.warnings)?;
    named(call, &object)?;
    meta::clear(&mut object, &["selfLink"]);
    call.warnings.extend(owners::once(&mut object, Stage::AsSent));
    let manager = Some(manager(call, "UpdateOptions")?);
    if part == Part::Main && call.kind.create_on_update && find(core, call).is_err() {
        permit_create(core, call)?;
        meta::clear(&mut object, &["resourceVersion"]);
        let json = create(core, call, Creation { object, dry_run, manager }).await?;
        return render(core, call, StatusCode::CREATED, &json).await;
    }
    let unconditional = call.kind.unconditional_update;
    let make = |_: &Value| Ok(object.clone());
    let json = modify(core, call, Change { part, make: &make, dry_run, unconditional, manager }).await?;
    render(core, call, StatusCode::OK, &json).await
}

/// The body's name must be the path's.
pub(super) fn named(call: &Call, object: &Value) -> Result<()> {
    let (wanted, found) = (call.path.name.as_str(), meta::text(object, "name"));
    if found == wanted {
        return Ok(());
    }
    Err(Problem::bad_request(if found.is_empty() {
        "the name of the object (based on URL) was undeterminable: name must be provided".to_owned()
    } else {
        format!("the name of the object ({found}) does not match the name on the URL ({wanted})")
    }))
}

/// Changes one part of the object that the request names, and answers with what is stored then.
pub(crate) async fn modify(core: &Arc<Core>, call: &Call, change: Change<'_>) -> Result<Bytes> {
    for _ in 0..ATTEMPTS {
        let entry = find(core, call)?;
        let old = conversion::shown(core, call.kind, entry.json()).await?;
        let mut new = (change.make)(&old)?;
        same_object(call, &mut new, &old, change.unconditional)?;
        match attempt(core, call, &change, (entry, old, new)).await? {
            Some(json) => return Ok(json),
            None => tokio::task::yield_now().await,
        }
    }
    Err(Problem::modified(call.kind, &call.path.name))
}

/// The new object must be a version of the old one: same name, same namespace, same uid, no older revision.
fn same_object(call: &Call, new: &mut Value, old: &Value, unconditional: bool) -> Result<()> {
    let (kind, name) = (call.kind, call.path.name.as_str());
    let said = meta::text(new, "namespace");
    if kind.namespaced && !said.is_empty() && said != call.path.namespace {
        return Err(Problem::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if kind.namespaced {
        meta::set(new, "namespace", call.path.namespace.as_str());
    }
    let (uid, own) = (meta::text(new, "uid"), meta::text(old, "uid"));
    if !uid.is_empty() && uid != own {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {own}");
        return Err(Problem::conflict(kind, name, &why));
    }
    let current = meta::text(old, "resourceVersion");
    match meta::text(new, "resourceVersion") {
        "" | "0" if unconditional => meta::set(new, "resourceVersion", current),
        "" | "0" => {
            let error = FieldError {
                reason: "FieldValueInvalid",
                field: "metadata.resourceVersion".into(),
                message: "Invalid value: 0: must be specified for an update".into(),
            };
            return Err(Problem::invalid_field(kind.group, kind.kind, name, error));
        }
        same if same == current => {}
        other if other.parse::<u64>().is_err() => {
            return Err(Problem::bad_request(format!("invalid resource version: {other:?}")));
        }
        _ => return Err(Problem::modified(kind, name)),
    }
    Ok(())
}

/// Admits, prepares, validates and commits; `None` when the object changed meanwhile.
async fn attempt(
    core: &Arc<Core>,
    call: &Call,
    change: &Change<'_>,
    (entry, before, mut new): (Arc<Entry>, Value, Value),
) -> Result<Option<Bytes>> {
    let (kind, old) = (call.kind, &before);
    let request = request(call, old);
    kind.default(&mut new);
    if let Some(manager) = &change.manager {
        kind.track(Some(old), &mut new, manager);
    }
    let asked = attributes(call, old, change.dry_run);
    call.tell(match call.path.subresource.as_str() {
        "scale" => mutate_scale(core, call, (&request, &asked), &mut new).await?,
        _ => webhooks::mutate(core, &request, &asked, &mut new).await?,
    });
    call.tell(owners::once(&mut new, Stage::AfterAdmission).into_iter().collect());
    kind.prepare_update(change.part, &mut new, old);
    let errors = kind.validate_update(change.part, &new, old);
    if !errors.is_empty() {
        return Err(Problem::invalid(kind.group, kind.kind, &call.path.name, &errors));
    }
    call.tell(kind.warnings(change.part, &new, Some(old)));
    let mut reserved = match change.part {
        Part::Main => ip_addresses::allocate(core, kind, (&mut new, Some(old)), change.dry_run).await?,
        _ => Reservation::default(),
    };
    core.admission.validate(&request, Some(&new))?;
    call.tell(core.admission.warnings(&request, &new));
    ask_to_validate(core, call, asked, &new).await?;
    kind.settle(&mut new, old);
    if new == *old {
        return Ok(Some(entry.json().clone()));
    }
    let gone = is_released(kind, &new, old);
    let is_counted = matches!(change.part, Part::Main | Part::Other("resize")) && !gone;
    let due = if is_counted { quota::due(core, kind, &call.path.namespace, false)? } else { Vec::new() };
    let may_charge = !due.is_empty();
    let (core, namespace, dry_run) = (Arc::clone(core), call.path.namespace.clone(), change.dry_run);
    let charged_and_committed = async move {
        let charge = Charge { kind, namespace: &namespace, object: &new, old: Some(&before), dry_run };
        let charged = quota::charge(&core, due, &charge).await?;
        let committed = reserved.during(store(&core, kind, (&entry, new, gone), dry_run)).await;
        charged.unless_made(&core, committed).await
    };
    quota::whole(may_charge, charged_and_committed).await
}

/// Commits what was judged, or removes the object that nothing keeps; `None` when it changed meanwhile.
async fn store(
    core: &Core,
    kind: &'static Kind,
    (entry, new, gone): (&Entry, Value, bool),
    dry_run: bool,
) -> Result<Option<Bytes>> {
    let object = conversion::to_storage(core, kind, new).await?;
    let value = codec::encode(&object);
    if dry_run {
        // It is still the version that it would replace (`DryRunnableStorage.GuaranteedUpdate`).
        return Ok(Some(value.json_at(entry.revision)));
    }
    let facets = hooks::stored_facets(kind, &object);
    let last = gone.then(|| value.json.clone());
    let value = (!gone).then_some(value);
    let write = Write { key: entry.key.clone(), expect: Expect::Revision(entry.revision), needs: None, value };
    match core.store.commit(Proposal { write, facets }).await {
        Ok(stored) => Ok(Some(last.unwrap_or_else(|| stored.json().clone()))),
        Err(CommitError::Mismatch { .. }) => Ok(None),
        Err(error) => Err(store_failed(&error)),
    }
}

/// Commits a new version that the server itself made of a stored object, or removes it where nothing keeps a deleted one any
/// longer; `None` when somebody else was quicker.
pub(crate) async fn replace(
    core: &Core,
    kind: &'static Kind,
    entry: &Entry,
    object: Value,
) -> Result<Option<Arc<Entry>>> {
    let gone = is_released(kind, &object, &object);
    let object = conversion::to_storage(core, kind, object).await?;
    let facets = hooks::stored_facets(kind, &object);
    let value = (!gone).then(|| codec::encode(&object));
    let write = Write { key: entry.key.clone(), expect: Expect::Revision(entry.revision), needs: None, value };
    commit(core, write, facets).await
}

/// Commits an object that the server itself made, as it is stored; false when somebody else was quicker.
pub(crate) async fn write(
    core: &Core,
    kind: &'static Kind,
    (key, expect): (Key, Expect),
    object: &Value,
) -> Result<bool> {
    let facets = hooks::stored_facets(kind, object);
    let write = Write { key, expect, needs: None, value: Some(codec::encode(object)) };
    Ok(commit(core, write, facets).await?.is_some())
}

/// Commits a write of the server itself; `None` when somebody else was quicker.
pub(crate) async fn commit(core: &Core, write: Write, facets: Facets) -> Result<Option<Arc<Entry>>> {
    match core.store.commit(Proposal { write, facets }).await {
        Ok(entry) => Ok(Some(entry)),
        Err(CommitError::Mismatch { .. }) => Ok(None),
        Err(error) => Err(store_failed(&error)),
    }
}

fn attributes<'a>(call: &'a Call, old: &'a Value, dry_run: bool) -> Attributes<'a> {
    Attributes {
        user: &call.user,
        operation: Operation::Update,
        kind: call.kind,
        subresource: &call.path.subresource,
        body: None,
        namespace: &call.path.namespace,
        name: &call.path.name,
        old: Some(old),
        wishes: Wishes::Query(&call.query),
        dry_run,
    }
}

/// Lets admission change the Scale of a workload, and the workload by it (`scaleUpdatedObjectInfo`).
async fn mutate_scale(
    core: &Core,
    call: &Call,
    (request, asked): (&Request<'_>, &Attributes<'_>),
    workload: &mut Value,
) -> Result<Vec<String>> {
    let old = asked.old.map(|old| schema::scale::of(call.kind, old));
    let asked = Attributes { body: Some(SCALE), old: old.as_ref(), ..*asked };
    let request = Request { old: old.as_ref(), ..*request };
    let before = schema::scale::of(call.kind, workload);
    let mut scale = before.clone();
    let told = webhooks::mutate(core, &request, &asked, &mut scale).await?;
    if scale != before {
        *workload = subresources::scaled(call, workload, &scale)?;
    }
    Ok(told)
}

/// Of a change through `scale`, webhooks see the Scale.
async fn ask_to_validate(core: &Core, call: &Call, asked: Attributes<'_>, new: &Value) -> Result<()> {
    let told = if call.path.subresource == "scale" {
        let old = asked.old.map(|old| schema::scale::of(call.kind, old));
        let asked = Attributes { body: Some(SCALE), old: old.as_ref(), ..asked };
        webhooks::validate(core, &asked, Some(&schema::scale::of(call.kind, new))).await?
    } else {
        webhooks::validate(core, &asked, Some(new)).await?
    };
    call.tell(told);
    Ok(())
}

fn request<'a>(call: &'a Call, old: &'a Value) -> Request<'a> {
    Request {
        user: &call.user,
        operation: Operation::Update,
        group: call.kind.group,
        resource: call.kind.plural,
        subresource: &call.path.subresource,
        namespace: &call.path.namespace,
        name: &call.path.name,
        old: Some(old),
    }
}

/// Whether this change takes away the last thing that kept a deleted object
/// (`registry/generic/registry.ShouldDeleteDuringUpdate`).
fn is_released(kind: &Kind, new: &Value, old: &Value) -> bool {
    let kept = !meta::finalizers(new).is_empty() || (is_namespace(kind) && has_namespace_finalizers(new));
    let grace = meta::integer(new, "deletionGracePeriodSeconds").unwrap_or(0);
    !kept && meta::is_deleting(old) && grace == 0
}
