//! Watches: a stream of events from the cache, as lines of JSON or as frames of protobuf.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use rand::Rng as _;
use schema::{FieldError, Kind, Registry, protobuf};
use serde_json::{Value, json};
use store::{Change, Delivery, Filter, Start, TooOld, Watch, WatchRequest};
use tokio::time::{Instant, sleep_until};

use super::list::fields_of;
use super::render::View;
use crate::body::{self, Body, BoxError};
use crate::conversion;
use crate::hooks::stored_resource;
use crate::problem::{Problem, Result};
use crate::request::{Format, Selector, VersionMatch};
use crate::road::Call;
use crate::server::Core;

const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// A watch without a timeout ends after this long, or up to twice as long (`--min-request-timeout`).
const SHORTEST: u64 = 1_800;
/// How many events may wait for a client.
const BUFFER: usize = 1_024;
/// How many bytes are put together before they are sent.
const CHUNK: usize = 64 * 1024;
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

pub(super) fn watch(core: &Arc<Core>, call: &Call) -> Result<Response<Body>> {
    let selector = Selector::parse(call.kind, call.query.get("labelSelector"), call.query.get("fieldSelector"))?;
    let (selector, late) = selector.split(call.kind);
    let filter = only(&call.path.name, selector.filter(fields_of(call.kind)));
    let bookmarks = call.query.flag("allowWatchBookmarks");
    let initial = initial_events(call, bookmarks)?;
    let version = call.query.resource_version()?;
    let start = match (initial, version) {
        (Some(true), _) | (None, None | Some(0)) => Start::State,
        (Some(false), None | Some(0)) => Start::Now,
        (_, Some(version)) => Start::After(version),
    };
    let request = WatchRequest {
        resource: stored_resource(call.kind),
        // The path of a namespace names it as one that things are in.
        namespace: if call.kind.namespaced { call.path.namespace.clone() } else { String::new() },
        start,
        filter,
        buffer: BUFFER,
    };
    let opened = match version {
        Some(version) if initial == Some(true) && version > core.store.revision() => {
            return Err(Problem::too_large_version(version, core.store.revision()));
        }
        _ => core.store.watch(request),
    };
    let format = call.accept.format;
    Ok(match opened {
        Ok(watch) => {
            let follow = Follow::new(core, call, watch, (bookmarks, initial == Some(true)))?;
            respond(Follow { late, ..follow })
        }
        // As upstream: the refusal comes as an event of a watch that was opened.
        Err(error) => body::respond(StatusCode::OK, content_type(format), too_old(format, error)),
    })
}

/// `sendInitialEvents`, with the rules of `metainternalversion/validation.ValidateListOptions`.
fn initial_events(call: &Call, bookmarks: bool) -> Result<Option<bool>> {
    let matching = call.query.version_match()?;
    let forbidden = |field: &str, why: &str| {
        let message = format!("Forbidden: {why}");
        let error = FieldError { reason: "FieldValueForbidden", field: field.into(), message };
        Problem::invalid_field("meta.k8s.io", "ListOptions", "", error)
    };
    if !call.query.has("sendInitialEvents") {
        if matching.is_some() {
            let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            return Err(forbidden("resourceVersionMatch", why));
        }
        return Ok(None);
    }
    if matching != Some(VersionMatch::NotOlderThan) {
        let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        return Err(forbidden("resourceVersionMatch", why));
    }
    let wanted = call.query.flag("sendInitialEvents");
    if wanted && !bookmarks {
        // What the end of the initial events is told by.
        let why = "sendInitialEvents requires setting allowWatchBookmarks to true";
        return Err(forbidden("allowWatchBookmarks", why));
    }
    Ok(Some(wanted))
}

/// Adds the name of a watch on one object.
fn only(name: &str, filter: Option<Filter>) -> Option<Filter> {
    if name.is_empty() {
        return filter;
    }
    let name = name.to_owned();
    Some(Arc::new(move |entry| entry.key.name() == name && filter.as_ref().is_none_or(|filter| filter(entry))))
}

/// One event; `None`, and a word in the log, when it cannot be written.
fn event(format: Format, change: &str, object: &Value) -> Option<Bytes> {
    if format != Format::Protobuf {
        return Some(format!("{{\"type\":\"{change}\",\"object\":{object}}}\n").into());
    }
    frame(change, protobuf::encode(object))
}

/// One event in protobuf.
fn frame(change: &str, body: Result<Vec<u8>, protobuf::Error>) -> Option<Bytes> {
    match body.and_then(|body| protobuf::watch_event(change, &body)) {
        Ok(frame) => Some(frame.into()),
        Err(error) => {
            tracing::error!(%error, "event cannot be encoded");
            None
        }
    }
}

fn content_type(format: Format) -> HeaderValue {
    if format == Format::Protobuf { HeaderValue::from_static(protobuf::WATCH_MEDIA_TYPE) } else { body::JSON }
}

fn too_old(format: Format, error: TooOld) -> Bytes {
    event(format, "ERROR", &Problem::expired(error.to_string()).to_value()).unwrap_or_default()
}

fn respond(follow: Follow) -> Response<Body> {
    let content_type = content_type(follow.format);
    let chunks = stream::unfold(follow, |mut follow| async move {
        let chunk = follow.next().await?;
        Some((Ok::<_, BoxError>(chunk), follow))
    });
    let mut response = Response::new(body::stream(chunks));
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// One client's watch.
struct Follow {
    core: Arc<Core>,
    watch: Watch,
    view: View,
    kinds: tokio::sync::watch::Receiver<Arc<Registry>>,
    /// The kind as its definition says it now.
    current: &'static Kind,
    /// Fields that are judged after conversion.
    late: Option<Selector>,
    format: Format,
    bookmarks: bool,
    /// How many initial events are still to come, and whether their end is told.
    initial: usize,
    tell_end: bool,
    first: bool,
    deadline: Instant,
    next_bookmark: Instant,
}

impl Follow {
    fn new(core: &Arc<Core>, call: &Call, watch: Watch, (bookmarks, tell_end): (bool, bool)) -> Result<Self> {
        let seconds = call.query.integer("timeoutSeconds")?.and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0);
        let seconds = seconds.unwrap_or_else(|| rand::rng().random_range(SHORTEST..2 * SHORTEST));
        let now = Instant::now();
        // Times beyond the clock's range are as good as the longest watch.
        let deadline = now.checked_add(Duration::from_secs(seconds)).unwrap_or(now + Duration::from_secs(2 * SHORTEST));
        let mut kinds = core.kinds.follow();
        // It may be another than the request's already.
        kinds.mark_changed();
        Ok(Follow {
            core: Arc::clone(core),
            kinds,
            current: call.kind,
            initial: watch.initial(),
            watch,
            view: View::of(call),
            late: None,
            format: call.accept.format,
            bookmarks,
            tell_end,
            first: true,
            deadline,
            next_bookmark: now + BOOKMARK_EVERY,
        })
    }

    /// The next bytes for the client; `None` ends the watch.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.tell_end && self.initial == 0 {
                self.tell_end = false;
                let annotations = json!({ INITIAL_EVENTS_END: "true" });
                let bookmark = self.view.bookmark(self.watch.revision(), Some(annotations));
                return event(self.format, "BOOKMARK", &bookmark);
            }
            // All arms are cancel-safe: a change stays queued until it is taken, kinds are remembered, and times are absolute.
            tokio::select! {
                biased;
                () = sleep_until(self.deadline) => return None,
                next = self.watch.next() => {
                    let chunk = self.batch(next.ok()?).await?;
                    // Of what a webhook has converted nothing may be for this client.
                    if !chunk.is_empty() {
                        return Some(chunk);
                    }
                }
                // Behind the changes, the last of which are those that end with a definition.
                _ = self.kinds.changed(), if self.current.custom.is_some() => {
                    if !self.is_served() {
                        return None;
                    }
                }
                () = sleep_until(self.next_bookmark), if self.bookmarks => {
                    self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
                    let revision = self.core.store.revision();
                    if self.watch.is_drained() {
                        return event(self.format, "BOOKMARK", &self.view.bookmark(revision, None));
                    }
                }
            }
        }
    }

    /// Whether the kind is what it was when the watch began: what is stored from now on may look otherwise to clients, who are to
    /// begin anew (`crdHandler.updateCustomResourceDefinition`). That its definition is about to go changes nothing.
    fn is_served(&mut self) -> bool {
        let Kind { group, version, plural, .. } = *self.current;
        let Some(now) = self.kinds.borrow_and_update().kind(group, version, plural) else { return false };
        let is_terminating = |kind: &Kind| kind.custom.is_some_and(|custom| custom.is_terminating);
        let is_same = std::ptr::eq(now, self.current) || (is_terminating(now) && !is_terminating(self.current));
        self.current = now;
        is_same
    }

    /// One change and those that wait behind it.
    async fn batch(&mut self, first: Delivery) -> Option<Bytes> {
        let frame = self.frame(&first).await?;
        if self.watch.is_drained() {
            return Some(frame);
        }
        let mut out = BytesMut::from(frame);
        while out.len() < CHUNK && !(self.tell_end && self.initial == 0) {
            let Some(delivery) = self.watch.ready() else { break };
            out.extend_from_slice(&self.frame(&delivery).await?);
        }
        Some(out.freeze())
    }

    async fn frame(&mut self, delivery: &Delivery) -> Option<Bytes> {
        self.initial = self.initial.saturating_sub(1);
        let (kind, change) = (self.view.kind, delivery.change.as_str());
        match self.format {
            Format::Protobuf if self.view.is_as_stored() => {
                let version = kind.api_version();
                return delivery.transcoded(|json| frame(change, protobuf::transcode(&version, kind.kind, json)));
            }
            Format::Json | Format::Yaml if self.view.is_as_stored() => return Some(delivery.frame()),
            _ => {}
        }
        let (change, object) = match self.seen(delivery).await.ok()? {
            Some((change, object)) => (change.as_str(), object),
            None => return Some(Bytes::new()),
        };
        let object = self.view.event(object, std::mem::take(&mut self.first));
        event(self.format, change, &object)
    }

    /// What a change is for this client; `None` where it concerns objects that it does not select.
    async fn seen(&self, delivery: &Delivery) -> Result<Option<(Change, Value)>> {
        let kind = self.view.kind;
        let as_change = |change| Delivery { change, event: Arc::clone(&delivery.event) };
        let Some(late) = &self.late else {
            return Ok(Some((delivery.change, conversion::shown(&self.core, kind, &delivery.json()).await?)));
        };
        let before = match delivery.change {
            Change::Added => None,
            _ => Some(conversion::shown(&self.core, kind, &as_change(Change::Deleted).json()).await?),
        };
        let after = match delivery.change {
            Change::Deleted => None,
            _ => Some(conversion::shown(&self.core, kind, &as_change(Change::Modified).json()).await?),
        };
        let selected = |object: Option<Value>| object.filter(|object| late.selects(kind, object));
        Ok(match (selected(before), selected(after)) {
            (None, Some(new)) => Some((Change::Added, new)),
            (Some(_), Some(new)) => Some((Change::Modified, new)),
            (Some(old), None) => Some((Change::Deleted, old)),
            (None, None) => None,
        })
    }
}
