//! Bearer tokens of clients that can set no header: browsers, which send them as a subprotocol of a WebSocket
//! (`apiserver/pkg/authentication/request/websocket`).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::{HeaderValue, SEC_WEBSOCKET_PROTOCOL};
use streams::websocket::is_websocket;

const PREFIX: &str = "base64url.bearer.authorization.k8s.io.";

/// Takes such a token out of the headers, so that it reaches nobody else; as the value of an `Authorization` header, which is
/// empty where it is no token.
pub(crate) fn take(headers: &mut HeaderMap) -> Option<String> {
    if !is_websocket(headers) {
        return None;
    }
    let values = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let protocols = values.flat_map(|value| value.split(',')).map(str::trim);
    let (tokens, others): (Vec<&str>, Vec<&str>) = protocols.partition(|protocol| protocol.starts_with(PREFIX));
    // There must be one left to be chosen.
    let token = match (tokens.as_slice(), others.is_empty()) {
        ([], _) => return None,
        ([one], false) => one.strip_prefix(PREFIX).and_then(decoded),
        _ => None,
    };
    let rest = HeaderValue::from_str(&others.join(",")).ok().filter(|rest| !rest.is_empty());
    headers.remove(SEC_WEBSOCKET_PROTOCOL);
    headers.extend(rest.map(|rest| (SEC_WEBSOCKET_PROTOCOL, rest)));
    Some(token.map(|token| format!("Bearer {token}")).unwrap_or_default())
}

fn decoded(text: &str) -> Option<String> {
    URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok())
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_PROTOCOL, UPGRADE};

    use super::take;

    fn taken(protocols: &[&'static str]) -> (Option<String>, Option<String>) {
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        for protocol in protocols {
            headers.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
        }
        let token = take(&mut headers);
        let left = headers.get(SEC_WEBSOCKET_PROTOCOL).map(|left| left.to_str().unwrap().to_owned());
        (token, left)
    }

    #[test]
    fn a_token_is_taken_out_of_the_subprotocols() {
        // "my-token"
        let token = "base64url.bearer.authorization.k8s.io.bXktdG9rZW4";
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(taken(&[token, "v4.channel.k8s.io"]), (some("Bearer my-token"), some("v4.channel.k8s.io")));
        assert_eq!(
            taken(&["a, base64url.bearer.authorization.k8s.io.bXktdG9rZW4, b"]),
            (some("Bearer my-token"), some("a,b"))
        );
        assert_eq!(taken(&["a, b"]), (None, some("a, b")));
        // What is no token is none.
        assert_eq!(taken(&[token]), (some(""), None));
        assert_eq!(taken(&[token, token, "a"]), (some(""), some("a")));
        assert_eq!(taken(&["base64url.bearer.authorization.k8s.io.!", "a"]), (some(""), some("a")));
        assert_eq!(take(&mut HeaderMap::new()), None);
    }
}
