//! Strategic merge patch.

use serde_json::Value;

use crate::errors::PatchError;
use crate::kind::Kind;

pub(crate) fn merge(kind: &Kind, _original: &Value, _patch: &Value) -> Result<Value, PatchError> {
    Err(PatchError::Invalid(format!("strategic merge patch is not there yet for {}", kind.kind)))
}
