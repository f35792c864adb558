//! Media types (`apiserver/pkg/endpoints/handlers/negotiation`).

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};

use crate::problem::{Problem, Result};

const ACCEPTED: &str = "application/json, application/yaml";

/// What form an answer takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Object,
    /// `meta.k8s.io` Table of a version.
    Table(&'static str),
    /// `meta.k8s.io` PartialObjectMetadata of a version; of lists, PartialObjectMetadataList.
    Partial(&'static str),
}

/// What the client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accept {
    pub shape: Shape,
    pub yaml: bool,
}

impl Accept {
    pub(crate) const JSON: Accept = Accept { shape: Shape::Object, yaml: false };

    /// The first type of the header that this server can produce.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self> {
        let mut lines = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).peekable();
        if lines.peek().is_none() {
            return Ok(Self::JSON);
        }
        let mut clauses: Vec<(f32, &str)> =
            lines.flat_map(|line| line.split(',')).map(|clause| (quality(clause), clause.trim())).collect();
        // Stable: of equal quality the first counts.
        clauses.sort_by(|a, b| b.0.total_cmp(&a.0));
        let found = clauses.iter().filter(|(q, _)| *q > 0.0).find_map(|(_, clause)| clause_of(clause));
        found.ok_or_else(|| Problem::not_acceptable(ACCEPTED))
    }

    pub(crate) fn is_plain_json(self) -> bool {
        self == Self::JSON
    }
}

fn quality(clause: &str) -> f32 {
    parameter(clause, "q").and_then(|q| q.parse().ok()).unwrap_or(1.0)
}

fn parameter<'a>(clause: &'a str, name: &str) -> Option<&'a str> {
    clause.split(';').skip(1).find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim().trim_matches('"'))
    })
}

fn clause_of(clause: &str) -> Option<Accept> {
    let media = clause.split(';').next().unwrap_or_default().trim();
    let yaml = match media {
        "application/json" | "application/*" | "*/*" => false,
        "application/yaml" => true,
        _ => return None,
    };
    let version = match (parameter(clause, "g"), parameter(clause, "v")) {
        (Some("meta.k8s.io"), Some("v1")) => "v1",
        (Some("meta.k8s.io"), Some("v1beta1")) => "v1beta1",
        _ => "",
    };
    let shape = match parameter(clause, "as") {
        None | Some("") => Shape::Object,
        Some("Table") if !version.is_empty() => Shape::Table(version),
        Some("PartialObjectMetadata" | "PartialObjectMetadataList") if !version.is_empty() => Shape::Partial(version),
        Some(_) => return None,
    };
    Some(Accept { shape, yaml })
}

/// The media type of the body without parameters; empty when none is said.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// Whether the body is YAML; anything but JSON and YAML is refused.
pub(crate) fn is_yaml(headers: &HeaderMap) -> Result<bool> {
    match media_type(headers) {
        "" | "application/json" | "*/*" => Ok(false),
        "application/yaml" => Ok(true),
        _ => Err(Problem::unsupported_media_type(ACCEPTED)),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::ACCEPT;

    use super::{Accept, Shape};

    fn accept(text: &'static str) -> Option<Accept> {
        let headers: HeaderMap = [(ACCEPT, http::HeaderValue::from_static(text))].into_iter().collect();
        Accept::of(&headers).ok()
    }

    #[test]
    fn the_first_type_that_can_be_made_counts() {
        let table = Accept { shape: Shape::Table("v1"), yaml: false };
        assert_eq!(accept("application/json;as=Table;v=v1;g=meta.k8s.io,application/json"), Some(table));
        assert_eq!(accept("application/vnd.kubernetes.protobuf,application/json"), Some(Accept::JSON));
        assert_eq!(accept("application/json;q=0.1,application/yaml"), Some(Accept { yaml: true, ..Accept::JSON }));
        assert_eq!(accept("*/*"), Some(Accept::JSON));
        assert_eq!(accept("application/json;as=Chair;v=v1;g=meta.k8s.io"), None);
        assert_eq!(accept("text/html"), None);
    }
}
