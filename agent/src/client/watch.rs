//! List and watch of one collection, decoded into types that hold only what is used.
//!
//! The state machine is client-go's reflector: list pages, then watch from the list's resourceVersion with bookmarks;
//! a watch that ends is resumed, 410 Gone starts over, failures back off with jitter. Consumers keep what they had
//! while the server is away.

use std::marker::PhantomData;
use std::time::Duration;

use futures::TryStreamExt;
use http::Request;
use kube::core::WatchEvent;
use rand::Rng;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::api_code;
use super::backoff::Backoff;

const PAGE: u32 = 500;
/// A server must end the watch at the time we asked for; when it is silent for this much longer, it is gone.
const SILENCE: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_secs(1);

/// What is watched: a collection's path and its selectors.
#[derive(Debug, Clone)]
pub struct Collection {
    /// Such as `/api/v1/services`.
    pub path: String,
    /// Already percent-encoded query, such as `fieldSelector=spec.nodeName%3Dn1`; empty for none.
    pub query: String,
}

impl Collection {
    /// All of a collection.
    #[must_use]
    pub fn all(path: &str) -> Self {
        Self { path: path.to_owned(), query: String::new() }
    }

    fn request(&self, parameters: &str) -> Result<Request<Vec<u8>>, kube::Error> {
        let separator = if self.query.is_empty() { "" } else { "&" };
        Request::get(format!("{}?{}{separator}{parameters}", self.path, self.query))
            .body(Vec::new())
            .map_err(kube::Error::HttpError)
    }
}

/// A trimmed object knows its own resourceVersion.
pub trait Trimmed: DeserializeOwned + Clone + Send + 'static {
    /// `metadata.resourceVersion`.
    fn resource_version(&self) -> &str;
}

/// What happened to a collection.
#[derive(Debug, Clone, PartialEq)]
pub enum Change<T> {
    /// These are all objects there are.
    Replaced(Vec<T>),
    /// One was added or modified.
    Applied(T),
    /// One was deleted.
    Deleted(T),
}

#[derive(Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
struct Page<T> {
    metadata: PageMeta,
    // Go writes `null` for an empty slice in places.
    items: Option<Vec<T>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMeta {
    #[serde(default)]
    resource_version: String,
    #[serde(default, rename = "continue")]
    next: String,
}

/// Follows a collection until the receiver is dropped. The queue is bounded: a slow consumer slows the connection down,
/// and nothing piles up here.
#[must_use]
pub fn follow<T: Trimmed>(client: kube::Client, collection: Collection) -> mpsc::Receiver<Change<T>> {
    follow_map(client, collection, |item: T| item)
}

/// [`follow`] for objects that are decoded whole and trimmed by a function of the consumer's, page by page.
#[must_use]
pub fn follow_map<T, O, F>(client: kube::Client, collection: Collection, trim: F) -> mpsc::Receiver<Change<O>>
where
    T: Trimmed,
    O: Send + 'static,
    F: Fn(T) -> O + Send + Sync + 'static,
{
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        let closed = sender.clone();
        let mut watch = Watch {
            client,
            collection,
            sender,
            trim,
            version: None,
            watched: false,
            refused: false,
            backoff: Backoff::reflector(),
            decoded: PhantomData,
        };
        // Cancel-safe: closed() holds no state, and a step that is dropped ends with its request.
        tokio::select! {
            () = watch.run() => {}
            () = closed.closed() => {}
        }
    });
    receiver
}

struct Watch<T, O, F> {
    client: kube::Client,
    collection: Collection,
    sender: mpsc::Sender<Change<O>>,
    trim: F,
    /// Where to watch from; `None` when a list is due.
    version: Option<String>,
    /// Whether the last step was a watch.
    watched: bool,
    /// Whether it was said that there are no rights.
    refused: bool,
    backoff: Backoff,
    decoded: PhantomData<fn() -> T>,
}

/// The consumer is gone.
struct Closed;

enum Failure {
    Closed,
    Api(kube::Error),
}

impl From<Closed> for Failure {
    fn from(_: Closed) -> Self {
        Self::Closed
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        Self::Api(error)
    }
}

impl<T, O, F> Watch<T, O, F>
where
    T: Trimmed,
    O: Send + 'static,
    F: Fn(T) -> O + Send + Sync + 'static,
{
    async fn run(&mut self) {
        loop {
            let started = Instant::now();
            let step = match self.version.clone() {
                None => self.list().await,
                Some(version) => self.watch(version).await,
            };
            match step {
                // A server that ends every watch at once is broken in its own way: do not spin.
                Ok(()) if started.elapsed() < SHORT && self.watched => self.backoff.wait().await,
                Ok(()) => self.backoff.reset(),
                Err(Failure::Closed) => return,
                Err(Failure::Api(error)) => self.failed(&error).await,
            }
        }
    }

    async fn failed(&mut self, error: &kube::Error) {
        // 410: compacted away. 400 and 404 come from servers that do not know the resourceVersion or kind (yet).
        if matches!(api_code(error), Some(400 | 404 | 410)) {
            self.version = None;
        }
        if matches!(api_code(error), Some(401 | 403)) && !self.refused {
            // Only a change of rights helps, so somebody should know; once, as it will be tried for ever.
            tracing::warn!(path = %self.collection.path, error = %describe(error), "watch is refused, will retry");
            self.refused = true;
        }
        tracing::debug!(path = %self.collection.path, error = %describe(error), "watch failed, will retry");
        self.backoff.wait().await;
    }

    async fn list(&mut self) -> Result<(), Failure> {
        self.watched = false;
        let mut items = Vec::new();
        let mut next = String::new();
        let version = loop {
            let parameters = match next.as_str() {
                "" => format!("limit={PAGE}"),
                token => format!("limit={PAGE}&continue={}", encode(token)),
            };
            let page: Page<T> = self.client.request(self.collection.request(&parameters)?).await?;
            items.extend(page.items.unwrap_or_default().into_iter().map(&self.trim));
            if page.metadata.next.is_empty() {
                break page.metadata.resource_version;
            }
            next = page.metadata.next;
        };
        self.send(Change::Replaced(items)).await?;
        self.version = Some(version);
        Ok(())
    }

    async fn watch(&mut self, version: String) -> Result<(), Failure> {
        self.watched = true;
        // client-go: between 5 and 10 minutes, at random, so that watches do not all end together.
        let seconds = rand::rng().random_range(300..600_u64);
        let parameters =
            format!("watch=true&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={version}");
        let stream = self.client.request_events::<T>(self.collection.request(&parameters)?).await?;
        let mut stream = std::pin::pin!(stream);
        let limit = Duration::from_secs(seconds) + SILENCE;
        while let Ok(event) = tokio::time::timeout(limit, stream.try_next()).await {
            let Some(event) = event? else { return Ok(()) };
            let (item, deleted) = match event {
                WatchEvent::Added(item) | WatchEvent::Modified(item) => (item, false),
                WatchEvent::Deleted(item) => (item, true),
                WatchEvent::Bookmark(bookmark) => {
                    self.version = Some(bookmark.metadata.resource_version);
                    continue;
                }
                WatchEvent::Error(status) => return Err(Failure::Api(kube::Error::Api(status))),
            };
            let seen = item.resource_version().to_owned();
            let item = (self.trim)(item);
            self.send(if deleted { Change::Deleted(item) } else { Change::Applied(item) }).await?;
            self.version = Some(seen);
        }
        Ok(())
    }

    async fn send(&self, change: Change<O>) -> Result<(), Closed> {
        self.sender.send(change).await.map_err(|_| Closed)
    }
}

/// Percent-encodes a query value (RFC 3986, unreserved characters kept).
#[must_use]
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// An error with its causes on one line: kube's Display leaves the interesting part to `source()`.
#[must_use]
pub fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let message = inner.to_string();
        if !text.ends_with(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests;
