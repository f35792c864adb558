//! The review APIs: questions about users and rights that are answered and not stored
//! (`authentication.k8s.io/v1`, `authorization.k8s.io/v1`).

use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::refusal::FieldCause;
use crate::{Attributes, Authenticator, Authorizer, Rbac, Refusal, UserInfo, names, node_identity};

const AUTHORIZATION: &str = "authorization.k8s.io";

/// Answers what is POSTed to the review resources.
pub struct Reviews {
    authenticator: Arc<Authenticator>,
    authorizer: Arc<dyn Authorizer>,
    rbac: Arc<Rbac>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct AccessSpec {
    resource_attributes: Option<ResourceAttributes>,
    non_resource_attributes: Option<NonResourceAttributes>,
    user: String,
    uid: String,
    groups: Vec<String>,
    extra: std::collections::BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct ResourceAttributes {
    namespace: String,
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    name: String,
    field_selector: Option<Selector>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NonResourceAttributes {
    path: String,
    verb: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Selector {
    raw_selector: String,
    requirements: Vec<Requirement>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Requirement {
    key: String,
    operator: String,
    values: Vec<String>,
}

impl Selector {
    /// As a raw field selector; only demands for one value can be said so, and only those matter to an authorizer.
    fn raw(&self) -> String {
        if !self.raw_selector.is_empty() {
            return self.raw_selector.clone();
        }
        let equal = self.requirements.iter().filter(|r| r.operator == "In" && r.values.len() == 1);
        let terms: Vec<String> = equal.map(|r| format!("{}={}", r.key, r.values.concat())).collect();
        terms.join(",")
    }
}

impl Reviews {
    pub fn new(authenticator: Arc<Authenticator>, authorizer: Arc<dyn Authorizer>, rbac: Arc<Rbac>) -> Self {
        Reviews { authenticator, authorizer, rbac }
    }

    /// Answers a create of `resource` (`tokenreviews`, `selfsubjectreviews`, `subjectaccessreviews`,
    /// `localsubjectaccessreviews`, `selfsubjectaccessreviews`, `selfsubjectrulesreviews`): `body` with its status.
    /// `None` for any other resource.
    pub fn review(
        &self,
        resource: &str,
        namespace: &str,
        requester: &UserInfo,
        mut body: Value,
        now: Timestamp,
    ) -> Option<Result<Value, Refusal>> {
        if !body.is_object() {
            return Some(Err(Refusal::bad_request("a review must be an object")));
        }
        let status = match resource {
            "tokenreviews" => self.token(&body, now),
            "selfsubjectreviews" => Ok(json!({ "userInfo": requester })),
            "subjectaccessreviews" => self.access(&body, "SubjectAccessReview", None),
            "localsubjectaccessreviews" => self.local_access(&body, namespace),
            "selfsubjectaccessreviews" => self.access(&body, "SelfSubjectAccessReview", Some(requester)),
            "selfsubjectrulesreviews" => self.rules(&body, requester),
            _ => return None,
        };
        Some(status.map(|status| {
            body["status"] = status;
            if body["metadata"].is_null() {
                body["metadata"] = json!({});
            }
            if resource == "selfsubjectreviews" {
                body["metadata"]["creationTimestamp"] =
                    json!(Timestamp::from_second(now.as_second()).unwrap_or(now).to_string());
            }
            body
        }))
    }

    fn token(&self, body: &Value, now: Timestamp) -> Result<Value, Refusal> {
        let spec = &body["spec"];
        let token = spec["token"].as_str().unwrap_or_default();
        if token.is_empty() {
            return Err(Refusal::bad_request("token is required for TokenReview in authentication"));
        }
        let audiences = spec["audiences"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let audiences: Vec<String> = audiences.map(str::to_owned).collect();
        Ok(match self.authenticator.authenticate_token(token, &audiences, now) {
            Ok(authentication) => {
                let mut status = json!({ "authenticated": true, "user": authentication.user });
                if !authentication.audiences.is_empty() {
                    status["audiences"] = json!(authentication.audiences);
                }
                status
            }
            Err(error) => json!({ "user": {}, "error": error.to_string() }),
        })
    }

    fn local_access(&self, body: &Value, namespace: &str) -> Result<Value, Refusal> {
        let asked = body.pointer("/spec/resourceAttributes/namespace").and_then(Value::as_str).unwrap_or_default();
        if asked != namespace {
            return Err(Refusal::bad_request(format!(
                "spec.resourceAttributes.namespace must match namespace: {namespace}"
            )));
        }
        self.access(body, "LocalSubjectAccessReview", None)
    }

    fn access(&self, body: &Value, kind: &str, requester: Option<&UserInfo>) -> Result<Value, Refusal> {
        let spec = AccessSpec::deserialize(&body["spec"]).map_err(|error| Refusal::bad_request(error.to_string()))?;
        let user = match requester {
            Some(requester) => requester.clone(),
            None => spec.subject(kind)?,
        };
        let field_selector;
        let attributes = match (&spec.resource_attributes, &spec.non_resource_attributes) {
            (Some(resource), None) => {
                field_selector = resource.field_selector.as_ref().map(Selector::raw).unwrap_or_default();
                resource.attributes(&user, &field_selector)
            }
            (None, Some(other)) => other.attributes(&user),
            _ => return Err(exactly_one(kind)),
        };
        let decision = self.authorizer.authorize(&attributes);
        let mut status = json!({ "allowed": decision.allowed() });
        if !decision.reason().is_empty() {
            status["reason"] = json!(decision.reason());
        }
        Ok(status)
    }

    fn rules(&self, body: &Value, requester: &UserInfo) -> Result<Value, Refusal> {
        let namespace = body.pointer("/spec/namespace").and_then(Value::as_str).unwrap_or_default();
        if namespace.is_empty() {
            return Err(Refusal::bad_request("no namespace on request"));
        }
        let (rules, mut errors) = self.rbac.rules_for(requester, namespace);
        let (mut resource_rules, mut non_resource_rules) = (Vec::new(), Vec::new());
        if requester.in_group(names::PRIVILEGED_GROUP) {
            resource_rules.push(json!({ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] }));
            non_resource_rules.push(json!({ "verbs": ["*"], "nonResourceURLs": ["*"] }));
        }
        for rule in rules {
            let is_resource_rule = !rule.resources.is_empty();
            let list = if is_resource_rule { &mut resource_rules } else { &mut non_resource_rules };
            list.push(json!(rule));
        }
        let is_node = node_identity(requester).is_some();
        if is_node {
            errors.push("node authorizer does not support user rule resolution".to_owned());
        }
        let mut status = json!({
            "incomplete": is_node || !errors.is_empty(),
            "resourceRules": resource_rules,
            "nonResourceRules": non_resource_rules,
        });
        if !errors.is_empty() {
            status["evaluationError"] = json!(errors.join(", "));
        }
        Ok(status)
    }
}

impl AccessSpec {
    fn subject(&self, kind: &str) -> Result<UserInfo, Refusal> {
        if self.user.is_empty() && self.groups.is_empty() {
            let cause = FieldCause {
                reason: "FieldValueInvalid",
                field: "spec.user",
                message: "Invalid value: \"\": at least one of user or group must be specified",
            };
            return Err(Refusal::invalid(AUTHORIZATION, kind, "", &[cause]));
        }
        Ok(UserInfo {
            username: self.user.clone(),
            uid: self.uid.clone(),
            groups: self.groups.clone(),
            extra: self.extra.clone(),
        })
    }
}

impl ResourceAttributes {
    fn attributes<'a>(&'a self, user: &'a UserInfo, field_selector: &'a str) -> Attributes<'a> {
        Attributes {
            group: &self.group,
            version: &self.version,
            resource: &self.resource,
            subresource: &self.subresource,
            namespace: &self.namespace,
            name: &self.name,
            field_selector,
            ..Attributes::of(user, &self.verb)
        }
    }
}

impl NonResourceAttributes {
    fn attributes<'a>(&'a self, user: &'a UserInfo) -> Attributes<'a> {
        Attributes { path: Some(&self.path), ..Attributes::of(user, &self.verb) }
    }
}

fn exactly_one(kind: &str) -> Refusal {
    let cause = FieldCause {
        reason: "FieldValueInvalid",
        field: "spec.resourceAttributes",
        message: "Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified",
    };
    Refusal::invalid(AUTHORIZATION, kind, "", &[cause])
}

#[cfg(test)]
mod tests;
