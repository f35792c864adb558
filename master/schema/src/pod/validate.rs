//! Whether a pod can be: upstream's `ValidatePod` and `ValidatePodTemplateSpec`.

use serde_json::Value;

use crate::errors::{Errors, Path};

const SPEC: Path<'static> = Path::root("spec");

pub(crate) fn pod(_pod: &Value, _errors: &mut Errors) {
    let _ = SPEC;
}

pub(crate) fn tolerations(_spec: &Value, _path: &Path, _errors: &mut Errors) {}
