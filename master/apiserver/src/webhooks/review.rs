//! `admission.k8s.io/v1` AdmissionReview: what a webhook is told, and what it answers; and the conditions on which it is asked.

use std::sync::Arc;

use admission::Operation;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use expressions::{CelError, Variables};
use json_patch::PatchOperation;
use schema::Kind;
use serde_json::{Value, json};

use super::{Attributes, Hook, Wishes, authorizer};
use crate::problem::{Problem, Result};
use crate::server::Core;

/// What a webhook may give as the reason of a refusal (`meta/v1` StatusReason).
const REASONS: [&str; 16] = [
    "Unauthorized",
    "Forbidden",
    "NotFound",
    "AlreadyExists",
    "Conflict",
    "Gone",
    "Invalid",
    "ServerTimeout",
    "Timeout",
    "TooManyRequests",
    "BadRequest",
    "MethodNotAllowed",
    "NotAcceptable",
    "RequestEntityTooLarge",
    "InternalError",
    "ServiceUnavailable",
];

/// A patch that a webhook wants.
#[derive(Debug)]
pub(super) struct Patch(pub Vec<PatchOperation>);

/// What a webhook said.
#[derive(Debug, Default)]
pub(super) struct Answer {
    allowed: bool,
    status: Value,
    pub patch: Option<Patch>,
    pub warnings: Vec<String>,
}

impl Answer {
    /// Itself, or the refusal (`webhook/errors.ToStatusErr`).
    pub(super) fn allowed(self, webhook: &str) -> Result<Self> {
        if self.allowed {
            return Ok(self);
        }
        let denied = format!("admission webhook \"{webhook}\" denied the request");
        let said = |field: &str| self.status[field].as_str().filter(|text| !text.is_empty());
        let message = match (said("message"), said("reason")) {
            (Some(message), _) => format!("{denied}: {message}"),
            (None, Some(reason)) => format!("{denied}: {reason}"),
            (None, None) => format!("{denied} without explanation"),
        };
        let code = self.status["code"].as_u64().and_then(|code| u16::try_from(code).ok()).filter(|code| *code >= 400);
        let reason = said("reason").and_then(|said| REASONS.iter().find(|known| **known == said)).copied();
        let mut problem = Problem::new(code.unwrap_or(400), reason.unwrap_or_default(), message);
        problem.details = self.status["details"].clone();
        Err(problem)
    }
}

/// `request.options`, whose kind says what is done, not what was asked for.
fn options(attributes: &Attributes<'_>) -> Value {
    match (attributes.wishes, attributes.operation) {
        (Wishes::Query(query), Operation::Update) => query.options("UpdateOptions"),
        (Wishes::Query(query), _) => query.options("CreateOptions"),
        (Wishes::Delete(options), _) => options.shown(),
        (Wishes::Connect, _) => Value::Null,
    }
}

/// The request of a review: of an object in the version that the webhook wants.
pub(super) fn request(
    attributes: &Attributes<'_>,
    version: &Kind,
    (object, old): (Option<&Value>, Option<&Value>),
) -> Value {
    let kind_of = |kind: &Kind| match attributes.body {
        Some((group, version, kind)) => json!({ "group": group, "version": version, "kind": kind }),
        None => json!({ "group": kind.group, "version": kind.version, "kind": kind.kind }),
    };
    let resource_of = |kind: &Kind| json!({ "group": kind.group, "version": kind.version, "resource": kind.plural });
    let mut request = json!({
        "uid": auth::random_uuid(),
        "kind": kind_of(version),
        "resource": resource_of(version),
        "requestKind": kind_of(attributes.kind),
        "requestResource": resource_of(attributes.kind),
        "operation": attributes.operation.as_str(),
        "userInfo": serde_json::to_value(attributes.user).unwrap_or_default(),
        "object": object,
        "oldObject": old,
        "dryRun": attributes.dry_run,
        "options": options(attributes),
    });
    let optional = [
        ("name", attributes.name),
        ("namespace", attributes.namespace),
        ("subResource", attributes.subresource),
        ("requestSubResource", attributes.subresource),
    ];
    for (field, text) in optional.into_iter().filter(|(_, text)| !text.is_empty()) {
        request[field] = text.into();
    }
    request
}

/// Whether all conditions of a webhook hold.
pub(super) fn conditions(
    core: &Core,
    hook: &Hook,
    (attributes, version): (&Attributes<'_>, &Kind),
    object: Option<&Value>,
) -> Result<bool, CelError> {
    let conditions = &hook.said()["matchConditions"];
    if conditions.as_array().is_none_or(Vec::is_empty) {
        return Ok(true);
    }
    let mut variables = Variables::with(Arc::clone(&hook.configuration.programs));
    let mut request = request(attributes, version, (None, None));
    if let Some(request) = request.as_object_mut() {
        request.remove("object");
        request.remove("oldObject");
    }
    variables.set("object", object.unwrap_or(&Value::Null));
    variables.set("oldObject", attributes.old.unwrap_or(&Value::Null));
    variables.set("request", &request);
    authorizer::lend(core, attributes, &mut variables);
    hold(conditions, &variables)
}

/// Whether all conditions of a list hold; what is asked afterwards may cost as much as if nothing had been asked before.
pub(super) fn hold(conditions: &Value, variables: &Variables) -> Result<bool, CelError> {
    variables.grant(expressions::CONDITIONS);
    let held = all_hold(conditions, variables);
    variables.grant(expressions::WHOLE);
    held
}

fn all_hold(conditions: &Value, variables: &Variables) -> Result<bool, CelError> {
    let mut failed = None;
    for condition in conditions.as_array().into_iter().flatten() {
        match variables.holds(condition["expression"].as_str().unwrap_or_default()) {
            // One that does not hold decides, whatever the others would say.
            Ok(false) => return Ok(false),
            Ok(true) => {}
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(true), Err)
}

/// Reads the answer to a request; the error says why it is none.
pub(super) fn read(answer: &Value, request: &Value) -> Result<Answer, String> {
    let (version, kind) = (&answer["apiVersion"], &answer["kind"]);
    if *kind != "AdmissionReview"
        || !matches!(version.as_str(), Some("admission.k8s.io/v1" | "admission.k8s.io/v1beta1"))
    {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        return Err(format!(
            "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {}, Kind={}",
            text(version),
            text(kind)
        ));
    }
    let response = &answer["response"];
    if response.is_null() {
        return Err("webhook response was absent".into());
    }
    let (wanted, found) = (&request["uid"], &response["uid"]);
    if wanted != found && *version == "admission.k8s.io/v1" {
        return Err(format!("expected response.uid={wanted}, got {found}"));
    }
    let warnings = response["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str);
    Ok(Answer {
        allowed: response["allowed"] == true,
        status: response["status"].clone(),
        patch: patch(response)?,
        warnings: warnings.map(str::to_owned).collect(),
    })
}

fn patch(response: &Value) -> Result<Option<Patch>, String> {
    let Some(text) = response["patch"].as_str().filter(|text| !text.is_empty()) else { return Ok(None) };
    if response["patchType"].as_str().is_some_and(|kind| kind != "JSONPatch") {
        return Err(format!("unsupported patch type {}", response["patchType"]));
    }
    let bytes = STANDARD.decode(text).map_err(|error| format!("response.patch: {error}"))?;
    serde_json::from_slice(&bytes).map(|patch| Some(Patch(patch))).map_err(|error| format!("response.patch: {error}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::read;

    fn review(response: serde_json::Value) -> serde_json::Value {
        json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response })
    }

    #[test]
    fn answers_are_read_and_refusals_worded() {
        let request = json!({ "uid": "u" });
        let yes =
            read(&review(json!({ "uid": "u", "allowed": true, "patch": "W10=", "patchType": "JSONPatch" })), &request);
        assert!(yes.unwrap().allowed("w").unwrap().patch.unwrap().0.is_empty());
        let refused = |status| {
            let no = read(&review(json!({ "uid": "u", "allowed": false, "status": status })), &request).unwrap();
            let problem = no.allowed("a.b.c").unwrap_err();
            (problem.code, problem.message)
        };
        let wanted = (403, "admission webhook \"a.b.c\" denied the request: no".to_owned());
        assert_eq!(refused(json!({ "message": "no", "code": 403 })), wanted);
        let wanted = (400, "admission webhook \"a.b.c\" denied the request without explanation".to_owned());
        assert_eq!(refused(json!({ "code": 200 })), wanted);
        let other = read(&review(json!({ "uid": "x" })), &request).unwrap_err();
        assert_eq!(other, "expected response.uid=\"u\", got \"x\"");
        assert!(read(&json!({ "kind": "Pod" }), &request).unwrap_err().ends_with("got , Kind=Pod"));
    }
}
