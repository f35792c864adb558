//! The verbs of every kind.

mod codec;
mod create;
mod delete;
mod list;
mod manager;
mod meta;
mod operations;
mod owners;
mod patch;
mod render;
mod update;
mod watch;

use std::sync::Arc;

use http::{Response, StatusCode};
use schema::Part;
use store::{CommitError, Entry};

use crate::body::{self, Body};
use crate::hooks;
use crate::problem::{Problem, Result};
use crate::road::Call;
use crate::server::Core;

pub(crate) use codec::{decode, parse_stored, stored};

pub(crate) use manager::manager;

pub(crate) use delete::{DeleteOptions, check as check_preconditions, delete_one};
pub(crate) use operations::{OperationError, operate};
pub(crate) use patch::{Applier, Patch};
pub(crate) use render::render;
pub(crate) use update::{Change, commit, modify, replace, write};

/// Answers a request for objects themselves, not for a subresource.
pub(crate) async fn answer(core: &Arc<Core>, call: &mut Call, body: Body) -> Result<Response<Body>> {
    match call.verb {
        "get" => get(core, call).await,
        "list" => list::list(core, call).await,
        "watch" => watch::watch(core, call),
        "create" => create::answer(core, call, body).await,
        "update" => update::answer(core, call, body, Part::Main).await,
        "patch" => patch::answer(core, call, body, Part::Main).await,
        "delete" => delete::answer(core, call, body).await,
        "deletecollection" => delete::collection(core, call, body).await,
        _ => Err(Problem::method_not_allowed()),
    }
}

/// Answers a subresource whose body is the whole object (`status`, `ephemeralcontainers`, `finalize`, …).
pub(crate) async fn answer_part(core: &Arc<Core>, call: &mut Call, body: Body, part: Part) -> Result<Response<Body>> {
    match call.verb {
        "get" => get(core, call).await,
        "update" => update::answer(core, call, body, part).await,
        "patch" => patch::answer(core, call, body, part).await,
        _ => Err(Problem::method_not_allowed()),
    }
}

async fn get(core: &Core, call: &Call) -> Result<Response<Body>> {
    if let Some(asked) = call.query.resource_version()? {
        let current = core.store.revision();
        if asked > current {
            return Err(Problem::too_large_version(asked, current));
        }
    }
    render(core, call, StatusCode::OK, find(core, call)?.json()).await
}

/// The object that the request names.
pub(crate) fn find(core: &Core, call: &Call) -> Result<Arc<Entry>> {
    let key = hooks::key(call.kind, &call.path.namespace, &call.path.name);
    core.store.get(&key).ok_or_else(|| Problem::not_found(call.kind, &call.path.name))
}

/// Refusals of the store that are no conflict.
pub(crate) fn store_failed(error: &CommitError) -> Problem {
    tracing::error!(%error, "write failed");
    Problem::internal("the store did not take the write")
}

/// `Success` for what leaves no object to show.
pub(crate) fn success(call: &Call, name: &str, uid: &str) -> Result<Response<Body>> {
    let mut details = serde_json::json!({ "name": name, "kind": call.kind.plural });
    for (key, value) in [("group", call.kind.group), ("uid", uid)] {
        if !value.is_empty() {
            details[key] = value.into();
        }
    }
    let status = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
    });
    body::value(call.accept.format, StatusCode::OK, &status)
}
