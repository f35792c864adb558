//! http and https: a GET that must answer 200 to 399 (pkg/probe/http).

use std::borrow::Cow;
use std::error::Error;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body, Incoming};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_util::io::InspectReader;
use url::{Position, Url};

use super::tcp::dial_error;
use super::{MAX_OUTPUT, tls};
use crate::probe::{Outcome, Scheme, authority};
use crate::redirect;

const AGENT: &str = "kube-probe/1.36";

/// Where the first request goes.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    pub scheme: Scheme,
    pub host: &'a str,
    pub port: u16,
    pub path: &'a str,
    pub headers: &'a [(String, String)],
}

impl Target<'_> {
    /// The host and the port, as a URL has them.
    #[must_use]
    pub fn authority(&self) -> String {
        authority(self.host, self.port)
    }
}

/// How an error ends when a server that was asked by TLS answered by HTTP, in the words of Go's client.
pub const PLAIN_ANSWER: &str = "http: server gave HTTP response to HTTPS client";
/// Likewise, when it answered by neither.
const NO_TLS: &str = "tls: first record does not look like a TLS handshake";
/// How an answer by HTTP begins: as long as a header of TLS, which is all that Go's client compares with it.
const HTTP: &[u8] = b"HTTP/";

/// What users may write into a path and a request cannot carry as it is. What is escaped already stays.
const UNSENT: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'\\').add(b'^').add(b'`').add(b'{').add(b'|').add(b'}');

/// One request of a chain of redirects.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Hop {
    scheme: Scheme,
    host: String,
    port: u16,
    /// With query.
    path: String,
    /// A `Host` of the user's is sent: not where a server named the host itself.
    own_host: bool,
}

impl Hop {
    fn first(target: &Target<'_>) -> Self {
        let slash = if target.path.starts_with('/') { "" } else { "/" };
        let (path, _fragment) = target.path.split_once('#').unwrap_or((target.path, ""));
        Self {
            scheme: target.scheme,
            host: target.host.to_owned(),
            port: target.port,
            path: format!("{slash}{}", utf8_percent_encode(path, UNSENT)),
            own_host: true,
        }
    }

    fn authority(&self) -> String {
        authority(&self.host, self.port)
    }

    fn url(&self) -> String {
        let scheme = match self.scheme {
            Scheme::Http => "http",
            Scheme::Https => "https",
        };
        format!("{scheme}://{}{}", self.authority(), self.path)
    }

    /// Where `location` leads; `None` when that is another host.
    ///
    /// # Errors
    /// What is no URL, or none that can be asked.
    fn redirect(&self, location: &str) -> Result<Option<Self>, String> {
        let joined = Url::parse(&self.url()).and_then(|from| Ok((from.join(location)?, from)));
        let (to, from) = joined
            .map_err(|error| format!("Get {:?}: failed to parse Location header {location:?}: {error}", self.url()))?;
        if to.host() != from.host() {
            return Ok(None);
        }
        let scheme = match to.scheme() {
            "https" => Scheme::Https,
            "http" => Scheme::Http,
            other => return Err(format!("Get {location:?}: unsupported protocol scheme {other:?}")),
        };
        let port = to.port_or_known_default().unwrap_or(self.port);
        let path = to[Position::BeforePath..Position::AfterQuery].to_owned();
        // One that stands alone names its host.
        let own_host = Url::parse(location).is_err();
        Ok(Some(Self { scheme, host: self.host.clone(), port, path, own_host }))
    }
}

pub(crate) async fn probe(target: &Target<'_>, timeout: Duration) -> Outcome {
    let deadline = Instant::now() + timeout;
    let answer = match timeout_at(deadline, follow(target)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(failure)) => return Outcome::Failure(failure),
        Err(_) => {
            return Outcome::Failure(format!(
                "Get \"{}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
                Hop::first(target).url()
            ));
        }
    };
    let status = answer.response.status();
    match timeout_at(deadline, answer.body()).await {
        Ok(Ok(body)) => judge(status, &body),
        Ok(Err(reason)) => Outcome::Broken(reason),
        Err(_) => Outcome::Broken(
            "context deadline exceeded (Client.Timeout or context cancellation while reading body)".to_owned(),
        ),
    }
}

/// One GET whose answer's status is all that matters: lifecycle hooks. It ends with the answer's body, unless that is long
/// (`discardHTTPRespBody`).
///
/// # Errors
/// Why there was no answer, as Go's client words it.
pub async fn get_once(target: &Target<'_>) -> Result<StatusCode, String> {
    let hop = Hop::first(target);
    let answer = get(&hop, target.headers).await.map_err(|reason| format!("Get \"{}\": {reason}", hop.url()))?;
    let status = answer.response.status();
    if answer.response.body().size_hint().exact().is_none_or(|length| length <= MAX_OUTPUT as u64) {
        let _ = answer.body().await;
    }
    Ok(status)
}

/// The answer after all redirects, or what failed.
async fn follow(target: &Target<'_>) -> Result<Answer, String> {
    let mut hop = Hop::first(target);
    let mut asked = 0;
    loop {
        asked += 1;
        let answer = get(&hop, target.headers).await.map_err(|reason| format!("Get \"{}\": {reason}", hop.url()))?;
        let location = redirect::location(answer.response.status(), answer.response.headers());
        let Some(location) = location.map(Cow::into_owned) else { return Ok(answer) };
        let Some(next) = hop.redirect(&location)? else { return Ok(answer) };
        if asked == redirect::MAX {
            return Err(format!("Get {location:?}: stopped after {} redirects", redirect::MAX));
        }
        hop = next;
    }
}

fn judge(status: StatusCode, body: &[u8]) -> Outcome {
    match status.as_u16() {
        200..300 => Outcome::Success,
        300..400 => {
            Outcome::Warning(format!("Probe terminated redirects, Response body: {}", String::from_utf8_lossy(body)))
        }
        code => Outcome::Failure(format!("HTTP probe failed with statuscode: {code}")),
    }
}

/// Polled by whoever waits for an answer: a task of its own would wake another thread for each probe.
type Connection = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// Waits for what comes by a connection.
async fn by<T>(connection: &mut Connection, waiting: impl Future<Output = T>) -> T {
    let mut waiting = pin!(waiting);
    tokio::select! {
        biased;
        came = &mut waiting => came,
        _ = connection => waiting.await,
    }
}

/// An answer of which the head is there, and the connection that the rest comes by.
struct Answer {
    response: Response<Incoming>,
    connection: Connection,
}

impl Answer {
    /// The beginning of the body.
    async fn body(self) -> Result<Vec<u8>, String> {
        let Self { response, mut connection } = self;
        let body = by(&mut connection, beginning(response.into_body())).await;
        body.map_err(|error| text("unexpected EOF", &error))
    }
}

async fn beginning(mut body: Incoming) -> hyper::Result<Vec<u8>> {
    let mut read = Vec::new();
    while read.len() < MAX_OUTPUT
        && let Some(frame) = body.frame().await
    {
        if let Some(data) = frame?.data_ref() {
            read.extend_from_slice(data);
        }
    }
    read.truncate(MAX_OUTPUT);
    Ok(read)
}

/// With Go's word for an end that came too early.
fn text(early: &str, error: &hyper::Error) -> String {
    let cause = error.source().and_then(|source| source.downcast_ref::<io::Error>());
    if error.is_incomplete_message() || cause.is_some_and(|cause| cause.kind() == io::ErrorKind::UnexpectedEof) {
        early.to_owned()
    } else {
        error.to_string()
    }
}

async fn get(hop: &Hop, headers: &[(String, String)]) -> Result<Answer, String> {
    let stream = TcpStream::connect((hop.host.as_str(), hop.port))
        .await
        .map_err(|error| dial_error(&hop.host, hop.port, &error))?;
    let _ = stream.set_nodelay(true);
    let request = request(hop, headers).map_err(|error| error.to_string())?;
    match hop.scheme {
        Scheme::Http => send(stream, request).await,
        Scheme::Https => {
            let name = ServerName::try_from(hop.host.clone()).map_err(|error| error.to_string())?;
            let connector = tls::connector().map_err(|error| error.to_string())?;
            let beginning = Beginning::default();
            let stream = InspectReader::new(stream, beginning.note());
            match connector.connect(name, stream).into_fallible().await {
                Ok(stream) => send(stream, request).await,
                Err((error, stream)) => Err(tls_error(&error, stream, &beginning).await),
            }
        }
    }
}

/// What a server began with, once that is as long as [`HTTP`].
#[derive(Default)]
struct Beginning(Arc<OnceLock<Vec<u8>>>);

impl Beginning {
    /// Is to be told all that is read.
    fn note(&self) -> impl FnMut(&[u8]) + Send + 'static {
        let (kept, mut read) = (Arc::clone(&self.0), Vec::new());
        move |bytes| {
            if kept.get().is_some() {
                return;
            }
            read.extend(bytes.iter().take(HTTP.len().saturating_sub(read.len())));
            if read.len() == HTTP.len() {
                let _ = kept.set(std::mem::take(&mut read));
            }
        }
    }
}

async fn tls_error(error: &io::Error, mut rest: impl AsyncRead + Unpin, beginning: &Beginning) -> String {
    let told = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if !matches!(told, Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType))) {
        return error.to_string();
    }
    // One byte is enough for rustls to know better.
    let mut buffer = [0; HTTP.len()];
    while beginning.0.get().is_none() && rest.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    let is_http = beginning.0.get().is_some_and(|bytes| bytes == HTTP);
    if is_http { PLAIN_ANSWER.to_owned() } else { NO_TLS.to_owned() }
}

async fn send<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let mut connection: Connection = Box::pin(connection);
    let response = by(&mut connection, sender.send_request(request)).await;
    Ok(Answer { response: response.map_err(|error| text("EOF", &error))?, connection })
}

fn request(hop: &Hop, headers: &[(String, String)]) -> Result<Request<Empty<Bytes>>, http::Error> {
    let mut request = Request::get(hop.path.as_str()).body(Empty::new())?;
    let own = request.headers_mut();
    let sent = headers.iter().filter(|(name, _)| hop.own_host || !name.eq_ignore_ascii_case(HOST.as_str()));
    for (name, value) in sent {
        own.append(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
    }
    // An empty User-Agent or Accept of the user's means none.
    for (name, value) in [(USER_AGENT, AGENT), (ACCEPT, "*/*")] {
        match own.get(&name) {
            None => drop(own.insert(name, HeaderValue::from_static(value))),
            Some(given) if given.is_empty() => drop(own.remove(&name)),
            Some(_) => {}
        }
    }
    if !own.contains_key(HOST) {
        own.insert(HOST, HeaderValue::try_from(hop.authority())?);
    }
    own.insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(path: &str) -> Hop {
        Hop { scheme: Scheme::Http, host: "10.0.0.1".into(), port: 8080, path: path.into(), own_host: true }
    }

    #[test]
    fn any_path_that_the_api_takes_can_be_asked_for() {
        let cases = [
            ("/health check?a=b c", "/health%20check?a=b%20c"),
            ("ready/<é>", "/ready/%3C%C3%A9%3E"),
            ("/a%20b/../c:d@e?x=[1]&y='2'#part", "/a%20b/../c:d@e?x=[1]&y='2'"),
            ("", "/"),
        ];
        for (path, sent) in cases {
            let target = Target { scheme: Scheme::Http, host: "10.0.0.1", port: 80, path, headers: &[] };
            let hop = Hop::first(&target);
            assert_eq!(request(&hop, &[]).unwrap().uri(), sent);
        }
    }

    #[test]
    fn redirects_stay_on_the_host() {
        let from = hop("/a/b?x=1");
        let to = |location: &str| from.redirect(location).unwrap();
        for (location, path) in [
            ("/c?y=2", "/c?y=2"),
            ("login", "/a/login"),
            ("deep/er", "/a/deep/er"),
            ("../up", "/up"),
            ("?only=query", "/a/b?only=query"),
            ("#fragment", "/a/b?x=1"),
        ] {
            assert_eq!(to(location), Some(hop(path)), "{location}");
        }
        let named = |path: &str| Hop { own_host: false, ..hop(path) };
        assert_eq!(to("http://10.0.0.1:8080/d"), Some(named("/d")));
        assert_eq!(to("//10.0.0.1:8080/d"), Some(hop("/d")));
        assert_eq!(to("http://10.0.0.1/"), Some(Hop { port: 80, ..named("/") }));
        let secure = Hop { scheme: Scheme::Https, port: 443, ..named("/s") };
        assert_eq!(to("https://10.0.0.1/s"), Some(secure));
        for location in ["http://example.com/", "//example.com/", "mailto:a@10.0.0.1"] {
            assert_eq!(to(location), None, "{location}");
        }
        let told = |location: &str| from.redirect(location).unwrap_err();
        assert_eq!(told("ftp://10.0.0.1/"), "Get \"ftp://10.0.0.1/\": unsupported protocol scheme \"ftp\"");
        let text = "Get \"http://10.0.0.1:8080/a/b?x=1\": failed to parse Location header \"http://[\": ";
        assert!(told("http://[").starts_with(text), "{}", told("http://["));
        let six = Hop { host: "fd00::1".into(), ..hop("/") };
        assert_eq!(six.redirect("x").unwrap(), Some(Hop { path: "/x".into(), ..six.clone() }));
    }

    #[test]
    fn headers_of_the_user_win() {
        let headers = |list: &[(&str, &str)]| {
            let list: Vec<_> = list.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            let request = request(&hop("/"), &list).unwrap();
            let mut lines: Vec<_> =
                request.headers().iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
            lines.sort();
            lines
        };
        assert_eq!(
            headers(&[]),
            ["accept: */*", "connection: close", "host: 10.0.0.1:8080", "user-agent: kube-probe/1.36"]
        );
        let named = Hop { own_host: false, ..hop("/") };
        let request = request(&named, &[("host".to_owned(), "example.com".to_owned())]).unwrap();
        assert_eq!(request.headers()[HOST], "10.0.0.1:8080");
        assert_eq!(
            headers(&[("Host", "example.com"), ("User-Agent", ""), ("X-A", "1"), ("X-A", "2")]),
            ["accept: */*", "connection: close", "host: example.com", "x-a: 1", "x-a: 2"]
        );
    }

    #[test]
    fn urls_as_go_prints_them() {
        let target = Target { scheme: Scheme::Https, host: "fd00::1", port: 1, path: "healthz", headers: &[] };
        assert_eq!(Hop::first(&target).url(), "https://[fd00::1]:1/healthz");
    }
}
