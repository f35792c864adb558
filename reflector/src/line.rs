//! A line of a watch.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::Error as _;
use serde_json::value::RawValue;

use crate::Told;

const TYPES: &[&str] = &["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"];

/// `WatchEvent`.
#[derive(Debug, Deserialize)]
pub struct Line<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    object: Box<RawValue>,
}

#[derive(Deserialize)]
struct Object {
    metadata: Meta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    resource_version: Option<String>,
}

impl<'a> Line<'a> {
    pub fn read(line: &'a [u8]) -> Result<Self, kube::Error> {
        serde_json::from_slice(line).map_err(|error| match serde_json::from_slice(line).map(kube::Error::Api) {
            // Of whoever stands in between.
            Ok(kube::Error::Api(status)) if status.code != 0 => kube::Error::Api(status),
            _ => kube::Error::SerdeError(error),
        })
    }

    /// What it tells, nothing for a bookmark; and notes how far that is.
    pub fn told(self, version: &mut String) -> Result<Option<Told<Box<RawValue>>>, kube::Error> {
        let Self { kind, object } = self;
        let told: Option<fn(_) -> _> = match &*kind {
            "ADDED" | "MODIFIED" => Some(Told::Applied),
            "DELETED" => Some(Told::Deleted),
            "BOOKMARK" => None,
            "ERROR" => {
                let status = serde_json::from_str(object.get());
                return Err(status.map_or_else(kube::Error::SerdeError, kube::Error::Api));
            }
            other => return Err(kube::Error::SerdeError(serde_json::Error::unknown_variant(other, TYPES))),
        };
        let Object { metadata } = serde_json::from_str(object.get()).map_err(kube::Error::SerdeError)?;
        *version = known(metadata.resource_version)?;
        Ok(told.map(|told| told(object)))
    }
}

/// A resourceVersion from which can be gone on. From none a server would tell of all there is, and never of what went meanwhile.
pub fn known(version: Option<String>) -> Result<String, kube::Error> {
    let missing = || kube::Error::SerdeError(serde_json::Error::missing_field("metadata.resourceVersion"));
    version.filter(|version| !version.is_empty()).ok_or_else(missing)
}
