//! What a request asks for: pure parsing of paths, queries, media types and selectors.

mod media;
mod path;
mod query;
mod selector;
pub(crate) mod socket_token;

pub(crate) use media::{Accept, Format, Offer, Shape, body_format, media_type};
pub(crate) use path::{ResourcePath, Target};
pub(crate) use query::{LONGEST_MANAGER, Query, VersionMatch};
pub(crate) use selector::{FieldsOf, Selector};
