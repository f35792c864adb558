//! The plain `/healthz` on a port of its own (`healthzPort`, loopback by default), for local supervision.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

/// Serves until it is dropped.
///
/// # Errors
/// The port is taken, or the address is not ours.
pub async fn bind(address: &str, port: u16) -> io::Result<TcpListener> {
    let address: IpAddr = address.parse().map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
    TcpListener::bind(SocketAddr::new(address, port)).await
}

/// Answers `ok` for as long as the agent has a runtime that turns.
pub async fn serve(listener: TcpListener) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(async move {
            let server = http1::Builder::new()
                .timer(TokioTimer::new())
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service_fn(answer));
            if let Err(error) = server.await {
                tracing::debug!(%error, "healthz connection ended");
            }
        });
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let found = request.uri().path() == "/healthz";
    let mut response = Response::new(Full::from(if found { "ok" } else { "404 page not found\n" }));
    *response.status_mut() = if found { StatusCode::OK } else { StatusCode::NOT_FOUND };
    Ok(response)
}
