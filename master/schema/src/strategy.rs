//! The steps of a write that all kinds share.

use serde_json::Value;

use crate::errors::{Errors, FieldError};
use crate::kind::{Kind, Part};

pub(crate) fn prepare_create(kind: &Kind, object: &mut Value) {
    (kind.hooks.prepare_create)(object);
}

pub(crate) fn prepare_update(kind: &Kind, part: Part, object: &mut Value, old: &Value) {
    (kind.hooks.prepare_update)(part, object, old);
}

pub(crate) fn validate_create(kind: &Kind, object: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    (kind.hooks.validate)(object, &mut errors);
    errors.into_vec()
}

pub(crate) fn validate_update(kind: &Kind, part: Part, object: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Errors::default();
    (kind.hooks.validate_update)(part, object, old, &mut errors);
    errors.into_vec()
}
