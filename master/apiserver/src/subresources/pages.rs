//! What backends answer through a proxy: their redirects and their pages lead back through it.

use std::io::Read as _;

use flate2::read::{DeflateDecoder, GzDecoder};
use http::header::{
    CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION,
};
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;

use super::links::Proxy;
use super::target::Destination;
use crate::body::{self, Body};
use crate::problem::{Problem, Result};
use crate::road::Call;

/// Larger pages than this are not looked at.
const LARGEST: usize = 32 * 1024 * 1024;

/// Relative links of a page at the backend's root need a slash at the end of its path.
pub(super) fn with_slash(call: &Call) -> Option<Response<Body>> {
    let uri = &call.head.uri;
    let reads = matches!(call.head.method, Method::GET | Method::HEAD);
    if !reads || call.path.subresource != "proxy" || !call.path.rest.is_empty() || uri.path().ends_with('/') {
        return None;
    }
    let query = uri.query().map_or(String::new(), |query| format!("?{query}"));
    let location = HeaderValue::from_str(&format!("{}/{query}", uri.path())).ok()?;
    let mut response = Response::new(body::full(""));
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    response.headers_mut().insert(LOCATION, location);
    Some(response)
}

/// An answer whose headers are those for the client.
pub(super) async fn passed_back(
    call: &Call,
    destination: &Destination,
    response: Response<Incoming>,
) -> Result<Response<Body>> {
    let (mut head, body) = response.into_parts();
    let proxy = proxy(call, destination);
    let new = text(&head.headers, &LOCATION).and_then(|location| proxy.rewritten(location));
    if let Some(new) = new.and_then(|new| HeaderValue::from_str(&new).ok()) {
        head.headers.insert(LOCATION, new);
    }
    if head.headers.contains_key(LOCATION) || !is_page(&head.headers) {
        return Ok(Response::from_parts(head, body.map_err(Into::into).boxed_unsync()));
    }
    let failed = |why: &str| Problem::unavailable(format!("error trying to reach service: {why}"));
    let whole = Limited::new(body, LARGEST).collect().await.map_err(|error| failed(&error.to_string()))?.to_bytes();
    let page = match text(&head.headers, &CONTENT_ENCODING) {
        Some("gzip") => unpacked(GzDecoder::new(whole.as_ref())),
        Some("deflate") => unpacked(DeflateDecoder::new(whole.as_ref())),
        _ => Ok(whole.to_vec()),
    };
    let page = proxy.page(&page.map_err(|error| failed(&error.to_string()))?);
    head.headers.remove(CONTENT_ENCODING);
    head.headers.remove(CONTENT_LENGTH);
    Ok(Response::from_parts(head, body::full(page)))
}

fn proxy(call: &Call, destination: &Destination) -> Proxy {
    let path = call.head.uri.path();
    let prefix = path.strip_suffix(call.path.rest.as_str()).unwrap_or(path).trim_end_matches('/');
    let host = text(&call.head.headers, &HOST).or_else(|| Some(call.head.uri.authority()?.as_str()));
    Proxy { prefix: prefix.to_owned(), backend: destination.authority(), host: host.unwrap_or_default().to_owned() }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Whether it is HTML in a form that can be read, and not too large.
fn is_page(headers: &HeaderMap) -> bool {
    let kind = text(headers, &CONTENT_TYPE).and_then(|kind| kind.split(';').next()).unwrap_or_default();
    let size = text(headers, &CONTENT_LENGTH).and_then(|size| size.parse::<usize>().ok());
    kind.trim() == "text/html"
        && size.is_none_or(|size| size <= LARGEST)
        && matches!(text(headers, &CONTENT_ENCODING), None | Some("" | "gzip" | "deflate"))
}

fn unpacked(packed: impl std::io::Read) -> std::io::Result<Vec<u8>> {
    let mut page = Vec::new();
    let most = u64::try_from(LARGEST).unwrap_or(u64::MAX);
    packed.take(most).read_to_end(&mut page)?;
    Ok(page)
}
