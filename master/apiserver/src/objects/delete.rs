//! Deleting objects: options, preconditions, and what [`decide`] makes of them.

mod decide;

use std::sync::Arc;

use admission::{Operation, Request};
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use jiff::Timestamp;
use schema::{FieldError, Kind};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{CommitError, Entry, Expect, Page, Proposal, Write};

use super::list::Plan;
use super::{codec, meta, render, store_failed, success};
use crate::body::{self, Body};
use crate::conversion;
use crate::hooks;
use crate::problem::{Problem, Result};
use crate::request::{Query, Selector};
use crate::road::Call;
use crate::server::Core;
use crate::webhooks::{self, Attributes, Wishes};
use decide::{Step, decide};

pub(super) use decide::{has_namespace_finalizers, is_namespace};

const ATTEMPTS: usize = 16;
const JOB_WARNING: &str = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to \
                           remove them or set propagationPolicy=Orphan to suppress this warning";

/// `meta/v1` DeleteOptions.
#[derive(Debug, Default, Clone, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct DeleteOptions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace_period_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    propagation_policy: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    orphan_dependents: Option<bool>,
    #[serde(skip_serializing_if = "Preconditions::is_empty")]
    pub preconditions: Preconditions,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dry_run: Vec<String>,
}

#[derive(Debug, Default, Clone, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Preconditions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resource_version: Option<String>,
}

impl Preconditions {
    fn is_empty(&self) -> bool {
        self.uid.is_none() && self.resource_version.is_none()
    }
}

/// What became of the object.
pub(crate) enum Deletion {
    Gone(Arc<Entry>),
    /// It stays until its grace period is over or its finalizers are gone.
    Marked(Bytes),
}

impl DeleteOptions {
    /// From the body, or where there is none, from the query.
    fn of(headers: &HeaderMap, query: &Query, body: &Bytes) -> Result<Self> {
        let mut options = if body.is_empty() { Self::from_query(query)? } else { Self::from_body(headers, body)? };
        if query.dry_run("DeleteOptions")? {
            options.dry_run = vec!["All".into()];
        }
        let invalid = |field: &str, reason: &'static str, message: String| {
            let error = FieldError { reason, field: field.into(), message };
            Err(Problem::invalid_field("meta.k8s.io", "DeleteOptions", "", error))
        };
        // What is no dry run that we know must not be taken for a real one.
        if let Some(other) = options.dry_run.iter().find(|value| *value != "All") {
            let message = format!("Unsupported value: {other:?}: supported values: \"All\"");
            return invalid("dryRun", "FieldValueNotSupported", message);
        }
        match options.propagation_policy.as_deref() {
            Some(_) if options.orphan_dependents.is_some() => {
                let why = "Invalid value: \"\": orphanDependents and deletionPropagation cannot be both set";
                invalid("propagationPolicy", "FieldValueInvalid", why.into())
            }
            None | Some("Background" | "Foreground" | "Orphan") => Ok(options),
            Some(other) => {
                let supported = "\"Background\", \"Foreground\", \"Orphan\"";
                let message = format!("Unsupported value: {other:?}: supported values: {supported}, \"nil\"");
                invalid("propagationPolicy", "FieldValueNotSupported", message)
            }
        }
    }

    fn from_body(headers: &HeaderMap, body: &Bytes) -> Result<Self> {
        let value = codec::parse(headers, body, ("v1", "DeleteOptions"))?;
        let said = value.get("kind").and_then(Value::as_str).unwrap_or("DeleteOptions");
        if said != "DeleteOptions" {
            return Err(Problem::bad_request(format!("decoded object cannot be converted to DeleteOptions: {said}")));
        }
        let version = value.get("apiVersion").and_then(Value::as_str).unwrap_or("v1").to_owned();
        serde_json::from_value(value).map_err(|error| {
            Problem::bad_request(format!(
                "DeleteOptions in version {version:?} cannot be handled as a DeleteOptions: {error}"
            ))
        })
    }

    fn from_query(query: &Query) -> Result<Self> {
        let policy = Some(query.get("propagationPolicy")).filter(|policy| !policy.is_empty());
        Ok(DeleteOptions {
            grace_period_seconds: query.integer("gracePeriodSeconds")?,
            propagation_policy: policy.map(str::to_owned),
            orphan_dependents: query.has("orphanDependents").then(|| query.flag("orphanDependents")),
            ..Self::default()
        })
    }

    /// Says what is easily overlooked (`pkg/registry/batch/job/storage`).
    fn warn(&self, call: &Call) {
        let is_job = (call.kind.group, call.kind.plural) == ("batch", "jobs");
        if is_job && self.propagation_policy.is_none() && self.orphan_dependents.is_none() {
            call.tell(vec![JOB_WARNING.to_owned()]);
        }
    }

    /// As webhooks see them.
    pub(crate) fn shown(&self) -> Value {
        let mut options = serde_json::to_value(self).unwrap_or_default();
        options["kind"] = "DeleteOptions".into();
        options["apiVersion"] = "meta.k8s.io/v1".into();
        options
    }

    pub(crate) fn is_dry_run(&self) -> bool {
        self.dry_run.iter().any(|value| value == "All")
    }

    pub(crate) fn with_dry_run(mut self, dry_run: bool) -> Self {
        if dry_run {
            self.dry_run = vec!["All".into()];
        }
        self
    }

    /// Reads the options of an Eviction.
    pub(crate) fn from_value(value: &Value) -> Result<Self> {
        if value.is_null() {
            return Ok(Self::default());
        }
        Self::deserialize(value).map_err(|error| Problem::bad_request(format!("deleteOptions: {error}")))
    }
}

pub(super) async fn answer(core: &Core, call: &mut Call, body: Body) -> Result<Response<Body>> {
    let bytes = body::read(body).await?;
    let options = DeleteOptions::of(&call.head.headers, &call.query, &bytes)?;
    options.warn(call);
    let (namespace, name) = (&call.path.namespace, &call.path.name);
    match delete_one(core, call, (namespace, name), &options).await? {
        Deletion::Marked(json) => {
            let orphaned = options.orphan_dependents == Some(false);
            render(core, call, if orphaned { StatusCode::ACCEPTED } else { StatusCode::OK }, &json).await
        }
        Deletion::Gone(entry) if call.kind.returns_deleted_object => {
            render(core, call, StatusCode::OK, entry.json()).await
        }
        Deletion::Gone(entry) => {
            let object = codec::stored(call.kind, entry.json())?;
            success(call, &call.path.name, meta::text(&object, "uid"))
        }
    }
}

/// Deletes everything that matches, and answers with the list of it.
pub(super) async fn collection(core: &Core, call: &mut Call, body: Body) -> Result<Response<Body>> {
    let bytes = body::read(body).await?;
    let options = DeleteOptions::of(&call.head.headers, &call.query, &bytes)?;
    options.warn(call);
    let (page, metadata) = due(core, call).await?;
    let mut deleted = Vec::with_capacity(page.entries.len());
    for entry in &page.entries {
        let place = (entry.key.namespace(), entry.key.name());
        match delete_one(core, call, place, &options).await {
            Ok(_) => deleted.push(entry),
            // Somebody else was quicker.
            Err(problem) if problem.code == 404 => {}
            Err(problem) => return Err(problem),
        }
    }
    let items = conversion::all_shown(core, call.kind, deleted.into_iter().map(|entry| entry.json())).await?;
    body::value(call.accept.format, StatusCode::OK, &render::View::of(call).list(metadata, items))
}

/// What a request deletes, which may be one page of a list, and the metadata of that list.
async fn due(core: &Core, call: &Call) -> Result<(Page, Value)> {
    let mut plan = Plan::of(core, call)?;
    let selector = Selector::parse(call.kind, call.query.get("labelSelector"), call.query.get("fieldSelector"))?;
    let selects = !selector.is_empty();
    let (selector, late) = selector.split(call.kind);
    let filter = selector.filter(super::list::fields_of(call.kind));
    let Some(late) = late else {
        let page = plan.page(core, call, filter.as_ref())?;
        let metadata = plan.metadata(&page, selects);
        return Ok((page, metadata));
    };
    // How many of a page are left is not known before they are converted.
    let limit = std::mem::take(&mut plan.limit);
    let mut page = plan.page(core, call, filter.as_ref())?;
    let shown = conversion::all_shown(core, call.kind, page.entries.iter().map(|entry| entry.json())).await?;
    let mut selected = shown.iter().map(|object| late.selects(call.kind, object));
    page.entries.retain(|_| selected.next().unwrap_or_default());
    if limit > 0 && page.entries.len() > limit {
        page.remaining = page.entries.len() - limit;
        page.entries.truncate(limit);
        page.last = page.entries.last().map(|entry| entry.key.clone());
    }
    let metadata = plan.metadata(&page, selects);
    Ok((page, metadata))
}

/// Deletes one object as far as it can be at once.
pub(crate) async fn delete_one(
    core: &Core,
    call: &Call,
    (namespace, name): (&str, &str),
    options: &DeleteOptions,
) -> Result<Deletion> {
    let (user, kind) = (call.user.as_ref(), call.kind);
    let key = hooks::key(kind, namespace, name);
    for _ in 0..ATTEMPTS {
        let entry = core.store.get(&key).ok_or_else(|| Problem::not_found(kind, name))?;
        let object = conversion::shown(core, kind, entry.json()).await?;
        check(kind, name, options, &object)?;
        let request = Request {
            user,
            operation: Operation::Delete,
            group: kind.group,
            resource: kind.plural,
            subresource: "",
            namespace: if is_namespace(kind) { name } else { namespace },
            name,
            old: Some(&object),
        };
        let asked = Attributes {
            user,
            operation: Operation::Delete,
            kind,
            subresource: "",
            body: None,
            namespace: request.namespace,
            name,
            old: Some(&object),
            wishes: Wishes::Delete(options),
            dry_run: options.is_dry_run(),
        };
        call.tell(webhooks::mutate_deletion(core, &asked).await?);
        core.admission.validate(&request, None)?;
        call.tell(webhooks::validate(core, &asked, None).await?);
        let step = decide(kind, &object, options, Timestamp::now());
        let value = match step {
            Step::Wait => return Ok(Deletion::Marked(entry.json().clone())),
            Step::Remove => None,
            Step::Update(object) => Some(conversion::to_storage(core, kind, *object).await?),
        };
        if options.is_dry_run() {
            let marked = value.as_ref().map(|object| codec::encode(object).json_at(entry.revision));
            return Ok(marked.map_or(Deletion::Gone(entry), Deletion::Marked));
        }
        let facets = value.as_ref().map(|object| hooks::stored_facets(kind, object)).unwrap_or_default();
        let marked = value.is_some();
        let value = value.as_ref().map(codec::encode);
        let write = Write { key: key.clone(), expect: Expect::Revision(entry.revision), needs: None, value };
        match core.store.commit(Proposal { write, facets }).await {
            Ok(stored) if marked => return Ok(Deletion::Marked(stored.json().clone())),
            Ok(stored) => return Ok(Deletion::Gone(stored)),
            Err(CommitError::Mismatch { .. }) => {}
            Err(error) => return Err(store_failed(&error)),
        }
    }
    Err(Problem::modified(kind, name))
}

/// Whether the object is the one that is meant, as it is meant.
pub(crate) fn check(kind: &Kind, name: &str, options: &DeleteOptions, object: &Value) -> Result<()> {
    let wanted = [
        ("UID", "uid", &options.preconditions.uid),
        ("ResourceVersion", "resourceVersion", &options.preconditions.resource_version),
    ];
    for (what, field, wanted) in wanted {
        let found = meta::text(object, field);
        if let Some(wanted) = wanted.as_deref().filter(|wanted| *wanted != found) {
            let why = format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}");
            return Err(Problem::conflict(kind, name, &why));
        }
    }
    Ok(())
}
