//! What requests have in common that are passed on to another server: which headers go along, and an HTTP Upgrade, by which
//! two connections become one.

use http::header::{self, CONNECTION, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::body::{self, Body};

/// Headers that belong to one connection (RFC 9110, 7.6.1), or must not leave this server.
const DROPPED: [HeaderName; 8] = [
    header::AUTHORIZATION,
    header::CONNECTION,
    header::HOST,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The headers of a request that go along with it.
pub(crate) fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut kept = headers.clone();
    for name in &DROPPED {
        kept.remove(name);
    }
    kept
}

/// Asks for the upgrade that the client asked for.
pub(crate) fn ask_for_upgrade(client: &HeaderMap, headers: &mut HeaderMap) {
    if let Some(protocol) = client.get(UPGRADE) {
        headers.insert(UPGRADE, protocol.clone());
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    }
}

/// An answer without the headers that belong to one connection.
pub(crate) fn unhopped(mut response: Response<Incoming>) -> Response<Incoming> {
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE, header::TRAILER] {
        response.headers_mut().remove(name);
    }
    response
}

/// An answer as it is passed on.
pub(crate) fn passed_back(response: Response<Incoming>) -> Response<Body> {
    unhopped(response).map(|body| body.map_err(Into::into).boxed_unsync())
}

/// The client's side of an upgrade, if it asks for one and its connection can do it.
pub(crate) fn asked(head: &mut Parts) -> Option<OnUpgrade> {
    let connection = head.headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let wanted = connection.flat_map(|line| line.split(',')).any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    if wanted && head.headers.contains_key(UPGRADE) { head.extensions.remove::<OnUpgrade>() } else { None }
}

/// Answers the client as the backend did and copies bytes both ways until either side ends.
pub(crate) fn join(client: OnUpgrade, mut backend: Response<Incoming>) -> Response<Body> {
    let upgraded = hyper::upgrade::on(&mut backend);
    let mut response = Response::new(body::full(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = std::mem::take(backend.headers_mut());
    tokio::spawn(async move {
        let (client, backend) = match tokio::try_join!(client, upgraded) {
            Ok(both) => both,
            Err(error) => return tracing::debug!(%error, "upgrade failed"),
        };
        let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
        if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut backend).await {
            tracing::debug!(%error, "upgraded connection ended");
        }
    });
    response
}
