//! Exec, attach and port-forward: the client's upgrade is passed on to the URL that the runtime gave, byte by byte.
//!
//! This is the seam for translating protocols: today client and runtime must speak the same one (SPDY/3.1 or WebSocket
//! v4), which API servers and containerd do.

use std::time::Duration;

use http::uri::Authority;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use streams::upgrade::{UpgradeError, upgrade};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::idle;
use super::routes::{Body, text};

/// Headers that describe the session; everything else (credentials above all) stays here.
const PASSED: [HeaderName; 8] = [
    header::CONNECTION,
    header::UPGRADE,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_PROTOCOL,
    header::SEC_WEBSOCKET_EXTENSIONS,
    HeaderName::from_static("x-stream-protocol-version"),
    header::CONTENT_LENGTH,
];

/// Whether the request asks for an upgrade at all.
pub(super) fn is_upgrade(headers: &HeaderMap) -> bool {
    let connection = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    headers.contains_key(header::UPGRADE)
        && connection.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
}

/// Passes the session on to `url`, until nothing was said for `idle`.
pub(super) async fn proxy(request: Request<Incoming>, url: &str, idle: Duration) -> Response<Body> {
    if !is_upgrade(request.headers()) {
        return text(
            StatusCode::BAD_REQUEST,
            "you must specify at least 1 of stdin, stdout, stderr over an upgraded connection\n",
        );
    }
    match connect(request, url, idle).await {
        Ok(response) => response,
        Err(error) => {
            tracing::warn!(%error, "runtime's streaming server cannot be reached");
            text(StatusCode::INTERNAL_SERVER_ERROR, &format!("error dialing backend: {error}\n"))
        }
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn connect(mut request: Request<Incoming>, url: &str, idle: Duration) -> Result<Response<Body>, BoxError> {
    let uri: Uri = url.parse()?;
    let authority = uri.authority().ok_or("the runtime's url has no host")?.clone();
    let stream = dial(&authority).await?;
    stream.set_nodelay(true)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut onward = Request::builder().method(request.method()).uri(path).header(header::HOST, authority.as_str());
    for name in PASSED {
        for value in request.headers().get_all(&name) {
            onward = onward.header(&name, value);
        }
    }
    let client = hyper::upgrade::on(&mut request);
    let (answer, runtime) = match upgrade(stream, onward.body(Empty::new())?).await {
        Ok(upgraded) => upgraded,
        Err(UpgradeError::Refused { status, content_type, body }) => {
            let refusal = Response::builder().status(status).header(header::CONTENT_TYPE, content_type);
            return Ok(refusal.body(Full::from(body).map_err(|never| match never {}).boxed_unsync())?);
        }
        Err(error) => return Err(error.into()),
    };
    tokio::spawn(async move {
        if let Err(error) = join(client, runtime, idle).await {
            tracing::debug!(%error, "stream ended");
        }
    });
    let mut response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
    for (name, value) in answer.headers() {
        response = response.header(name, value);
    }
    Ok(response.body(Empty::new().map_err(|never| match never {}).boxed_unsync())?)
}

async fn dial(authority: &Authority) -> std::io::Result<TcpStream> {
    // An address of IPv6 has brackets there.
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await
}

async fn join(
    client: hyper::upgrade::OnUpgrade,
    runtime: impl AsyncRead + AsyncWrite + Unpin,
    idle: Duration,
) -> Result<(), BoxError> {
    if !idle::relay(TokioIo::new(client.await?), runtime, idle).await? {
        tracing::info!(
            seconds = idle.as_secs(),
            "a session ends in which nothing was said (streamingConnectionIdleTimeout)"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_runtime_may_stream_at_an_address_of_either_family() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = tokio::net::TcpListener::bind(address).await.unwrap();
            let local = listener.local_addr().unwrap();
            let uri: Uri = format!("http://{local}/exec/token").parse().unwrap();
            assert_eq!(dial(uri.authority().unwrap()).await.unwrap().peer_addr().unwrap(), local);
        }
    }
}
