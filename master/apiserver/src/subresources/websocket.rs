//! Clients that stream through a WebSocket (KEP-4006): the agent is asked in SPDY, as runtimes speak it, and the two are bridged.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use streams::bridge::{self, BridgeError, Encoding, Wanted};
use streams::upgrade::UpgradeError;
use streams::websocket::{self, BASE64, BINARY, CHANNEL_V4, CHANNEL_V5, TUNNEL};

use super::target::Destination;
use crate::body::{self, Body};
use crate::problem::{Problem, Result};
use crate::road::Call;
use crate::server::Core;

/// What a client asks to speak inside its WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Session {
    /// Streams as numbered channels; the subprotocol that was chosen.
    Channels(&'static str),
    /// SPDY as it is.
    Tunnel,
}

impl Session {
    /// The session that a request asks for and that we bridge; everything else is passed on as it is.
    pub(super) fn asked(call: &Call) -> Option<Self> {
        let headers = &call.head.headers;
        if !websocket::is_websocket(headers) {
            return None;
        }
        match call.path.subresource.as_str() {
            "exec" | "attach" => websocket::choose(headers, &[CHANNEL_V5, CHANNEL_V4]).map(Self::Channels),
            "portforward" => websocket::choose(headers, &[TUNNEL]).map(|_| Self::Tunnel),
            _ => None,
        }
    }

    fn subprotocol(self) -> &'static str {
        match self {
            Self::Channels(protocol) => protocol,
            Self::Tunnel => TUNNEL,
        }
    }

    /// `X-Stream-Protocol-Version` towards the agent.
    fn node_protocol(self) -> &'static str {
        match self {
            Self::Channels(_) => CHANNEL_V4,
            Self::Tunnel => "portforward.k8s.io",
        }
    }
}

/// Opens the agent's side and answers the client; the session then goes on by itself.
pub(super) async fn answer(
    core: &Arc<Core>,
    call: &Call,
    destination: &Destination,
    session: Session,
    client: OnUpgrade,
) -> Result<Response<Body>> {
    let unwilling = |error: websocket::AcceptError| Problem::bad_request(error.to_string());
    let accepted = websocket::accept(&http::Request::from_parts(call.head.clone(), ()), session.subprotocol());
    let accepted = accepted.map_err(unwilling)?;
    let stream = core.kubelets.connect(destination).await?;
    let node = match streams::upgrade::upgrade(stream, request(destination, session)?).await {
        Ok((_, node)) => node,
        Err(UpgradeError::Refused { status, content_type, body }) => return Ok(refused(status, &content_type, body)),
        Err(error) => return Err(Problem::internal(&format!("error dialing backend: {error}"))),
    };
    let wanted = Wanted::from_query(call.head.uri.query().unwrap_or_default());
    tokio::spawn(async move {
        let websocket = match client.await {
            Ok(connection) => websocket::serve(connection).await,
            Err(error) => return tracing::debug!(%error, "upgrade failed"),
        };
        let end: std::result::Result<(), BridgeError> = match session {
            Session::Channels(_) => bridge::channels(websocket, node, wanted).await,
            Session::Tunnel => bridge::tunnel(websocket, node).await,
        };
        if let Err(error) = end {
            tracing::debug!(error = &error as &dyn std::error::Error, "streaming session broke off");
        }
    });
    Ok(accepted.map(|()| body::full("")))
}

/// Whether a client wants a log in messages of a WebSocket.
pub(super) fn wants_log(call: &Call) -> bool {
    call.path.subresource == "log" && websocket::is_websocket(&call.head.headers)
}

/// Answers with a log in messages (`wsstream.Reader`).
pub(super) fn log(call: &Call, client: OnUpgrade, log: Incoming) -> Result<Response<Body>> {
    let protocol = websocket::choose(&call.head.headers, &[BINARY, BASE64]).unwrap_or_default();
    let encoding = if protocol == BASE64 { Encoding::Base64 } else { Encoding::Binary };
    let accepted = websocket::accept(&http::Request::from_parts(call.head.clone(), ()), protocol);
    let accepted = accepted.map_err(|error| Problem::bad_request(error.to_string()))?;
    tokio::spawn(async move {
        let websocket = match client.await {
            Ok(connection) => websocket::serve(connection).await,
            Err(error) => return tracing::debug!(%error, "upgrade failed"),
        };
        let pieces = log.into_data_stream().map(|piece| piece.map_err(std::io::Error::other));
        if let Err(error) = bridge::output(websocket, pieces, encoding).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "log broke off");
        }
    });
    Ok(accepted.map(|()| body::full("")))
}

fn request(destination: &Destination, session: Session) -> Result<Request<Empty<Bytes>>> {
    let invalid = |error: http::Error| Problem::bad_request(format!("the request cannot be passed on: {error}"));
    Request::builder()
        .method(Method::POST)
        .uri(&destination.path)
        .header(header::HOST, destination.authority())
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "SPDY/3.1")
        .header("X-Stream-Protocol-Version", session.node_protocol())
        .body(Empty::new())
        .map_err(invalid)
}

/// The agent's own words.
fn refused(status: http::StatusCode, content_type: &str, text: String) -> Response<Body> {
    let mut response = Response::new(body::full(text));
    *response.status_mut() = status;
    if let Ok(value) = HeaderValue::from_str(content_type) {
        response.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    response
}
