//! Who puts parameters into force must be able to read them: what a policy says shows them
//! (`pkg/registry/admissionregistration/*/authz.go`).

use admission::Lookup as _;
use auth::{UserInfo, names};
use schema::FieldError;
use serde_json::Value;

use super::{mutating, name, text, validating};
use crate::hooks::CacheLookup;
use crate::problem::{Problem, Result};
use crate::server::Core;
use crate::webhooks::{Attributes, GROUP};

/// What must be readable: with stars where it is not known.
struct Wanted<'a> {
    verb: &'static str,
    group: &'a str,
    version: &'a str,
    resource: &'a str,
    namespace: &'a str,
    name: &'a str,
}

/// Refuses policies and bindings whose author may not read their parameters.
pub(in crate::webhooks) fn are_readable(
    core: &Core,
    attributes: &Attributes<'_>,
    object: Option<&Value>,
) -> Result<()> {
    let kind = attributes.kind;
    let Some(new) = object.filter(|_| kind.group == GROUP && attributes.subresource.is_empty()) else { return Ok(()) };
    if attributes.user.in_group(names::PRIVILEGED_GROUP) {
        return Ok(());
    }
    let old = attributes.old.map_or(&Value::Null, |old| &old["spec"]);
    let (field, why) = match kind.plural {
        plural if plural == mutating::SORT.policies || plural == validating::SORT.policies => {
            ("spec.paramKind", of_policy(core, attributes.user, &new["spec"], old))
        }
        plural if plural == mutating::SORT.bindings => {
            ("spec.paramRef", of_binding(core, attributes.user, mutating::SORT.policies, (&new["spec"], old)))
        }
        plural if plural == validating::SORT.bindings => {
            ("spec.paramRef", of_binding(core, attributes.user, validating::SORT.policies, (&new["spec"], old)))
        }
        _ => return Ok(()),
    };
    let Some(why) = why else { return Ok(()) };
    let error =
        FieldError { reason: "FieldValueForbidden", field: field.to_owned(), message: format!("Forbidden: {why}") };
    Err(Problem::invalid_field(kind.group, kind.kind, name(new), error))
}

/// The author of a policy must read all objects of the kind of its parameters.
fn of_policy(core: &Core, user: &UserInfo, new: &Value, old: &Value) -> Option<String> {
    let kind = &new["paramKind"];
    if kind.is_null() || *kind == old["paramKind"] {
        return None;
    }
    let (group, version, resource) = resolved(core, kind);
    let wanted = Wanted { verb: "get", group, version, resource: resource.unwrap_or("*"), namespace: "*", name: "*" };
    let why = format!(
        "user {} must have \"get\" permission on all objects of the referenced paramKind (kind={}, apiVersion={})",
        shown(user),
        text(kind, "kind"),
        text(kind, "apiVersion")
    );
    (!may(core, user, &wanted)).then_some(why)
}

/// The author of a binding must read what it refers to.
fn of_binding(core: &Core, user: &UserInfo, policies: &str, (new, old): (&Value, &Value)) -> Option<String> {
    let reference = &new["paramRef"];
    if reference.is_null() || (reference, &new["policyName"]) == (&old["paramRef"], &old["policyName"]) {
        return None;
    }
    let policy = CacheLookup(std::sync::Arc::clone(&core.store)).get(GROUP, policies, "", text(new, "policyName"));
    let kind = policy.as_ref().map(|policy| &policy["spec"]["paramKind"]).filter(|kind| !kind.is_null());
    let (group, version, resource) = kind.map_or(("*", "*", None), |kind| resolved(core, kind));
    let verb = if text(reference, "name").is_empty() { "list" } else { "get" };
    let wanted = Wanted {
        verb,
        group,
        version,
        resource: resource.unwrap_or("*"),
        namespace: text(reference, "namespace"),
        name: text(reference, "name"),
    };
    if may(core, user, &wanted) {
        return None;
    }
    let who = shown(user);
    let everything = format!(
        "to determine minimum required permissions and user {who} does not have \"{verb}\" permission for all groups, \
         versions and resources"
    );
    Some(match (&policy, kind, resource) {
        (None, ..) => format!("unable to get policy {} {everything}", text(new, "policyName")),
        (Some(_), Some(kind), None) => {
            format!("unable to resolve paramKind &{{{} {}}} {everything}", text(kind, "apiVersion"), text(kind, "kind"))
        }
        _ => format!("user {who} does not have \"{verb}\" permission on the object referenced by paramRef"),
    })
}

/// Group, version and resource of a kind; no resource where it is not served.
fn resolved<'a>(core: &Core, kind: &'a Value) -> (&'a str, &'a str, Option<&'static str>) {
    let (version, kind) = (text(kind, "apiVersion"), text(kind, "kind"));
    let (group, own) = version.split_once('/').unwrap_or(("", version));
    (group, own, core.kinds.registry().by_kind(version, kind).map(|kind| kind.plural))
}

fn may(core: &Core, user: &UserInfo, wanted: &Wanted<'_>) -> bool {
    let attributes = auth::Attributes {
        group: wanted.group,
        version: wanted.version,
        resource: wanted.resource,
        namespace: wanted.namespace,
        name: wanted.name,
        ..auth::Attributes::of(user, wanted.verb)
    };
    core.authorizer.authorize(&attributes).allowed()
}

/// As Go prints a user.
fn shown(user: &UserInfo) -> String {
    let extra: Vec<String> = user.extra.iter().map(|(key, values)| format!("{key}:[{}]", values.join(" "))).collect();
    format!("&{{{} {} [{}] map[{}]}}", user.username, user.uid, user.groups.join(" "), extra.join(" "))
}
