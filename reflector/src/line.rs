//! A line of a watch.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::Error as _;
use serde_json::value::RawValue;

use crate::Told;

const TYPES: &[&str] = &["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"];

/// `WatchEvent`.
#[derive(Deserialize)]
pub struct Line<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    object: Box<RawValue>,
}

#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow)]
    metadata: Meta<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta<'a> {
    #[serde(borrow)]
    resource_version: Cow<'a, str>,
}

impl<'a> Line<'a> {
    pub fn read(line: &'a [u8]) -> Result<Self, kube::Error> {
        serde_json::from_slice(line).map_err(kube::Error::SerdeError)
    }

    /// What it tells, nothing for a bookmark; and notes how far that is.
    pub fn told(self, version: &mut String) -> Result<Option<Told<Box<RawValue>>>, kube::Error> {
        let Self { kind, object } = self;
        let told: Option<fn(_) -> _> = match &*kind {
            "ADDED" | "MODIFIED" => Some(Told::Applied),
            "DELETED" => Some(Told::Deleted),
            "BOOKMARK" => None,
            "ERROR" => {
                return Err(serde_json::from_str(object.get()).map_or_else(kube::Error::SerdeError, kube::Error::Api));
            }
            other => return Err(kube::Error::SerdeError(serde_json::Error::unknown_variant(other, TYPES))),
        };
        *version = of(&object)?;
        Ok(told.map(|told| told(object)))
    }
}

/// The version of an object.
fn of(object: &RawValue) -> Result<String, kube::Error> {
    let read: Object<'_> = serde_json::from_str(object.get()).map_err(kube::Error::SerdeError)?;
    Ok(read.metadata.resource_version.into_owned())
}
