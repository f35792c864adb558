//! HTTP Upgrade passed through: two connections become one.

use http::header::{CONNECTION, UPGRADE};
use http::request::Parts;
use http::{Response, StatusCode};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::body::{self, Body};

/// The client's side of an upgrade, if it asks for one and its connection can do it.
pub(super) fn asked(head: &mut Parts) -> Option<OnUpgrade> {
    let connection = head.headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let wanted = connection.flat_map(|line| line.split(',')).any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    if wanted && head.headers.contains_key(UPGRADE) { head.extensions.remove::<OnUpgrade>() } else { None }
}

/// Answers the client as the backend did and copies bytes both ways until either side ends.
pub(super) fn join(client: OnUpgrade, mut backend: Response<Incoming>) -> Response<Body> {
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
