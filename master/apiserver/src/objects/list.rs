//! Lists: from the cache, at the present or at a revision, in pages.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Response, StatusCode};
use schema::{Kind, protobuf};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{Entry, Filter, Key, ListError, ListRequest, Page};

use super::codec::{item_offset, stored};
use super::render::View;
use crate::body::{self, Body};
use crate::conversion;
use crate::hooks::stored_resource;
use crate::problem::{Problem, Result};
use crate::request::{Format, Selector, VersionMatch};
use crate::road::Call;
use crate::server::Core;

const INCONSISTENT: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";
const TOO_OLD: &str = "The resourceVersion for the provided list is too old.";

/// Where a list goes on (`apiserver/pkg/storage.continueToken`).
#[derive(Debug, Serialize, Deserialize)]
struct Token {
    v: String,
    /// -1: at the present, whatever it is.
    rv: i64,
    /// The last key of the page before, without what all keys of the list start with.
    start: String,
}

const TOKEN_VERSION: &str = "meta.k8s.io/v1";

impl Token {
    fn new(rv: i64, start: &str) -> Self {
        Token { v: TOKEN_VERSION.into(), rv, start: start.into() }
    }

    fn parse(text: &str) -> Result<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('='));
        let token = bytes.ok().and_then(|bytes| serde_json::from_slice::<Token>(&bytes).ok());
        token
            .filter(|token| token.v == TOKEN_VERSION && !token.start.split('/').any(|part| part == ".."))
            .ok_or_else(|| Problem::bad_request("continue key is not valid: it was not made by this server"))
    }

    fn text(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }
}

/// What a list request asks of the store, taken apart.
pub(super) struct Plan {
    resource: String,
    prefix: String,
    after: Option<String>,
    pub limit: usize,
    at: Option<u64>,
    continued: Option<Token>,
}

pub(super) async fn list(core: &Core, call: &Call) -> Result<Response<Body>> {
    let mut plan = Plan::of(core, call)?;
    let selector = Selector::parse(call.kind, call.query.get("labelSelector"), call.query.get("fieldSelector"))?;
    let selects = !selector.is_empty();
    let (selector, late) = selector.split(call.kind);
    if late.is_some() {
        // How many of a page are left is not known before they are converted.
        plan.limit = 0;
    }
    let filter = selector.filter(fields_of(call.kind));
    let page = plan.page(core, call, filter.as_ref())?;
    let metadata = plan.metadata(&page, selects);
    let view = View::of(call);
    match call.accept.format {
        Format::Json if view.is_as_stored() => {
            return Ok(body::respond(StatusCode::OK, body::JSON, concatenated(call.kind, &metadata, &page.entries)));
        }
        Format::Protobuf if view.is_as_stored() => {
            let items = page.entries.iter().map(|entry| entry.json().as_ref());
            let (version, kind) = (call.kind.api_version(), call.kind.list_kind);
            return body::protobuf(StatusCode::OK, protobuf::transcode_list(&version, kind, &metadata, items));
        }
        _ => {}
    }
    let mut objects = conversion::all_shown(core, call.kind, page.entries.iter().map(|entry| entry.json())).await?;
    if let Some(late) = late {
        objects.retain(|object| late.selects(call.kind, object));
    }
    body::value(call.accept.format, StatusCode::OK, &view.list(metadata, objects))
}

/// Kinds that are stored as another kind select by their own fields.
pub(super) fn fields_of(kind: &'static Kind) -> Option<crate::request::FieldsOf> {
    if super::codec::is_own_storage(kind) {
        return None;
    }
    Some(Arc::new(move |entry: &Entry| {
        stored(kind, entry.json()).map(|object| kind.selectable_fields(&object)).unwrap_or_default()
    }))
}

impl Plan {
    pub(super) fn of(core: &Core, call: &Call) -> Result<Self> {
        let query = &call.query;
        let (version, matching) = (query.resource_version()?, query.version_match()?);
        let resource = stored_resource(call.kind);
        let prefix = Key::prefix(&resource, &call.path.namespace);
        let asked = usize::try_from(query.integer("limit")?.unwrap_or(0)).unwrap_or(0);
        let mut plan = Plan { resource, prefix, after: None, limit: asked, at: None, continued: None };
        if !query.get("continue").is_empty() {
            if version.is_some_and(|version| version != 0) {
                return Err(Problem::bad_request("specifying resource version is not allowed when using continue"));
            }
            let token = Token::parse(query.get("continue"))?;
            plan.after = Some(format!("{}{}", plan.prefix, token.start.trim_end_matches('\0')));
            plan.at = u64::try_from(token.rv).ok();
            plan.continued = Some(token);
            return Ok(plan);
        }
        let Some(version) = version else { return Ok(plan) };
        if version == 0 {
            // Upstream answers from its cache then, in one piece.
            plan.limit = 0;
            return Ok(plan);
        }
        // Without a match, a limit has always meant this very revision.
        if matching == Some(VersionMatch::Exact) || (matching.is_none() && asked > 0) {
            plan.at = Some(version);
        }
        let current = core.store.revision();
        if version > current { Err(Problem::too_large_version(version, current)) } else { Ok(plan) }
    }

    /// What the store has of it.
    pub(super) fn page(&self, core: &Core, call: &Call, filter: Option<&Filter>) -> Result<Page> {
        let request = ListRequest {
            resource: &self.resource,
            namespace: &call.path.namespace,
            after: self.after.as_deref(),
            limit: self.limit,
            at: self.at,
            filter,
        };
        core.store.list(&request).map_err(|error| self.refused(error))
    }

    pub(super) fn metadata(&self, page: &Page, selects: bool) -> Value {
        let mut metadata = json!({ "resourceVersion": page.revision.to_string() });
        if page.remaining > 0
            && let Some(last) = &page.last
        {
            let start = last.as_str().strip_prefix(&self.prefix).unwrap_or_default();
            let revision = i64::try_from(page.revision).unwrap_or(-1);
            metadata["continue"] = Token::new(revision, &format!("{start}\0")).text().into();
            if !selects {
                metadata["remainingItemCount"] = page.remaining.into();
            }
        }
        metadata
    }

    fn refused(&self, error: ListError) -> Problem {
        match (error, &self.continued) {
            (ListError::TooNew { asked, current }, _) => Problem::too_large_version(asked, current),
            (ListError::TooOld { .. }, None) => Problem::expired(TOO_OLD),
            (ListError::TooOld { .. }, Some(token)) => {
                let mut problem = Problem::expired(INCONSISTENT);
                problem.continuation = Some(Token::new(-1, &token.start).text());
                problem
            }
        }
    }
}

/// The list as its stored objects, one behind the other; items leave out their type, as upstream's do.
fn concatenated(kind: &Kind, metadata: &Value, entries: &[Arc<Entry>]) -> Vec<u8> {
    let skip = item_offset(kind);
    let size: usize = entries.iter().map(|entry| entry.json().len()).sum();
    let head = format!(
        "{{\"kind\":\"{}\",\"apiVersion\":\"{}\",\"metadata\":{metadata},\"items\":[",
        kind.list_kind,
        kind.api_version()
    );
    let mut out = Vec::with_capacity(head.len() + size + 2);
    out.extend_from_slice(head.as_bytes());
    for (index, entry) in entries.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.push(b'{');
        out.extend_from_slice(entry.json().get(skip..).unwrap_or_default());
    }
    out.extend_from_slice(b"]}");
    out
}
