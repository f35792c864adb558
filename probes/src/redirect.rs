//! Where an answer leads that says that what was asked for is elsewhere, as Go's client has it (net/http/client.go).

use std::borrow::Cow;

use http::header::LOCATION;
use http::{HeaderMap, StatusCode};

/// Requests for one answer, the first included.
pub const MAX: usize = 10;

/// What an answer has in `Location`, as it stands there, if its status has one look at it.
#[must_use]
pub fn location(status: StatusCode, headers: &HeaderMap) -> Option<Cow<'_, str>> {
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = headers.get(LOCATION).filter(|location| !location.is_empty())?;
    Some(String::from_utf8_lossy(location.as_bytes()))
}
