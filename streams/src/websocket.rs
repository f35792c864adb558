//! Accepts WebSockets (RFC 6455) from HTTP requests.

use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

/// Remote commands with one byte in front of each message that names the stream, and a signal that stdin is at its end.
pub const CHANNEL_V5: &str = "v5.channel.k8s.io";
/// The same without that signal.
pub const CHANNEL_V4: &str = "v4.channel.k8s.io";
/// Output alone, as binary messages and as base64.
pub const BINARY: &str = "binary.k8s.io";
pub const BASE64: &str = "base64.binary.k8s.io";
/// SPDY inside a WebSocket (KEP-4006).
pub const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// A server's side of a WebSocket.
pub type WebSocket = WebSocketStream<TokioIo<Upgraded>>;

/// Why a request was not accepted as a WebSocket.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    #[error("the header Sec-WebSocket-Key is missing")]
    NoKey,
    #[error("the header {0} is not ASCII")]
    NotAscii(&'static str),
}

/// Whether the client asks for a WebSocket.
#[must_use]
pub fn is_websocket(headers: &HeaderMap) -> bool {
    has_token(headers, &CONNECTION, "upgrade") && has_token(headers, &UPGRADE, "websocket")
}

/// The first of the client's subprotocols that is among `ours`.
#[must_use]
pub fn choose<'a>(headers: &HeaderMap, ours: &[&'a str]) -> Option<&'a str> {
    tokens(headers, &SEC_WEBSOCKET_PROTOCOL).find_map(|asked| ours.iter().find(|o| **o == asked).copied())
}

/// The answer that makes the connection a WebSocket with this subprotocol, or with none where that is empty.
///
/// # Errors
/// When the request is not a proper handshake.
pub fn accept<B>(request: &Request<B>, protocol: &str) -> Result<Response<()>, AcceptError> {
    let key = request.headers().get(SEC_WEBSOCKET_KEY).ok_or(AcceptError::NoKey)?;
    let value = |text: &str, name| HeaderValue::from_str(text).map_err(|_| AcceptError::NotAscii(name));
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, value(&derive_accept_key(key.as_bytes()), "Sec-WebSocket-Key")?);
    if !protocol.is_empty() {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, value(protocol, "Sec-WebSocket-Protocol")?);
    }
    Ok(response)
}

/// The WebSocket on a connection whose handshake is done.
pub async fn serve(connection: Upgraded) -> WebSocket {
    // One message is one write of a program or one piece of a terminal's input.
    let config = WebSocketConfig::default().max_message_size(Some(4 << 20)).max_frame_size(Some(4 << 20));
    WebSocketStream::from_raw_socket(TokioIo::new(connection), Role::Server, Some(config)).await
}

fn has_token(headers: &HeaderMap, name: &http::HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|t| t.eq_ignore_ascii_case(token))
}

fn tokens<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshake_is_rfc_6455s_own_example() {
        let request = Request::builder()
            .header("connection", "keep-alive, Upgrade")
            .header("upgrade", "WebSocket")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("sec-websocket-protocol", "x, v5.channel.k8s.io , v4.channel.k8s.io")
            .body(())
            .unwrap();
        assert!(is_websocket(request.headers()));
        assert_eq!(choose(request.headers(), &[CHANNEL_V4, CHANNEL_V5]), Some(CHANNEL_V5));
        let response = accept(&request, CHANNEL_V5).unwrap();
        assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(matches!(accept(&Request::new(()), CHANNEL_V5), Err(AcceptError::NoKey)));
    }
}
