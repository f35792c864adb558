//! `v1` ResourceQuota.

use api::quantity::Quantity;
use jiff::Timestamp;
use serde_json::Value;

use crate::errors::{Errors, Path};
use crate::kind::{Column, Hooks, Kind, Names, Part, Subresource};
use crate::names::qualified_name;
use crate::value::Fields;
use crate::warnings::Warnings;
use crate::{meta, table};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.core.v1.ResourceQuota",
    short_names: &["quota"],
    subresources: &[Subresource::status("", "v1", "ResourceQuota")],
    returns_deleted_object: true,
    columns: COLUMNS,
    hooks: Hooks { row, validate, validate_update, warnings, ..Hooks::PLAIN },
    ..Kind::namespaced("", "v1", NAMES)
};

const NAMES: Names =
    Names { kind: "ResourceQuota", list: "ResourceQuotaList", plural: "resourcequotas", singular: "resourcequota" };

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Request", "What is used of what may be requested"),
    Column::text("Limit", "What is used of what limits may be"),
    Column::AGE,
];

const COMPUTE: [&str; 9] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];
const COUNTED: [&str; 11] = [
    "requests.storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
    "volumeattributesclass",
];
const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let status = object.at("status");
    let cells = |limits: bool| -> Value {
        let listed = status.entries("hard").filter(|(name, _)| name.starts_with("limits.") == limits);
        let shown = listed.map(|(name, hard)| {
            let used = status.at("used").at(name).as_str().unwrap_or("0");
            format!("{name}: {used}/{}", hard.as_str().unwrap_or_default())
        });
        shown.collect::<Vec<_>>().join(", ").into()
    };
    vec![table::name(object), cells(false), cells(true), table::age(object, now)]
}

fn validate(object: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let spec = object.at("spec");
    amounts(spec, "hard", &path, errors);
    scopes(spec, &path.child("scopes"), errors);
    if spec.has("scopeSelector") {
        let path = path.child("scopeSelector");
        selector(spec, &path.child("matchExpressions"), errors);
    }
}

fn amounts(object: &Value, field: &str, path: &Path, errors: &mut Errors) {
    let path = path.child(field);
    for (name, amount) in object.entries(field) {
        let path = path.key(name);
        qualified_name(name).iter().for_each(|text| errors.invalid(&path, name.as_str(), text));
        if !name.contains('/') && !is_standard(name) {
            errors.invalid(&path, name.as_str(), "must be a standard resource for quota");
        }
        let text = amount.as_str().unwrap_or_default();
        if text.starts_with('-') {
            errors.invalid(&path, text, "must be greater than or equal to 0");
        }
        let whole = COUNTED.contains(&name.as_str()) && name != "requests.storage";
        if whole && text.parse().is_ok_and(|quantity| !crate::quantity::is_integer(&quantity)) {
            errors.invalid(&path, text, "must be an integer");
        }
    }
}

fn is_standard(name: &str) -> bool {
    COMPUTE.contains(&name)
        || COUNTED.contains(&name)
        || name.starts_with("hugepages-")
        || name.starts_with("requests.hugepages-")
}

/// Which resources a scope can be said of (`IsResourceQuotaScopeValidForResource`).
fn fits(scope: &str, resource: &str) -> bool {
    match scope {
        "Terminating" | "NotTerminating" | "NotBestEffort" | "PriorityClass" | "CrossNamespacePodAffinity" => {
            resource == "pods" || COMPUTE.contains(&resource) || resource.contains("hugepages-")
        }
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "persistentvolumeclaims" | "requests.storage"),
        _ => true,
    }
}

fn conflicting(scopes: &[&str]) -> bool {
    [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]]
        .iter()
        .any(|pair| pair.iter().all(|scope| scopes.contains(scope)))
}

fn scopes(spec: &Value, path: &Path, errors: &mut Errors) {
    let shown = spec.at("scopes");
    let scopes: Vec<&str> = spec.list("scopes").iter().filter_map(Value::as_str).collect();
    for scope in &scopes {
        if !SCOPES.contains(scope) {
            errors.invalid(path, shown.clone(), "unsupported scope");
        }
        for _ in spec.entries("hard").filter(|(name, _)| is_standard(name) && !fits(scope, name)) {
            errors.invalid(path, shown.clone(), "unsupported scope applied to resource");
        }
    }
    if conflicting(&scopes) {
        errors.invalid(path, shown.clone(), "conflicting scopes");
    }
}

fn selector(spec: &Value, path: &Path, errors: &mut Errors) {
    let mut seen = Vec::new();
    for requirement in spec.at("scopeSelector").list("matchExpressions") {
        let (scope, operator) = (requirement.text("scopeName"), requirement.text("operator"));
        if !SCOPES.contains(&scope) {
            errors.invalid(&path.child("scopeName"), scope, "unsupported scope");
        }
        for _ in spec.entries("hard").filter(|(name, _)| is_standard(name) && !fits(scope, name)) {
            errors.invalid(path, spec.at("scopeSelector").clone(), "unsupported scope applied to resource");
        }
        let only_exists = !matches!(scope, "PriorityClass" | "VolumeAttributesClass") && SCOPES.contains(&scope);
        if only_exists && operator != "Exists" {
            let detail = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
                          ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, \
                          ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.invalid(&path.child("operator"), operator, detail);
        }
        let values = requirement.list("values");
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                let detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.required(&path.child("values"), detail);
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errors.invalid(&path.child("values"), requirement.at("values").clone(), detail);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
        }
        seen.push(scope);
    }
    if conflicting(&seen) {
        errors.invalid(path, spec.at("scopes").clone(), "conflicting scopes");
    }
}

fn validate_update(part: Part, object: &Value, old: &Value, errors: &mut Errors) {
    if part == Part::Status {
        let path = Path::root("status");
        ["hard", "used"].iter().for_each(|field| amounts(object.at("status"), field, &path, errors));
        return;
    }
    validate(object, errors);
    let sorted = |object: &Value| {
        let mut scopes: Vec<String> =
            object.at("spec").list("scopes").iter().filter_map(Value::as_str).map(str::to_owned).collect();
        scopes.sort();
        scopes
    };
    if sorted(object) != sorted(old) {
        let path = Path::root("spec");
        errors.invalid(&path.child("scopes"), object.at("spec").at("scopes").clone(), meta::IMMUTABLE);
    }
}

/// Of a new quota whose requests may be more than its limits.
fn warnings(part: Part, object: &Value, old: Option<&Value>, warnings: &mut Warnings) {
    if part != Part::Main || old.is_some() {
        return;
    }
    let hard = object.at("spec").at("hard");
    let names = [
        ("requests.cpu", "cpu", "limits.cpu"),
        ("requests.memory", "memory", "limits.memory"),
        ("requests.storage", "", "limits.storage"),
        ("requests.ephemeral-storage", "", "limits.ephemeral-storage"),
    ];
    for (requests, bare, limits) in names {
        let asked = if hard.has(requests) { requests } else { bare };
        let (Some(request), Some(limit)) = (hard.at(asked).as_str(), hard.at(limits).as_str()) else { continue };
        let amount = |text: &str| text.parse::<Quantity>().unwrap_or_default();
        if amount(request) > amount(limit) {
            warnings.say(format!("ResourceQuota {asked} ({request}) should be less than {limits} ({limit})"));
        }
    }
}
