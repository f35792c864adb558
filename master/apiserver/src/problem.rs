//! Every error of the server as the `v1` Status that upstream would send (`apimachinery/pkg/api/errors`).

use auth::Refusal;
use http::StatusCode;
use schema::{Conflict, FieldError, Kind};
use serde_json::{Map, Value, json};

/// One failed request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Problem {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
    pub details: Value,
    /// `metadata.continue` of a 410 for a list that may go on inconsistently.
    pub continuation: Option<String>,
}

pub(crate) type Result<T, E = Problem> = std::result::Result<T, E>;

impl Problem {
    pub(crate) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Problem { code, reason, message: message.into(), details: Value::Null, continuation: None }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(crate) fn not_found(kind: &Kind, name: &str) -> Self {
        Refusal::not_found(kind.group, kind.plural, name).into()
    }

    pub(crate) fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        Refusal::conflict(kind.group, kind.plural, name, why).into()
    }

    /// The optimistic lock's refusal (`registry/generic/registry.OptimisticLockErrorMsg`).
    pub(crate) fn modified(kind: &Kind, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(kind, name, why)
    }

    /// 409 of a server-side apply (`errors.NewApplyConflict`).
    pub(crate) fn apply_conflict(message: &str, conflicts: &[Conflict]) -> Self {
        let cause = |conflict: &Conflict| {
            let message = format!("conflict with {}", conflict.manager);
            json!({ "reason": "FieldManagerConflict", "message": message, "field": conflict.field })
        };
        let causes: Vec<Value> = conflicts.iter().map(cause).collect();
        let mut problem = Self::new(409, "Conflict", message);
        problem.details = json!({ "causes": causes });
        problem
    }

    /// 500 for an error that has no status of its own (`responsewriters.ErrorToAPIStatus`).
    pub(crate) fn untold(why: &str) -> Self {
        Self::new(500, "", why)
    }

    pub(crate) fn already_exists(kind: &Kind, name: &str, generated: bool) -> Self {
        let resource = qualified(kind.group, kind.plural);
        let tail = if generated { ", the server was not able to generate a unique name for the object" } else { "" };
        let message = format!("{resource} \"{name}\" already exists{tail}");
        Self::new(409, "AlreadyExists", message).about(kind.group, kind.plural, name)
    }

    /// 422 with every field that is wrong; `kind` is the kind, not the resource.
    pub(crate) fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let shown: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let list = match shown.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let causes: Vec<Value> =
            errors.iter().map(|e| json!({ "reason": e.reason, "message": e.message, "field": e.field })).collect();
        let message = format!("{} \"{name}\" is invalid: {list}", qualified(group, kind));
        let mut problem = Self::new(422, "Invalid", message).about(group, kind, name);
        problem.details["causes"] = Value::Array(causes);
        problem
    }

    /// 422 for one field.
    pub(crate) fn invalid_field(group: &str, kind: &str, name: &str, error: FieldError) -> Self {
        Self::invalid(group, kind, name, &[error])
    }

    pub(crate) fn method_not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    pub(crate) fn not_acceptable(accepted: &str) -> Self {
        Self::new(406, "NotAcceptable", format!("only the following media types are accepted: {accepted}"))
    }

    pub(crate) fn unsupported_media_type(accepted: &str) -> Self {
        let message =
            format!("the body of the request was in an unknown format - accepted media types include: {accepted}");
        Self::new(415, "UnsupportedMediaType", message)
    }

    pub(crate) fn too_large(limit: usize) -> Self {
        Self::new(413, "RequestEntityTooLarge", format!("Request entity too large: limit is {limit}"))
    }

    /// 410; the text tells a client to start again.
    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// The client knows a revision that this server has not seen (`storage.NewTooLargeResourceVersionError`).
    pub(crate) fn too_large_version(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let mut problem = Self::new(504, "Timeout", message);
        problem.details = json!({
            "causes": [{ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" }],
            "retryAfterSeconds": 1,
        });
        problem
    }

    pub(crate) fn timeout(message: impl Into<String>) -> Self {
        Self::new(504, "Timeout", format!("Timeout: {}", message.into()))
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    pub(crate) fn internal(why: &str) -> Self {
        Refusal::internal(why).into()
    }

    /// Fills `details` with what the problem is about.
    pub(crate) fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let mut details = Map::new();
        for (key, value) in [("name", name), ("group", group), ("kind", kind)] {
            if !value.is_empty() {
                details.insert(key.into(), value.into());
            }
        }
        self.details = Value::Object(details);
        self
    }

    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// `Retry-After`, in seconds.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        self.details.get("retryAfterSeconds").and_then(Value::as_u64)
    }

    /// The `v1` Status.
    pub(crate) fn to_value(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if !self.reason.is_empty() {
            status["reason"] = self.reason.into();
        }
        if let Some(token) = &self.continuation {
            status["metadata"]["continue"] = token.as_str().into();
        }
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let Refusal { code, reason, message, details } = refusal;
        Problem { code, reason, message, details, continuation: None }
    }
}

/// `deployments.apps`, `pods`.
pub(crate) fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}
