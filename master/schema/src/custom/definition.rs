//! `spec` and `status` of a CustomResourceDefinition (`apiextensions-apiserver/pkg/apis/apiextensions/validation`).

use serde_json::Value;

use super::json_path::JsonPath;
use super::{rule_problems, structural};
use crate::errors::{Errors, Path};
use crate::names::{dns_1035_label, dns_subdomain};
use crate::value::{Fields, same};

const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];
const MOST_SELECTABLE: usize = 8;
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];

pub(crate) fn spec(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let group = spec.text("group");
    if group.is_empty() {
        errors.required(&path.child("group"), "");
    } else if !dns_subdomain(group).is_empty() {
        errors.invalid(&path.child("group"), group, &dns_subdomain(group).join(","));
    } else if !group.contains('.') {
        errors.invalid(&path.child("group"), group, "should be a domain with at least one dot");
    }
    match spec.text("scope") {
        "" => errors.required(&path.child("scope"), ""),
        "Cluster" | "Namespaced" => {}
        other => errors.not_supported(&path.child("scope"), other, &["Cluster", "Namespaced"]),
    }
    if spec.flag("preserveUnknownFields") {
        let detail =
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead";
        errors.invalid(&path.child("preserveUnknownFields"), true, detail);
    }
    versions(spec, path, errors);
    for field in ["plural", "singular", "kind", "listKind"] {
        if spec.at("names").text(field).is_empty() {
            errors.required(&path.child("names").child(field), "");
        }
    }
    names(spec.at("names"), &path.child("names"), errors);
    conversion(spec.at("conversion"), &path.child("conversion"), errors);
}

fn versions(spec: &Value, of: &Path<'_>, errors: &mut Errors) {
    let versions = spec.list("versions");
    let path = of.child("versions");
    for (index, one) in versions.iter().enumerate() {
        if !one.at("schema").has("openAPIV3Schema") {
            errors.required(&path.index(index).child("schema").child("openAPIV3Schema"), "schemas are required");
        }
    }
    for (index, one) in versions.iter().enumerate() {
        let path = path.index(index);
        let wrong = dns_1035_label(one.text("name"));
        if !wrong.is_empty() {
            errors.invalid(&path.child("name"), one.text("name"), &wrong.join(","));
        }
        deprecation(one, &path.child("deprecationWarning"), errors);
    }
    parts(versions, of, errors);
    let shown = || spec.at("versions").clone();
    let names: Vec<&str> = versions.iter().map(|one| one.text("name")).collect();
    if names.iter().enumerate().any(|(index, name)| names.iter().take(index).any(|earlier| earlier == name)) {
        errors.invalid(&path, shown(), "must contain unique version names");
    }
    if versions.iter().filter(|one| one.flag("storage")).count() != 1 {
        errors.invalid(&path, shown(), "must have exactly one version marked as storage version");
    }
}

/// Parts of versions. What all versions have alike is told once, as if the definition had it (`v1/conversion.go`).
fn parts(versions: &[Value], of: &Path<'_>, errors: &mut Errors) {
    for (field, together, check) in PARTS {
        let Some(first) = versions.first() else { return };
        if versions.iter().all(|one| same(one.at(field), first.at(field))) {
            check(first, &of.child(together), errors);
            continue;
        }
        for (index, one) in versions.iter().enumerate() {
            check(one, &of.child("versions").index(index).child(field), errors);
        }
    }
}

type Check = fn(&Value, &Path<'_>, &mut Errors);

/// Where it stands, what it is called where all versions have the same, and what there is to say about a version's.
const PARTS: [(&str, &str, Check); 4] = [
    ("schema", "validation", schema),
    ("subresources", "subresources", |version, path, errors| {
        scale(version.at("subresources").at("scale"), path, errors);
    }),
    ("additionalPrinterColumns", "additionalPrinterColumns", |version, path, errors| {
        for (index, one) in version.list("additionalPrinterColumns").iter().enumerate() {
            column(one, &path.index(index), errors);
        }
    }),
    ("selectableFields", "selectableFields", |version, path, errors| {
        selectable(version, version.at("schema").at("openAPIV3Schema"), path, errors);
    }),
];

fn schema(version: &Value, path: &Path<'_>, errors: &mut Errors) {
    let schema = version.at("schema").at("openAPIV3Schema");
    if schema.is_null() {
        return;
    }
    let (before, place) = (errors.len(), path.child("openAPIV3Schema"));
    structural::check(schema, &place, errors);
    if errors.len() == before {
        rule_problems(schema, &place, errors);
    }
}

fn deprecation(version: &Value, path: &Path<'_>, errors: &mut Errors) {
    let Some(warning) = version.at("deprecationWarning").as_str() else { return };
    if !version.flag("deprecated") {
        return errors.invalid(path, warning, "can only be set for deprecated versions");
    }
    if warning.len() > 256 {
        errors.invalid(path, warning, "must be <= 256 characters long");
    }
    if warning.is_empty() {
        errors.invalid(path, warning, "must not be an empty string");
    }
    if let Some((at, _)) = warning.char_indices().find(|(_, c)| c.is_control()) {
        let detail =
            format!("must only contain printable UTF-8 characters; non-printable character found at index {at}");
        errors.invalid(path, warning, &detail);
    }
}

fn scale(scale: &Value, path: &Path<'_>, errors: &mut Errors) {
    if scale.is_null() {
        return;
    }
    for (field, place, under, detail) in [
        ("specReplicasPath", "scale.specReplicasPath", ".spec.", "should be a json path under .spec"),
        ("statusReplicasPath", "scale.statusReplicasPath", ".status.", "should be a json path under .status"),
    ] {
        let (said, place) = (scale.text(field), path.child(place));
        match said.chars().next() {
            None => errors.required(&place, ""),
            Some('.') if !said.starts_with(under) => errors.invalid(&place, said, detail),
            Some('.') => {}
            Some(_) => errors.invalid(&place, said, "must be a simple json path starting with ."),
        }
    }
    let (said, place) = (scale.text("labelSelectorPath"), path.child("scale.labelSelectorPath"));
    if !said.is_empty() && !said.starts_with(".spec.") && !said.starts_with(".status.") {
        errors.invalid(&place, said, "should be a json path under either .spec or .status");
    }
}

fn column(column: &Value, path: &Path<'_>, errors: &mut Errors) {
    if column.text("name").is_empty() {
        errors.required(&path.child("name"), "");
    }
    let one_of = |all: &[&str]| format!("must be one of {}", all.join(","));
    match column.text("type") {
        "" => errors.required(&path.child("type"), &one_of(&COLUMN_TYPES)),
        kind if !COLUMN_TYPES.contains(&kind) => errors.invalid(&path.child("type"), kind, &one_of(&COLUMN_TYPES)),
        _ => {}
    }
    let format = column.text("format");
    if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
        errors.invalid(&path.child("format"), format, &one_of(&COLUMN_FORMATS));
    }
    let (said, place) = (column.text("jsonPath"), path.child("JSONPath"));
    if said.is_empty() {
        errors.required(&place, "");
    } else if !said.starts_with('.') {
        errors.invalid(&place, said, "must be a simple json path starting with .");
    } else if JsonPath::parse(said).is_err() {
        errors.invalid(&place, said, "must be a json path in the dot notation");
    }
}

fn selectable(version: &Value, schema: &Value, path: &Path<'_>, errors: &mut Errors) {
    let fields = version.list("selectableFields");
    let mut seen: Vec<&str> = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        let (said, path) = (field.text("jsonPath"), path.index(index));
        let place = path.child("jsonPath");
        if said.is_empty() {
            errors.required(&place, "");
            continue;
        }
        let Some(steps) = said.strip_prefix('.') else {
            errors.invalid(&place, said, "is an invalid path: expected . at the start of the path");
            continue;
        };
        let found = steps.split('.').try_fold(schema, |at, step| at.at("properties").get(step));
        if steps == "metadata" || steps.starts_with("metadata.") {
            errors.invalid(&place, said, "must not point to fields in metadata");
        }
        match found {
            None => {
                let detail = format!("is an invalid path: does not refer to a valid field: {said}");
                errors.invalid(&place, said, &detail);
            }
            Some(schema) if !matches!(schema.text("type"), "string" | "boolean" | "integer") => {
                let detail = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.";
                errors.invalid(&place, said, detail);
            }
            Some(_) => {}
        }
        if seen.contains(&said) {
            errors.duplicate(&place, said);
        } else {
            seen.push(said);
        }
    }
    if seen.len() > MOST_SELECTABLE {
        errors.too_many(path, seen.len(), MOST_SELECTABLE);
    }
}

/// The names that are asked for, or those that were accepted.
pub(crate) fn names(names: &Value, path: &Path<'_>, errors: &mut Errors) {
    let label = |text: &str, place: &Path<'_>, errors: &mut Errors| {
        let wrong = dns_1035_label(text);
        if !text.is_empty() && !wrong.is_empty() {
            errors.invalid(place, text, &wrong.join(","));
        }
    };
    for field in ["plural", "singular"] {
        label(names.text(field), &path.child(field), errors);
    }
    for field in ["kind", "listKind"] {
        let text = names.text(field);
        let wrong = dns_1035_label(&text.to_lowercase());
        if !text.is_empty() && !wrong.is_empty() {
            let detail = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
            errors.invalid(&path.child(field), text, &detail);
        }
    }
    for field in ["shortNames", "categories"] {
        for (index, text) in names.list(field).iter().filter_map(Value::as_str).enumerate() {
            label(text, &path.child(field).index(index), errors);
        }
    }
    let list = names.text("listKind");
    if !list.is_empty() && list == names.text("kind") {
        errors.invalid(&path.child("listKind"), list, "kind and listKind may not be the same");
    }
}

fn conversion(conversion: &Value, path: &Path<'_>, errors: &mut Errors) {
    if conversion.is_null() {
        return;
    }
    let webhook = conversion.at("webhook");
    match conversion.text("strategy") {
        "Webhook" => {
            let config = webhook.at("clientConfig");
            let place = path.child("webhookClientConfig");
            if config.is_null() {
                errors.required(&place, "required when strategy is set to Webhook");
            } else {
                client_config(config, &place, errors);
            }
            review_versions(webhook, &path.child("conversionReviewVersions"), errors);
        }
        "None" => {
            if webhook.has("clientConfig") {
                let detail = "should not be set when strategy is not set to Webhook";
                errors.forbidden(&path.child("webhookClientConfig"), detail);
            }
            if !webhook.list("conversionReviewVersions").is_empty() {
                let detail = "should not be set when strategy is not set to Webhook";
                errors.forbidden(&path.child("conversionReviewVersions"), detail);
            }
        }
        "" => errors.required(&path.child("strategy"), ""),
        other => errors.not_supported(&path.child("strategy"), other, &["None", "Webhook"]),
    }
}

fn review_versions(webhook: &Value, path: &Path<'_>, errors: &mut Errors) {
    let versions = webhook.list("conversionReviewVersions");
    if versions.is_empty() {
        return errors.required(path, "");
    }
    for (index, version) in versions.iter().enumerate() {
        let text = version.as_str().unwrap_or_default();
        if versions.iter().take(index).any(|earlier| earlier == version) {
            errors.invalid(&path.index(index), text, "duplicate version");
            continue;
        }
        dns_1035_label(text).iter().for_each(|why| errors.invalid(&path.index(index), text, why));
    }
    if !versions.iter().filter_map(Value::as_str).any(|version| REVIEW_VERSIONS.contains(&version)) {
        let detail = format!("must include at least one of {}", REVIEW_VERSIONS.join(", "));
        errors.invalid(path, webhook.at("conversionReviewVersions").clone(), &detail);
    }
}

/// Where a webhook is: exactly one of a URL and a Service (`apiserver/pkg/util/webhook/validation.go`).
pub(crate) fn client_config(config: &Value, path: &Path<'_>, errors: &mut Errors) {
    match (config.has("url"), config.has("service")) {
        (true, false) => url(config.text("url"), &path.child("url"), errors),
        (false, true) => service(config.at("service"), &path.child("service"), errors),
        _ => errors.required(path, "exactly one of url or service is required"),
    }
}

fn url(text: &str, path: &Path<'_>, errors: &mut Errors) {
    const FORM: &str = "; desired format: https://host[/path]";
    let mut wrong = |detail: &str| errors.invalid(path, text, &format!("{detail}{FORM}"));
    let Some(rest) = text.strip_prefix("https://") else {
        let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
        return wrong(&format!("'https' is the only allowed URL scheme, but got \"{scheme}\""));
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.is_empty() {
        wrong("host must be specified");
    }
    if let Some((user, _)) = host.rsplit_once('@') {
        wrong(&format!("\"{user}\": user information is not permitted in the URL"));
    }
    for (mark, what) in
        [('#', "fragments are not permitted in the URL"), ('?', "query parameters are not permitted in the URL")]
    {
        if let Some((_, part)) = rest.split_once(mark) {
            wrong(&format!("\"{part}\": {what}"));
        }
    }
}

fn service(service: &Value, path: &Path<'_>, errors: &mut Errors) {
    if service.text("name").is_empty() {
        errors.required(&path.child("name"), "service name is required");
    }
    if service.text("namespace").is_empty() {
        errors.required(&path.child("namespace"), "service namespace is required");
    }
    if let Some(port) = service.int("port").filter(|port| crate::names::port_number(*port).is_some()) {
        errors.invalid(&path.child("port"), port, "port is not valid: must be between 1 and 65535, inclusive");
    }
    // An empty path is none.
    let text = service.text("path");
    if !text.is_empty() && !text.starts_with('/') {
        errors.invalid(&path.child("path"), text, "must start with a '/'");
    }
}

/// The versions that objects may be stored in.
pub(crate) fn stored_versions(definition: &Value, errors: &mut Errors) {
    let status = Path::root("status");
    let path = status.child("storedVersions");
    let (stored, versions) = (definition.at("status").list("storedVersions"), definition.at("spec").list("versions"));
    let shown = || definition.at("status").at("storedVersions").clone();
    if stored.is_empty() {
        return errors.invalid(&path, shown(), "must have at least one stored version");
    }
    for version in versions.iter().filter(|version| version.flag("storage")) {
        if !stored.contains(version.at("name")) {
            errors.invalid(&path, shown(), &format!("must have the storage version {}", version.text("name")));
        }
    }
    for (index, name) in stored.iter().enumerate().filter(|(_, name)| !versions.iter().any(|v| v.at("name") == *name)) {
        let text = name.as_str().unwrap_or_default();
        let detail = format!(
            "missing from spec.versions; {text} was previously a storage version, and must remain in spec.versions \
             until a storage migration ensures no data remains persisted in {text} and removes {text} from \
             status.storedVersions"
        );
        errors.invalid(&path.index(index), text, &detail);
    }
}

/// What of `spec` cannot change: names that paths and stored objects hang on.
pub(crate) fn immutable(new: &Value, old: &Value, is_established: bool, errors: &mut Errors) {
    let path = Path::root("spec");
    let names = path.child("names");
    let mut check = |a: &Value, b: &Value, place: &Path<'_>| {
        if !same(a, b) {
            errors.invalid(place, a.clone(), crate::meta::IMMUTABLE);
        }
    };
    if is_established {
        check(new.at("scope"), old.at("scope"), &path.child("scope"));
        check(new.at("names").at("kind"), old.at("names").at("kind"), &names.child("kind"));
    }
    check(new.at("group"), old.at("group"), &path.child("group"));
    check(new.at("names").at("plural"), old.at("names").at("plural"), &names.child("plural"));
}
