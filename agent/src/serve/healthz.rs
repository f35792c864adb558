//! The plain `/healthz` on a port of its own (`healthzPort`, loopback by default), for local supervision.

use std::io;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::net::TcpListener;

use super::plain;

/// Serves until it is dropped.
///
/// # Errors
/// The port is taken, or the address is not ours.
pub fn bind(address: &str, port: u16) -> io::Result<TcpListener> {
    let address: IpAddr = address.parse().map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    streams::listen::bind(SocketAddr::new(address, port))
}

/// Answers `ok` for as long as the agent has a runtime that turns.
pub async fn serve(listener: TcpListener) {
    plain::serve(listener, answer).await;
}

fn answer(request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let found = request.uri().path() == "/healthz";
    let mut response = Response::new(Full::from(if found { "ok" } else { "404 page not found\n" }));
    *response.status_mut() = if found { StatusCode::OK } else { StatusCode::NOT_FOUND };
    response
}
