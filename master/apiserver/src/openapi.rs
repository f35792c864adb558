//! `/openapi/v2` and `/openapi/v3`: the documents of `schema`, made when they are asked for and not kept.

use std::sync::Arc;

use http::header::{ACCEPT, ETAG, HeaderValue, IF_NONE_MATCH};
use http::request::Parts;
use http::{Response, StatusCode};
use schema::Registry;
use schema::openapi::{OpenApiError, v2, v2_protobuf, v3, v3_paths};
use serde_json::{Map, Value, json};

use crate::aggregation::Documents;
use crate::body::{self, Body};
use crate::problem::Problem;
use crate::request::Format;
use crate::server::Core;

/// v2 in protobuf.
const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// The same as clients ask for it, although `@` may not stand there.
const V2_PROTOBUF_OLD: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// Answers paths of OpenAPI; `None` for others.
pub(crate) fn answer(core: &Core, head: &Parts) -> Option<Response<Body>> {
    let path = head.uri.path().trim_matches('/');
    let rest = path.strip_prefix("openapi/")?;
    let registry = core.kinds.registry();
    match rest {
        "v2" => {
            let others = others(core);
            let others: Vec<&Value> = others.iter().filter_map(|documents| documents.openapi_v2.as_ref()).collect();
            Some(if wants_protobuf(head) {
                document(head, HeaderValue::from_static(V2_PROTOBUF), v2_protobuf(&registry, &others).map(Some))
            } else {
                document(head, body::JSON, v2(&registry, &others).map(Some))
            })
        }
        "v3" => Some(index(core, &registry)),
        rest => {
            let (group, version) = match rest.strip_prefix("v3/")?.split('/').collect::<Vec<_>>().as_slice() {
                ["api", version] => ("", *version),
                ["apis", group, version] => (*group, *version),
                _ => return None,
            };
            Some(document(head, body::JSON, v3(&registry, group, version)))
        }
    }
}

/// What other servers say of themselves.
fn others(core: &Core) -> Vec<Arc<Documents>> {
    let remotes = core.aggregation.remotes();
    remotes.iter().filter_map(|(_, service)| core.aggregation.documents(&service.group, &service.version)).collect()
}

fn index(core: &Core, registry: &Registry) -> Response<Body> {
    let mut paths: Map<String, Value> = v3_paths(registry)
        .into_iter()
        .map(|entry| {
            let url = format!("/openapi/v3/{}?hash={}", entry.path, entry.hash);
            (entry.path, json!({ "serverRelativeURL": url }))
        })
        .collect();
    for (_, service) in core.aggregation.remotes() {
        let path = format!("apis/{}/{}", service.group, service.version);
        let known = core.aggregation.documents(&service.group, &service.version);
        match known.and_then(|documents| documents.openapi_v3.clone()) {
            Some(url) => paths.insert(path, json!({ "serverRelativeURL": url })),
            None => paths.remove(&path),
        };
    }
    body::json(StatusCode::OK, &json!({ "paths": paths }))
}

/// What the client accepts; all of it where it does not say.
fn accepted(head: &Parts) -> &str {
    head.headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*")
}

/// Whether the first that is accepted and can be had is protobuf.
fn wants_protobuf(head: &Parts) -> bool {
    let ranges = accepted(head).split(',').map(|range| range.split(';').next().unwrap_or_default().trim());
    let mut known = ranges.filter(|range| [V2_PROTOBUF, V2_PROTOBUF_OLD, "application/json", "*/*"].contains(range));
    known.next().is_some_and(|range| range.ends_with("protobuf"))
}

/// In the media type given; a client that does not accept it is told so.
fn document(head: &Parts, media: HeaderValue, document: Result<Option<Vec<u8>>, OpenApiError>) -> Response<Body> {
    let bytes = match document {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return body::no_such_path(),
        Err(error) => {
            tracing::error!(%error, "OpenAPI document not made");
            return body::problem(&Problem::internal("the OpenAPI document cannot be made"), Format::Json);
        }
    };
    let accept = accepted(head);
    if media == body::JSON && !accept.contains("json") && !accept.contains("*/*") {
        return body::problem(&Problem::not_acceptable("application/json"), Format::Json);
    }
    let tag = format!("\"{}-{:x}\"", bytes.len(), fingerprint(&bytes));
    if head.headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        return body::respond(StatusCode::NOT_MODIFIED, media, "");
    }
    let mut response = body::respond(StatusCode::OK, media, bytes);
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

/// FNV-1a: tells documents apart, nothing more.
fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn the_first_that_is_accepted_is_given() {
        let wants = |accept: &str| {
            let (head, ()) = Request::builder().header(ACCEPT, accept).body(()).unwrap().into_parts();
            wants_protobuf(&head)
        };
        assert!(wants(V2_PROTOBUF) && wants(V2_PROTOBUF_OLD));
        assert!(wants(&format!("text/html, {V2_PROTOBUF};q=0.9, application/json")));
        assert!(!wants(&format!("application/json, {V2_PROTOBUF}")));
        assert!(!wants("*/*") && !wants("text/html"));
        assert!(!wants_protobuf(&Request::new(()).into_parts().0));
    }
}
