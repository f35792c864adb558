//! Asks the agent that runs on this machine.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

/// Longer than the agent itself waits for one of its workers.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens.
    #[error("no agent answers at {path} (systemctl start agent)")]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It does not say anything in time.
    #[error("the agent at {0} does not answer")]
    Silent(PathBuf),
    /// The answer broke off.
    #[error("answer of the agent")]
    Http(#[from] hyper::Error),
    /// It is an answer, but not what was asked for.
    #[error("{0}")]
    Refused(String),
    /// The agent that runs is of another version.
    #[error("answer of the agent cannot be read")]
    Json(#[from] serde_json::Error),
}

/// GETs a path from the agent's socket.
///
/// # Errors
/// See [`Error`].
pub async fn ask<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, Error> {
    Ok(serde_json::from_str(&text(socket, path).await?)?)
}

/// The same, for answers that are text.
///
/// # Errors
/// See [`Error`].
pub async fn text(socket: &Path, path: &str) -> Result<String, Error> {
    let asking = get(socket, path);
    let (status, body) =
        tokio::time::timeout(PATIENCE, asking).await.map_err(|_| Error::Silent(socket.to_owned()))??;
    let text = String::from_utf8_lossy(&body).into_owned();
    if status == StatusCode::OK { Ok(text) } else { Err(Error::Refused(text.trim().to_owned())) }
}

async fn get(socket: &Path, path: &str) -> Result<(StatusCode, Bytes), Error> {
    let stream = UnixStream::connect(socket).await;
    let stream = stream.map_err(|source| Error::NotRunning { path: socket.to_owned(), source })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the sender.
    tokio::spawn(connection);
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = path.parse().map_err(|_| Error::Refused(format!("{path:?} is no name of a pod")))?;
    request.headers_mut().insert(header::HOST, header::HeaderValue::from_static("agent"));
    let response = sender.send_request(request).await?;
    let status = response.status();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}
