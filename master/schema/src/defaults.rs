//! Defaulting.

use serde_json::Value;

use crate::kind::Kind;

pub(crate) fn apply(kind: &Kind, object: &mut Value) {
    (kind.hooks.default)(object);
}
