//! Whether a Service can be: upstream's `ValidateService`.

use serde_json::Value;

use crate::errors::Errors;
use crate::kind::Part;

pub(crate) fn validate(_object: &Value, _errors: &mut Errors) {}

pub(crate) fn validate_update(part: Part, object: &Value, _old: &Value, errors: &mut Errors) {
    if part == Part::Main {
        validate(object, errors);
    }
}
