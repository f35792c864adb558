//! Media types (`apiserver/pkg/endpoints/handlers/negotiation`).

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};
use schema::protobuf;

use crate::problem::{Problem, Result};

const ACCEPTED: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// What form an answer takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Object,
    /// `meta.k8s.io` Table of a version.
    Table(&'static str),
    /// `meta.k8s.io` PartialObjectMetadata of a version; of lists, PartialObjectMetadataList.
    Partial(&'static str),
}

/// How values are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Yaml,
    Protobuf,
}

/// What the client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accept {
    pub shape: Shape,
    pub format: Format,
}

/// In what forms an answer can be given, beside an object in JSON or YAML.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Offer {
    pub protobuf: bool,
    pub tables: bool,
}

impl Offer {
    pub(crate) const ALL: Offer = Offer { protobuf: true, tables: true };

    fn has(self, accept: Accept) -> bool {
        (self.protobuf || accept.format != Format::Protobuf)
            && (self.tables || !matches!(accept.shape, Shape::Table(_)))
    }
}

impl Accept {
    pub(crate) const JSON: Accept = Accept { shape: Shape::Object, format: Format::Json };

    /// The first type of the header that can be given.
    pub(crate) fn of(headers: &HeaderMap, offer: Offer) -> Result<Self> {
        let mut lines = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).peekable();
        if lines.peek().is_none() {
            return Ok(Self::JSON);
        }
        let mut clauses: Vec<(f32, &str)> =
            lines.flat_map(|line| line.split(',')).map(|clause| (quality(clause), clause.trim())).collect();
        // Stable: of equal quality the first counts.
        clauses.sort_by(|a, b| b.0.total_cmp(&a.0));
        let found = clauses
            .iter()
            .filter(|(q, _)| *q > 0.0)
            .filter_map(|(_, clause)| clause_of(clause))
            .find(|accept| offer.has(*accept));
        found.ok_or_else(|| Problem::not_acceptable(ACCEPTED))
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
    let format = match media {
        "application/json" | "application/*" | "*/*" => Format::Json,
        "application/yaml" => Format::Yaml,
        protobuf::MEDIA_TYPE => Format::Protobuf,
        _ => return None,
    };
    let version = match (parameter(clause, "g"), parameter(clause, "v")) {
        (Some("meta.k8s.io"), Some("v1")) => "v1",
        (Some("meta.k8s.io"), Some("v1beta1")) => "v1beta1",
        _ => "",
    };
    let shape = match parameter(clause, "as") {
        None | Some("") => Shape::Object,
        // Tables have no messages, and metadata only that of v1.
        Some(_) if format == Format::Protobuf && version != "v1" => return None,
        Some("Table") if format == Format::Protobuf => return None,
        Some("Table") if !version.is_empty() => Shape::Table(version),
        Some("PartialObjectMetadata" | "PartialObjectMetadataList") if !version.is_empty() => Shape::Partial(version),
        Some(_) => return None,
    };
    Some(Accept { shape, format })
}

/// The media type of the body without parameters; empty when none is said.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// How the body is written.
pub(crate) fn body_format(headers: &HeaderMap) -> Result<Format> {
    match media_type(headers) {
        "" | "application/json" | "*/*" => Ok(Format::Json),
        "application/yaml" => Ok(Format::Yaml),
        protobuf::MEDIA_TYPE => Ok(Format::Protobuf),
        _ => Err(Problem::unsupported_media_type(ACCEPTED)),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use http::header::ACCEPT;

    use super::{Accept, Format, Offer, Shape};

    const JSON_ONLY: Offer = Offer { protobuf: false, tables: false };

    fn of(text: &'static str, offer: Offer) -> Option<Accept> {
        let headers: HeaderMap = [(ACCEPT, http::HeaderValue::from_static(text))].into_iter().collect();
        Accept::of(&headers, offer).ok()
    }

    fn accept(text: &'static str) -> Option<Accept> {
        of(text, Offer::ALL)
    }

    #[test]
    fn the_first_type_that_can_be_made_counts() {
        let table = Accept { shape: Shape::Table("v1"), format: Format::Json };
        let either = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert_eq!(accept(either), Some(table));
        assert_eq!(of(either, JSON_ONLY), Some(Accept::JSON));
        assert_eq!(of("application/json;as=Table;v=v1;g=meta.k8s.io", JSON_ONLY), None);
        let yaml = Accept { format: Format::Yaml, ..Accept::JSON };
        assert_eq!(accept("application/json;q=0.1,application/yaml"), Some(yaml));
        assert_eq!(accept("*/*"), Some(Accept::JSON));
        assert_eq!(accept("application/json;as=Chair;v=v1;g=meta.k8s.io"), None);
        assert_eq!(accept("text/html"), None);
    }

    #[test]
    fn protobuf_is_made_where_there_are_messages() {
        let protobuf = Accept { format: Format::Protobuf, ..Accept::JSON };
        let both = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(accept(both), Some(protobuf));
        assert_eq!(of(both, JSON_ONLY), Some(Accept::JSON));
        assert_eq!(of("application/vnd.kubernetes.protobuf", JSON_ONLY), None);
        assert_eq!(accept("application/json,application/vnd.kubernetes.protobuf"), Some(Accept::JSON));
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        assert_eq!(accept(metadata), Some(Accept { shape: Shape::Partial("v1"), ..protobuf }));
        let table = "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1,application/json";
        assert_eq!(accept(table), Some(Accept::JSON));
    }
}
