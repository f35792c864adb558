//! From a request body to an object.

use serde_json::Value;

use crate::errors::DecodeError;
use crate::kind::{Decoded, FieldValidation, Kind};

pub(crate) fn from_json(kind: &Kind, body: &[u8], validation: FieldValidation) -> Result<Decoded, DecodeError> {
    let value = serde_json::from_slice(body).map_err(|e| DecodeError::Syntax(e.to_string()))?;
    from_value(kind, value, Vec::new(), validation)
}

pub(crate) fn from_value(
    _kind: &Kind,
    value: Value,
    warnings: Vec<String>,
    _validation: FieldValidation,
) -> Result<Decoded, DecodeError> {
    Ok(Decoded { value, warnings })
}
