//! Manifests from a web server (pkg/kubelet/config/http.go).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use probes::redirect;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use url::{Host, Position, Url};

use super::decode::{self, ManifestError, Origin};
use super::{Found, Place};
use crate::client::watch::describe;

const LONGEST: usize = 10 << 20;
const TIMEOUT: Duration = Duration::from_secs(10);
/// Headers that are for the host that the URL names, and those below it.
const SENSITIVE: [&str; 6] =
    ["authorization", "www-authenticate", "cookie", "cookie2", "proxy-authorization", "proxy-authenticate"];
/// Where distributions keep the authorities that the machine trusts.
const AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

pub(super) struct Source {
    pub url: String,
    pub period: Duration,
    pub header: BTreeMap<String, Vec<String>>,
    pub node_name: String,
}

#[derive(Debug, thiserror::Error)]
enum UrlError {
    #[error("{0:?} is no http or https URL")]
    Url(String),
    #[error("cannot connect to {0}")]
    Connect(String, #[source] std::io::Error),
    #[error("no authorities to trust in {AUTHORITIES:?}")]
    Authorities,
    #[error("request failed")]
    Request(#[source] hyper::Error),
    #[error("header cannot be sent")]
    Header(#[from] http::Error),
    #[error("answer cannot be read: {0}")]
    Body(String),
    #[error("{url}: {status}")]
    Status { url: String, status: http::StatusCode },
    #[error("stopped after {} redirects", redirect::MAX)]
    Redirects,
    #[error("no answer within {TIMEOUT:?}")]
    Timeout,
    #[error("zero-length data received from {0}")]
    Empty(String),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

/// Asks again and again. While there is no answer, the pods of the last one stay.
pub(super) async fn follow(source: Source, found: mpsc::Sender<Found>) {
    let mut last = None;
    let mut failing = false;
    loop {
        match ask(&source).await {
            Ok(text) if last.as_ref() == Some(&text) => failing = false,
            Ok(text) => match pods(&text, &source) {
                Ok(answer) => {
                    (last, failing) = (Some(text), false);
                    if found.send(answer).await.is_err() {
                        return;
                    }
                }
                Err(error) => complain(&source, &error, &mut failing),
            },
            Err(error) => complain(&source, &error, &mut failing),
        }
        // Cancel-safe: a sleep, and a channel that holds nothing.
        tokio::select! {
            () = found.closed() => return,
            () = tokio::time::sleep(source.period) => {}
        }
    }
}

/// Once for as long as it goes on.
fn complain(source: &Source, error: &UrlError, failing: &mut bool) {
    if !std::mem::replace(failing, true) {
        tracing::error!(url = %source.url, error = %describe(error), "pods of the URL cannot be read, will retry");
    }
}

/// An empty answer says that there are no pods.
fn pods(text: &str, source: &Source) -> Result<Found, UrlError> {
    if text.is_empty() {
        tracing::warn!(error = %UrlError::Empty(source.url.clone()), "no static pods");
        return Ok((Place::Url, Vec::new()));
    }
    let pods = decode::pods(text, &Origin::Url(&source.url), &source.node_name)?;
    Ok((Place::Url, pods.into_iter().map(Arc::new).collect()))
}

async fn ask(source: &Source) -> Result<String, UrlError> {
    tokio::time::timeout(TIMEOUT, get(source)).await.unwrap_or(Err(UrlError::Timeout))
}

async fn get(source: &Source) -> Result<String, UrlError> {
    let mut url = Url::parse(&source.url).map_err(|_| UrlError::Url(source.url.clone()))?;
    let first = url.clone();
    let mut header = source.header.clone();
    for _ in 0..redirect::MAX {
        let response = send(&url, &header).await?;
        if let Some(location) = redirect::location(response.status(), response.headers()) {
            url = url.join(&location).map_err(|_| UrlError::Url(location.into_owned()))?;
            if !is_within(&url, &first) {
                header.retain(|name, _| !SENSITIVE.iter().any(|secret| name.eq_ignore_ascii_case(secret)));
            }
            continue;
        }
        if response.status() != http::StatusCode::OK {
            return Err(UrlError::Status { url: source.url.clone(), status: response.status() });
        }
        let body = Limited::new(response.into_body(), LONGEST).collect().await;
        let bytes = body.map_err(|error| UrlError::Body(error.to_string()))?.to_bytes();
        return String::from_utf8(bytes.into()).map_err(|error| UrlError::Body(error.to_string()));
    }
    Err(UrlError::Redirects)
}

/// Whether a URL's host is another's, or below it.
fn is_within(url: &Url, other: &Url) -> bool {
    match (url.host(), other.host()) {
        (Some(Host::Domain(host)), Some(Host::Domain(above))) => {
            host.strip_suffix(above).is_some_and(|below| below.is_empty() || below.ends_with('.'))
        }
        (host, above) => host == above,
    }
}

async fn send(url: &Url, header: &BTreeMap<String, Vec<String>>) -> Result<Response<Incoming>, UrlError> {
    let wrong = || UrlError::Url(url.to_string());
    let secure = match url.scheme() {
        "https" => true,
        "http" => false,
        _ => return Err(wrong()),
    };
    let host = match url.host().ok_or_else(wrong)? {
        // Without its brackets.
        Host::Ipv6(address) => address.to_string(),
        host => host.to_string(),
    };
    let port = url.port_or_known_default().ok_or_else(wrong)?;
    let connect = |error| UrlError::Connect(format!("{host}:{port}"), error);
    let tcp = TcpStream::connect((host.as_str(), port)).await.map_err(connect)?;
    let path = &url[Position::BeforePath..Position::AfterQuery];
    let mut request = Request::get(path).header(HOST, &url[Position::BeforeHost..Position::AfterPort]);
    for (name, values) in header {
        for value in values {
            request = request.header(name, value);
        }
    }
    let request = request.body(Empty::new())?;
    if !secure {
        return exchange(tcp, request).await;
    }
    let name = ServerName::try_from(host.clone()).map_err(|_| wrong())?;
    let tls = tokio_rustls::TlsConnector::from(Arc::new(trust()?)).connect(name, tcp).await.map_err(connect)?;
    exchange(tls, request).await
}

async fn exchange<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<Response<Incoming>, UrlError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(UrlError::Request)?;
    // Ends with the answer, or with the sender.
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(UrlError::Request)
}

/// The authorities of the machine.
fn trust() -> Result<ClientConfig, UrlError> {
    let mut roots = RootCertStore::empty();
    let bundle = AUTHORITIES.iter().find_map(|path| CertificateDer::pem_file_iter(path).ok());
    // One that rustls cannot use is none that this server needs.
    roots.add_parsable_certificates(bundle.into_iter().flatten().filter_map(Result::ok));
    if roots.is_empty() {
        return Err(UrlError::Authorities);
    }
    Ok(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const POD: &str = "{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {containers: [{name: c, image: i}]}}";

    /// Answers each request with the next of these, and with the last for ever.
    async fn server(answers: Vec<String>) -> (u16, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            for turn in 0.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let length = stream.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..length]).to_lowercase();
                assert!(request.contains("metadata-flavor: keelson"), "{request}");
                let answer = &answers[turn.min(answers.len() - 1)];
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (port, task)
    }

    fn ok(body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    #[tokio::test]
    async fn pods_follow_the_answers() {
        let answers = vec![
            "HTTP/1.1 302 Found\r\nconnection: close\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n".to_owned(),
            ok(POD),
            ok("no pod"),
            "HTTP/1.1 500 Oh\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_owned(),
            ok(&POD.replace("name: a", "name: b")),
            ok(""),
        ];
        let (port, _server) = server(answers).await;
        let header = BTreeMap::from([("Metadata-Flavor".to_owned(), vec!["keelson".to_owned()])]);
        let (sender, mut found) = mpsc::channel(4);
        let url = format!("http://127.0.0.1:{port}/pods");
        tokio::spawn(follow(Source { url, period: Duration::from_millis(10), header, node_name: "n".into() }, sender));
        let mut seen = Vec::new();
        for _ in 0..3 {
            let (_, pods) = tokio::time::timeout(TIMEOUT, found.recv()).await.unwrap().unwrap();
            seen.push(pods.iter().map(|pod| pod.metadata.name.clone().unwrap()).collect::<Vec<_>>());
        }
        assert_eq!(seen, [vec!["a-n"], vec!["b-n"], vec![]]);
    }

    #[tokio::test]
    async fn redirects_are_relative_to_what_was_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = tokio::spawn(async move {
            let mut asked = Vec::new();
            for location in [Some("next".to_owned()), Some(format!("http://localhost:{port}/away?x#y")), None] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let length = stream.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..length]).to_lowercase();
                let path = request.split(' ').nth(1).unwrap().to_owned();
                asked.push((path, request.contains("cookie: secret"), request.contains("x-own: kept")));
                let found = |to| format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
                stream.write_all(location.map_or_else(|| ok(POD), found).as_bytes()).await.unwrap();
            }
            asked
        });
        let header = [("Cookie", "secret"), ("X-Own", "kept")];
        let header = header.map(|(name, value)| (name.to_owned(), vec![value.to_owned()])).into();
        let url = format!("http://127.0.0.1:{port}/a/pods");
        let source = Source { url, period: Duration::from_secs(1), header, node_name: "n".into() };
        assert_eq!(ask(&source).await.unwrap(), POD);
        let path = |path: &str, secret| (path.to_owned(), secret, true);
        // Secrets are for the host that was named.
        assert_eq!(asked.await.unwrap(), [path("/a/pods", true), path("/a/next", true), path("/away?x", false)]);
    }

    #[test]
    fn hosts_are_above_others() {
        let within = |one: &str, other: &str| is_within(&Url::parse(one).unwrap(), &Url::parse(other).unwrap());
        assert!(
            within("http://a.example.com:1/", "https://example.com/")
                && within("http://EXAMPLE.com", "http://example.com")
        );
        assert!(
            !within("http://example.com.evil/", "http://example.com/")
                && !within("http://an-example.com", "http://example.com")
        );
        assert!(within("http://[::1]:1/", "http://[::1]/") && !within("http://1.2.3.4/", "http://2.3.4/"));
    }

    #[tokio::test]
    async fn what_is_no_url_is_named() {
        let ask = async |url: &str| {
            let source = Source {
                url: url.into(),
                period: Duration::from_secs(1),
                header: BTreeMap::new(),
                node_name: "n".into(),
            };
            describe(&ask(&source).await.unwrap_err())
        };
        assert_eq!(ask("ftp://x/y").await, "\"ftp://x/y\" is no http or https URL");
        assert!(ask("http://127.0.0.1:1/").await.starts_with("cannot connect to 127.0.0.1:1: "));
    }
}
