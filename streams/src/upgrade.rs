//! Asks a server to switch a fresh HTTP/1.1 connection to another protocol.

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// A refusal's body is a text for people; more than this is not read.
const MOST: usize = 64 * 1024;

/// Why a connection was not switched.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    #[error("talk HTTP")]
    Http(#[from] hyper::Error),
    /// The server's own answer, to be passed on.
    #[error("the server answered {status}: {body}")]
    Refused { status: StatusCode, content_type: String, body: String },
}

/// Sends the request and, if the server agrees, answers the switched connection with the response's head.
///
/// # Errors
/// When the server cannot be talked to or refuses.
pub async fn upgrade<IO>(
    io: IO,
    request: Request<Empty<Bytes>>,
) -> Result<(Response<()>, TokioIo<Upgraded>), UpgradeError>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(error = &error as &dyn std::error::Error, "connection to be upgraded ended");
        }
    });
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refusal(response).await);
    }
    let head = response.headers().clone();
    let upgraded = hyper::upgrade::on(response).await?;
    let mut answer = Response::new(());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *answer.headers_mut() = head;
    Ok((answer, TokioIo::new(upgraded)))
}

async fn refusal(response: Response<Incoming>) -> UpgradeError {
    let status = response.status();
    let content_type = response
        .headers()
        .get(http::header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or("text/plain")
        .to_owned();
    let body = Limited::new(response.into_body(), MOST).collect().await;
    let body = body.map(|b| String::from_utf8_lossy(&b.to_bytes()).into_owned()).unwrap_or_default();
    UpgradeError::Refused { status, content_type, body }
}
