//! Creating objects.

use std::sync::Arc;
use std::time::Duration;

use admission::{Operation, Request};
use auth::UserInfo;
use bytes::Bytes;
use http::{Response, StatusCode};
use jiff::Timestamp;
use schema::{Kind, Manager, Part};
use serde_json::Value;
use store::{CommitError, Expect, Key, Proposal, Write};

use super::delete::is_namespace;
use super::manager::manager;
use super::owners::{self, Stage};
use super::{codec, meta, render, store_failed};
use crate::body::{self, Body};
use crate::conversion;
use crate::hooks;
use crate::ip_addresses;
use crate::problem::{Problem, Result};
use crate::quota::{self, Charge};
use crate::road::Call;
use crate::server::Core;
use crate::webhooks::{self, Attributes, Wishes};

/// How often a generated name that is taken is made anew (`registry/generic/registry`, KEP-4420).
const NAME_ATTEMPTS: usize = 8;
/// `storage/names.SimpleNameGenerator`
const LONGEST_BASE: usize = 63 - admission::SUFFIX;
/// How often a namespace is looked at again that changes while an object is made in it.
const NAMESPACE_ATTEMPTS: usize = 16;
/// How often, and how far apart, a pod is tried whose namespace has no `default` ServiceAccount yet.
const EARLY_ATTEMPTS: usize = 10;
const EARLY_PAUSE: Duration = Duration::from_millis(150);

pub(super) async fn answer(core: &Arc<Core>, call: &mut Call, body: Body) -> Result<Response<Body>> {
    let dry_run = call.query.dry_run("CreateOptions")?;
    let validation = call.query.field_validation("CreateOptions")?;
    let bytes = body::read(body).await?;
    let object = codec::decode(call.kind, &call.head.headers, &bytes, validation, &mut call.warnings)?;
    if let Some(answered) =
        core.reviews.review(call.kind.plural, &call.path.namespace, &call.user, object.clone(), Timestamp::now())
    {
        return body::value(call.accept.format, StatusCode::CREATED, &answered?);
    }
    if call.kind.plural == "bindings" {
        return crate::subresources::bind_from_collection(core, call, object, dry_run).await;
    }
    let manager = Some(manager(call, "CreateOptions")?);
    let json = create(core, call, Creation { object, dry_run, manager }).await?;
    render(core, call, StatusCode::CREATED, &json).await
}

/// A decoded object that is to be stored.
pub(super) struct Creation {
    pub object: Value,
    /// Stops before the commit.
    pub dry_run: bool,
    /// Who is noted as the owner of its fields; `None` where the object says that already.
    pub manager: Option<Manager>,
}

/// Takes an object all the way into the store; the answer is what was stored.
pub(super) async fn create(core: &Arc<Core>, call: &Call, creation: Creation) -> Result<Bytes> {
    let (kind, namespace) = (call.kind, call.path.namespace.as_str());
    let Creation { mut object, dry_run, manager } = creation;
    in_namespace(kind, namespace, &mut object)?;
    meta::clear(&mut object, &["selfLink"]);
    kind.default(&mut object);
    if let Some(manager) = &manager {
        call.tell(owners::once(&mut object, Stage::AsSent).into_iter().collect());
        kind.track(None, &mut object, manager);
    }
    let generated = meta::text(&object, "name").is_empty() && !meta::text(&object, "generateName").is_empty();
    call.tell(mutate(core, call, dry_run, &mut object).await?);
    call.tell(owners::once(&mut object, Stage::AfterAdmission).into_iter().collect());
    let attempts = if generated { NAME_ATTEMPTS } else { 1 };
    for attempt in 1..=attempts {
        let mut object = if attempt == attempts { std::mem::take(&mut object) } else { object.clone() };
        if generated {
            let name = generate(meta::text(&object, "generateName"));
            meta::set(&mut object, "name", name);
        }
        let name = meta::text(&object, "name").to_owned();
        match store(core, call, (object, dry_run)).await? {
            Some(json) => return Ok(json),
            None if attempt == attempts => return Err(Problem::already_exists(kind, &name, generated)),
            None => {}
        }
    }
    Err(Problem::internal("no name could be generated"))
}

/// The namespace of the body must be the path's.
fn in_namespace(kind: &Kind, namespace: &str, object: &mut Value) -> Result<()> {
    if !kind.namespaced {
        meta::clear(object, &["namespace"]);
        return Ok(());
    }
    let said = meta::text(object, "namespace");
    if !said.is_empty() && said != namespace {
        return Err(Problem::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    meta::set(object, "namespace", namespace);
    Ok(())
}

/// Lets admission change the object; the answer is what the client must be told.
async fn mutate(core: &Core, call: &Call, dry_run: bool, object: &mut Value) -> Result<Vec<String>> {
    let (user, kind, namespace) = (call.user.as_ref(), call.kind, call.path.namespace.as_str());
    let name = meta::text(object, "name").to_owned();
    let request = request(user, kind, namespace, &name);
    for _ in 0..EARLY_ATTEMPTS {
        if !core.admission.is_too_early(&request, object) {
            break;
        }
        tokio::time::sleep(EARLY_PAUSE).await;
    }
    webhooks::mutate(core, &request, &attributes(call, &name, dry_run), object).await
}

fn attributes<'a>(call: &'a Call, name: &'a str, dry_run: bool) -> Attributes<'a> {
    Attributes {
        user: &call.user,
        operation: Operation::Create,
        kind: call.kind,
        subresource: "",
        body: None,
        namespace: namespace_in(call.kind, &call.path.namespace, name),
        name,
        old: None,
        wishes: Wishes::Query(&call.query),
        dry_run,
    }
}

/// A namespace lies in itself, as far as admission is concerned.
fn namespace_in<'a>(kind: &Kind, namespace: &'a str, name: &'a str) -> &'a str {
    if is_namespace(kind) { name } else { namespace }
}

fn request<'a>(user: &'a UserInfo, kind: &'a Kind, namespace: &'a str, name: &'a str) -> Request<'a> {
    Request {
        user,
        operation: Operation::Create,
        group: kind.group,
        resource: kind.plural,
        subresource: "",
        namespace: namespace_in(kind, namespace, name),
        name,
        old: None,
    }
}

/// Prepares, validates and commits; `None` when the name is taken.
async fn store(core: &Arc<Core>, call: &Call, (mut object, dry_run): (Value, bool)) -> Result<Option<Bytes>> {
    let (user, kind, namespace) = (call.user.as_ref(), call.kind, call.path.namespace.as_str());
    meta::clear(&mut object, &["deletionTimestamp", "deletionGracePeriodSeconds"]);
    meta::set(&mut object, "uid", auth::random_uuid());
    meta::set(&mut object, "creationTimestamp", meta::time(Timestamp::now()));
    call.tell(kind.warnings_unprepared(&object));
    kind.prepare_create(&mut object);
    name_requestor(user, kind, &mut object);
    let name = meta::text(&object, "name").to_owned();
    let errors = kind.validate_create(&object);
    if !errors.is_empty() {
        let shown = if name.is_empty() { meta::text(&object, "generateName") } else { &name };
        return Err(Problem::invalid(kind.group, kind.kind, shown, &errors));
    }
    call.tell(kind.warnings(Part::Main, &object, None));
    let mut reserved = ip_addresses::allocate(core, kind, (&mut object, None), dry_run).await?;
    let request = request(user, kind, namespace, &name);
    let needs = namespace_of(core, kind, namespace);
    core.admission.validate(&request, Some(&object))?;
    call.tell(core.admission.warnings(&request, &object));
    let asked = attributes(call, &name, dry_run);
    call.tell(webhooks::validate(core, &asked, Some(&object)).await?);
    // `storage.ErrResourceVersionSetOnCreate`: it is the storage that refuses it, which a dry run does not reach.
    let is_versioned = meta::text(&object, "resourceVersion").parse::<u64>().is_ok_and(|version| version != 0);
    if is_versioned && !dry_run {
        return Err(Problem::untold("resourceVersion should not be set on objects to be created"));
    }
    meta::clear(&mut object, &["resourceVersion"]);
    let key = hooks::key(kind, namespace, &name);
    if core.store.get(&key).is_some() {
        return Ok(None);
    }
    let write = Write { key, expect: Expect::Absent, needs, value: None };
    let due = quota::due(core, kind, namespace, true)?;
    let (core, user, namespace) = (Arc::clone(core), Arc::clone(&call.user), namespace.to_owned());
    let may_charge = !due.is_empty();
    let charged_and_committed = async move {
        let charge = Charge { kind, namespace: &namespace, object: &object, old: None, dry_run };
        let charged = quota::charge(&core, due, &charge).await?;
        let request = self::request(&user, kind, &namespace, &name);
        let committed = reserved.during(commit(&core, (kind, &request), (object, write), dry_run)).await;
        charged.unless_made(&core, committed).await
    };
    quota::whole(may_charge, charged_and_committed).await
}

/// The namespace as it is now.
fn namespace_of(core: &Core, kind: &Kind, namespace: &str) -> Option<(Key, Expect)> {
    let key = Key::new("namespaces", "", namespace);
    let entry = if kind.namespaced { core.store.get(&key) } else { None }?;
    Some((key, Expect::Revision(entry.revision)))
}

/// Commits a new object, `None` when the name is taken. Its namespace is the one that was judged: nothing comes into one that
/// has gone meanwhile, or is going, whose content nobody would delete.
async fn commit(
    core: &Core,
    (kind, request): (&'static Kind, &Request<'_>),
    (object, mut write): (Value, Write),
    dry_run: bool,
) -> Result<Option<Bytes>> {
    let object = conversion::to_storage(core, kind, object).await?;
    let value = codec::encode(&object);
    if dry_run {
        return Ok(Some(value.json));
    }
    let facets = hooks::stored_facets(kind, &object);
    write.value = Some(value);
    for _ in 0..NAMESPACE_ATTEMPTS {
        match core.store.commit(Proposal { write: write.clone(), facets: facets.clone() }).await {
            Ok(entry) => return Ok(Some(entry.json().clone())),
            Err(CommitError::Mismatch { key, .. }) if key == write.key => return Ok(None),
            Err(CommitError::Mismatch { .. }) => {}
            Err(error) => return Err(store_failed(&error)),
        }
        write.needs = namespace_of(core, kind, request.namespace);
        core.admission.validate_namespace(request)?;
    }
    Err(Problem::internal("the namespace changes all the time"))
}

/// A CertificateSigningRequest says who made it, whatever its maker says (`csrStrategy.PrepareForCreate`): approvers and
/// signers go by it.
fn name_requestor(user: &UserInfo, kind: &Kind, object: &mut Value) {
    if (kind.group, kind.plural) != ("certificates.k8s.io", "certificatesigningrequests") {
        return;
    }
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        for field in ["username", "uid", "groups", "extra"] {
            spec.remove(field);
        }
        if let Ok(Value::Object(requestor)) = serde_json::to_value(user) {
            spec.extend(requestor);
        }
    }
}

fn generate(base: &str) -> String {
    let mut end = base.len().min(LONGEST_BASE);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}", base.get(..end).unwrap_or_default(), admission::random_suffix())
}
