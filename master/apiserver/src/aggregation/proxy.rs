//! Requests passed on to another API server (`kube-aggregator/pkg/apiserver/handler_proxy.go`).

use auth::UserInfo;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Request, Response, StatusCode, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::Backend;
use crate::body::{self, Body};
use crate::relay;
use crate::server::Core;

/// Who it is that the front proxy has authenticated.
const USER: HeaderName = HeaderName::from_static("x-remote-user");
const UID: HeaderName = HeaderName::from_static("x-remote-uid");
const GROUP: HeaderName = HeaderName::from_static("x-remote-group");
const EXTRA: &str = "x-remote-extra-";
/// What a client may not say of himself, and what has been obeyed already.
const OURS: [&str; 2] = ["x-remote-", "impersonate-"];

/// What cannot stand in the name of a header; `%` leads what is escaped.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'*')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// Passes a request on whose sender may make it. What goes wrong is told in plain words, as upstream's proxy does.
pub(crate) async fn answer(
    core: &Core,
    backend: &Backend,
    user: &UserInfo,
    mut head: Parts,
    body: Body,
) -> Response<Body> {
    if !backend.available {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "service unavailable");
    }
    let address = match backend.resolve(core) {
        Ok(address) => address,
        Err(error) => {
            tracing::info!(%error, path = head.uri.path(), "a request for another API server was not passed on");
            return plain(StatusCode::SERVICE_UNAVAILABLE, "service unavailable");
        }
    };
    let client = relay::asked(&mut head);
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = head.uri.path_and_query().cloned().map(Uri::from).unwrap_or_default();
    let headers = request.headers_mut();
    *headers = relay::end_to_end(&head.headers);
    identify(headers, user);
    if client.is_some() {
        relay::ask_for_upgrade(&head.headers, headers);
    }
    let response = match backend.send(address, request).await {
        Ok(response) => response,
        Err(error) => return plain(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    };
    match client {
        Some(client) if response.status() == StatusCode::SWITCHING_PROTOCOLS => relay::join(client, response),
        _ if response.status().is_redirection() && response.headers().contains_key(header::LOCATION) => {
            let why = "the backend attempted to redirect this request, which is not permitted";
            plain(StatusCode::BAD_GATEWAY, why)
        }
        _ => relay::passed_back(response),
    }
}

/// Go's `http.Error`.
fn plain(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = body::respond(status, body::TEXT, format!("{text}\n"));
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Says who sent a request (`transport.SetAuthProxyHeaders`). Nothing that the client said of it remains.
pub(super) fn identify(headers: &mut HeaderMap, user: &UserInfo) {
    let own: Vec<HeaderName> =
        headers.keys().filter(|name| OURS.iter().any(|own| name.as_str().starts_with(own))).cloned().collect();
    for name in own {
        headers.remove(name);
    }
    let mut add = |name: HeaderName, value: &str| match HeaderValue::from_bytes(value.as_bytes()) {
        Ok(value) => {
            headers.append(name, value);
        }
        // Of no use to anybody: it would not arrive.
        Err(_) => tracing::warn!(header = %name, "what is known of a user cannot be passed on"),
    };
    add(USER, &user.username);
    if !user.uid.is_empty() {
        add(UID, &user.uid);
    }
    for group in &user.groups {
        add(GROUP, group);
    }
    for (key, values) in &user.extra {
        let name = format!("{EXTRA}{}", utf8_percent_encode(key, ESCAPED));
        let Ok(name) = HeaderName::try_from(name) else { continue };
        for value in values {
            add(name.clone(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_says_nothing_of_itself() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-remote-user", "root"),
            ("x-remote-group", "system:masters"),
            ("x-remote-extra-x", "y"),
            ("impersonate-user", "other"),
            ("accept", "*/*"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let mut user = UserInfo::new("jane", &["a", "b"]);
        user.extra.insert("example.org/Key%".into(), vec!["1".into(), "2".into()]);
        identify(&mut headers, &user);
        let all = |name: &str| -> Vec<&str> { headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect() };
        assert_eq!((all("x-remote-user"), all("x-remote-group")), (vec!["jane"], vec!["a", "b"]));
        assert_eq!(all("x-remote-extra-example.org%2fkey%25"), ["1", "2"]);
        assert_eq!((all("accept"), all("x-remote-uid").len(), headers.len()), (vec!["*/*"], 0, 6));
    }
}
