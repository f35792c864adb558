use serde_json::{Value, json};

/// A refusal: HTTP code, Status reason and message as upstream words them (`apimachinery/pkg/api/errors`).
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
    /// `Status.details`, `Null` where upstream sends none.
    pub details: Value,
}

impl Refusal {
    /// 403 for one object, or for a collection when `name` is empty: `pods "x" is forbidden: WHY`.
    pub fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let qualified = qualified(group, resource);
        let message = match (qualified.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {why}"),
            (false, true) => format!("{qualified} is forbidden: {why}"),
            (false, false) => format!("{qualified} \"{name}\" is forbidden: {why}"),
        };
        Self::new(403, "Forbidden", message, details(group, resource, name))
    }

    /// 401, which never says why: the reason may help an attacker.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized".to_owned(), Value::Null)
    }

    pub fn bad_request(why: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", why.into(), Value::Null)
    }

    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", qualified(group, resource));
        Self::new(404, "NotFound", message, details(group, resource, name))
    }

    /// 404 whose text is given, e.g. because it names the resource in the singular.
    pub(crate) fn not_found_text(group: &str, resource: &str, name: &str, message: String) -> Self {
        Self::new(404, "NotFound", message, details(group, resource, name))
    }

    pub fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", qualified(group, resource));
        Self::new(409, "Conflict", message, details(group, resource, name))
    }

    /// 422 for some fields; their messages are the whole cause texts, e.g. `Invalid value: 1: may not …`.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: &[FieldCause<'_>]) -> Self {
        let shown: Vec<_> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        let list = match shown.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let message = format!("{} \"{name}\" is invalid: {list}", qualified(group, kind));
        let mut details = details(group, kind, name);
        let cause = |c: &FieldCause<'_>| json!({ "reason": c.reason, "message": c.message, "field": c.field });
        details["causes"] = causes.iter().map(cause).collect();
        Self::new(422, "Invalid", message, details)
    }

    /// 500 that the client may retry.
    pub fn internal(why: &str) -> Self {
        let details = json!({ "causes": [{ "message": why }] });
        Self::new(500, "InternalError", format!("Internal error occurred: {why}"), details)
    }

    fn new(code: u16, reason: &'static str, message: String, details: Value) -> Self {
        Refusal { code, reason, message, details }
    }
}

/// One cause of a 422.
pub struct FieldCause<'a> {
    /// `FieldValueInvalid`, `FieldValueRequired`, …
    pub reason: &'a str,
    pub field: &'a str,
    pub message: &'a str,
}

fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}

fn details(group: &str, kind: &str, name: &str) -> Value {
    let mut details = json!({});
    for (key, value) in [("name", name), ("group", group), ("kind", kind)] {
        if !value.is_empty() {
            details[key] = json!(value);
        }
    }
    details
}
