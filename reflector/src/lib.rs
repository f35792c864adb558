//! List and watch of one collection.
//!
//! The state machine is client-go's reflector: list pages, then watch from the list's resourceVersion with bookmarks; a watch that
//! ends is resumed, 410 Gone starts over, failures back off with jitter. Who follows keeps what it had while the server is away.
//! The machine handles text: what is made once for each type is only the reading of an object.

mod backoff;
mod line;

use std::pin::Pin;
use std::time::Duration;

use futures::{AsyncBufRead, AsyncBufReadExt as _};
use http::{HeaderValue, Request, header};
use kube::core::ObjectMeta;
use rand::Rng as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout};

pub use backoff::Backoff;
use line::Line;

const PAGE: u32 = 500;
/// A server must end the watch at the time we asked for; when it is silent for this much longer, it is gone.
const SILENCE: Duration = Duration::from_secs(30);
/// A server that ends every watch at once is broken in its own way: it is not asked in a loop.
const SHORT: Duration = Duration::from_secs(1);

/// What is watched: a collection's path and its selectors.
#[derive(Debug, Clone)]
pub struct Collection {
    path: String,
    /// Already percent-encoded, such as `fieldSelector=spec.nodeName%3Dn1`; empty for none.
    query: String,
}

impl Collection {
    /// All of a collection, such as `/api/v1/services`.
    #[must_use]
    pub fn all(path: &str) -> Self {
        Self { path: path.to_owned(), query: String::new() }
    }

    /// All objects of a kind, or those of one namespace.
    #[must_use]
    pub fn of<K: kube::Resource<DynamicType = ()>>(namespace: Option<&str>) -> Self {
        Self::all(&K::url_path(&(), namespace))
    }

    /// Of these only those that a field selector selects.
    #[must_use]
    pub fn fields(self, selector: &str) -> Self {
        self.and("fieldSelector", selector)
    }

    /// Of these only those that a label selector selects.
    #[must_use]
    pub fn labels(self, selector: &str) -> Self {
        self.and("labelSelector", selector)
    }

    fn and(mut self, parameter: &str, value: &str) -> Self {
        let separator = if self.query.is_empty() { "" } else { "&" };
        self.query.push_str(&format!("{separator}{parameter}={}", encode(value)));
        self
    }

    fn request(&self, parameters: &str, accept: Option<&'static str>) -> Result<Request<Vec<u8>>, kube::Error> {
        let separator = if self.query.is_empty() { "" } else { "&" };
        let mut request = Request::get(format!("{}?{}{separator}{parameters}", self.path, self.query));
        if let Some(accept) = accept {
            request = request.header(header::ACCEPT, HeaderValue::from_static(accept));
        }
        request.body(Vec::new()).map_err(kube::Error::HttpError)
    }
}

/// What is told of a collection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told<T> {
    /// A part of all there is. What was on no page from the first to the last is gone.
    Page {
        /// The objects.
        items: Vec<T>,
        /// Whether a list begins.
        is_first: bool,
        /// Whether it is at its end.
        is_last: bool,
    },
    /// One was added or modified.
    Applied(T),
    /// One was deleted.
    Deleted(T),
}

impl Told<Box<RawValue>> {
    fn read<T: DeserializeOwned>(&self) -> Result<Told<T>, serde_json::Error> {
        let read = |object: &RawValue| serde_json::from_str(object.get());
        Ok(match self {
            Self::Page { items, is_first, is_last } => {
                let items = items.iter().map(|item| read(item)).collect::<Result<_, _>>()?;
                Told::Page { items, is_first: *is_first, is_last: *is_last }
            }
            Self::Applied(object) => Told::Applied(read(object)?),
            Self::Deleted(object) => Told::Deleted(read(object)?),
        })
    }
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: PageMeta,
    // Go writes `null` for an empty slice in places.
    items: Option<Vec<Box<RawValue>>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PageMeta {
    resource_version: Option<String>,
    #[serde(rename = "continue")]
    next: Option<String>,
}

/// What [`Reflector::of_metadata`] tells of an object.
#[derive(Debug, Deserialize)]
pub struct Metadata {
    /// Its metadata.
    pub metadata: ObjectMeta,
}

/// What is asked for, where it is not whole objects.
#[derive(Debug, Clone, Copy)]
struct Accepted {
    list: &'static str,
    watch: &'static str,
}

/// Servers that cannot give less give whole objects.
const METADATA: Accepted = Accepted {
    list: "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json",
    watch: "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json",
};

/// Follows a collection for as long as it is asked for what is [next](Self::next).
pub struct Reflector {
    client: kube::Client,
    collection: Collection,
    accepted: Option<Accepted>,
    place: Place,
    /// Whether it was said that somebody's help is needed.
    warned: bool,
    backoff: Backoff,
}

/// Where it is.
enum Place {
    /// A page is due: the first, or the one after.
    Listing {
        after: String,
    },
    /// A watch is due.
    Listed {
        version: String,
    },
    Watching(Watching),
}

const START: Place = Place::Listing { after: String::new() };

struct Watching {
    lines: Pin<Box<dyn AsyncBufRead + Send>>,
    /// The last that was told.
    version: String,
    begun: Instant,
    /// How long a server may be silent.
    limit: Duration,
}

impl Watching {
    /// The next line, `None` at the end. A connection that breaks is an end: the next watch goes on from where this one was.
    async fn line(&mut self) -> Option<Vec<u8>> {
        let mut line = Vec::new();
        let read = timeout(self.limit, self.lines.read_until(b'\n', &mut line)).await;
        (matches!(read, Ok(Ok(_))) && line.pop() == Some(b'\n')).then_some(line)
    }
}

impl Reflector {
    /// Follows `collection`.
    #[must_use]
    pub fn new(client: kube::Client, collection: Collection) -> Self {
        Self { client, collection, accepted: None, place: START, warned: false, backoff: Backoff::reflector() }
    }

    /// Follows the metadata of its objects only: what is [next](Self::next) are [`Metadata`].
    #[must_use]
    pub fn of_metadata(client: kube::Client, collection: Collection) -> Self {
        Self { accepted: Some(METADATA), ..Self::new(client, collection) }
    }

    /// What happens next. A failure is waited out, and what cannot be read is listed again: nothing of it may be taken to be gone.
    /// Not cancel-safe: a line that was half read is lost, and the pause after a failure.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Told<T> {
        loop {
            match self.told().await.read() {
                Ok(told) => return told,
                Err(error) => self.failed(&kube::Error::SerdeError(error)).await,
            }
        }
    }

    async fn told(&mut self) -> Told<Box<RawValue>> {
        loop {
            match self.step().await {
                Ok(Some(told)) => return told,
                Ok(None) => {}
                Err(error) => self.failed(&error).await,
            }
        }
    }

    async fn step(&mut self) -> Result<Option<Told<Box<RawValue>>>, kube::Error> {
        match &mut self.place {
            Place::Listing { after } => {
                let after = after.clone();
                self.page(&after).await.map(Some)
            }
            Place::Listed { version } => {
                let version = version.clone();
                self.place = Place::Watching(self.watch(version).await?);
                Ok(None)
            }
            Place::Watching(watching) => match watching.line().await {
                Some(line) if line.trim_ascii().is_empty() => Ok(None),
                Some(line) => Line::read(&line)?.told(&mut watching.version),
                None => {
                    if !self.end() {
                        self.backoff.wait().await;
                    }
                    Ok(None)
                }
            },
        }
    }

    async fn page(&mut self, after: &str) -> Result<Told<Box<RawValue>>, kube::Error> {
        let parameters = match after {
            "" => format!("limit={PAGE}"),
            token => format!("limit={PAGE}&continue={}", encode(token)),
        };
        let request = self.collection.request(&parameters, self.accepted.map(|accepted| accepted.list))?;
        // Not `Client::request`, which logs what it cannot read: it may be Secrets.
        let text = self.client.request_text(request).await?;
        let Page { metadata, items } = serde_json::from_str(&text).map_err(kube::Error::SerdeError)?;
        let next = metadata.next.filter(|next| !next.is_empty());
        let is_last = next.is_none();
        self.place = match next {
            Some(after) => Place::Listing { after },
            None => Place::Listed { version: line::known(metadata.resource_version)? },
        };
        Ok(Told::Page { items: items.unwrap_or_default(), is_first: after.is_empty(), is_last })
    }

    async fn watch(&mut self, version: String) -> Result<Watching, kube::Error> {
        // client-go: between 5 and 10 minutes, at random, so that watches do not all end together.
        let seconds = rand::rng().random_range(300..600_u64);
        let parameters =
            format!("watch=true&allowWatchBookmarks=true&timeoutSeconds={seconds}&resourceVersion={version}");
        let begun = Instant::now();
        let mut request = self.collection.request(&parameters, self.accepted.map(|accepted| accepted.watch))?;
        // Servers of 1.37 would compress each line by itself, which kube's decompression does not know.
        request.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let lines = Box::pin(self.client.request_stream(request).await?);
        Ok(Watching { lines, version, begun, limit: Duration::from_secs(seconds) + SILENCE })
    }

    /// Ends a watch; the next one goes on from where it was. Whether it was one that lasted.
    fn end(&mut self) -> bool {
        let Place::Watching(watching) = &mut self.place else { return false };
        let has_lasted = watching.begun.elapsed() >= SHORT;
        self.place = Place::Listed { version: std::mem::take(&mut watching.version) };
        if has_lasted {
            self.backoff.reset();
        }
        has_lasted
    }

    async fn failed(&mut self, error: &kube::Error) {
        self.end();
        let code = if let kube::Error::Api(status) = error { status.code } else { 0 };
        let is_unread = matches!(error, kube::Error::SerdeError(_));
        // 410: compacted away. 400 and 404 come from servers that do not know the resourceVersion or kind (yet). What could not be read
        // would be told again by the same watch.
        if matches!(code, 400 | 404 | 410) || is_unread {
            self.place = START;
        }
        let path = &self.collection.path;
        if (matches!(code, 401 | 403) || is_unread) && !self.warned {
            // Only a change of rights or of objects helps, so somebody should know; once, as it will be tried for ever.
            tracing::warn!(%path, error = %describe(error), "watch is refused or not understood, will retry");
            self.warned = true;
        }
        tracing::debug!(%path, error = %describe(error), "watch failed, will retry");
        self.backoff.wait().await;
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
