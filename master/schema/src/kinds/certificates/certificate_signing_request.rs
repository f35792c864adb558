//! `certificates.k8s.io/v1` CertificateSigningRequest.

use jiff::Timestamp;
use serde_json::Value;

use crate::errors::{Errors, Path};
use crate::kind::{Column, FieldLabel, Hooks, Kind, NameRule, Names, Part, Subresource};
use crate::table::{self, human_duration};
use crate::value::{Fields, put, same};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.certificates.v1.CertificateSigningRequest",
    short_names: &["csr"],
    subresources: &[
        Subresource {
            name: "approval",
            group: "certificates.k8s.io",
            version: "v1",
            kind: "CertificateSigningRequest",
            verbs: &["get", "patch", "update"],
        },
        Subresource::status("certificates.k8s.io", "v1", "CertificateSigningRequest"),
    ],
    fields: &[FieldLabel::text("spec.signerName", "/spec/signerName")],
    // A kubelet's are digests in base64.
    names: NameRule::PathSegment,
    columns: COLUMNS,
    hooks: Hooks { row, default, prepare_update, validate, validate_update, ..Hooks::PLAIN },
    ..Kind::cluster("certificates.k8s.io", "v1", NAMES)
};

const NAMES: Names = Names {
    kind: "CertificateSigningRequest",
    list: "CertificateSigningRequestList",
    plural: "certificatesigningrequests",
    singular: "certificatesigningrequest",
};

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::AGE,
    Column::text("SignerName", "Who is asked to sign"),
    Column::text("Requestor", "Who asks"),
    Column::text("RequestedDuration", "How long the certificate shall be valid"),
    Column::text("Condition", "What has become of the request"),
];

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = object.at("spec");
    let duration = spec.int("expirationSeconds").map(human_duration).unwrap_or_default();
    vec![
        table::name(object),
        table::age(object, now),
        table::or_none(spec.text("signerName")),
        spec.text("username").into(),
        table::or_none(&duration),
        condition(object.at("status")).into(),
    ]
}

fn condition(status: &Value) -> String {
    let has = |kind| table::condition(status, kind).is_some();
    let mut text = if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    }
    .to_string();
    if has("Failed") {
        text.push_str(",Failed");
    }
    if !status.text("certificate").is_empty() {
        text.push_str(",Issued");
    }
    text
}

/// Every `KeyUsage` of the API.
const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

fn default(object: &mut Value) {
    for condition in object.pointer_mut("/status/conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        if condition.text("status").is_empty() {
            put(condition, "status", "True".into());
        }
    }
}

/// A request never changes; `…/approval` takes the conditions, `…/status` the certificate.
fn prepare_update(part: Part, object: &mut Value, old: &Value) {
    put(object, "spec", old.at("spec").clone());
    let kept: &[&str] = match part {
        Part::Other("approval") => &["certificate"],
        _ => &[],
    };
    for field in kept {
        let before = old.at("status").at(field).clone();
        if let Some(status) = object.get_mut("status") {
            put(status, field, before);
        }
    }
}

fn validate(object: &Value, errors: &mut Errors) {
    let path = Path::root("spec");
    let spec = object.at("spec");
    if spec.text("request").is_empty() {
        errors.invalid(&path.child("request"), "", "PEM block type must be CERTIFICATE REQUEST");
    }
    let usages = spec.list("usages");
    let at = path.child("usages");
    if usages.is_empty() {
        errors.required(&at, "");
    }
    for (index, usage) in usages.iter().filter_map(Value::as_str).enumerate() {
        if !USAGES.contains(&usage) {
            errors.not_supported(&at.index(index), usage, USAGES);
        }
        if usages.iter().take(index).any(|other| other == usage) {
            errors.duplicate(&at.index(index), usage);
        }
    }
    signer(spec.text("signerName"), &path.child("signerName"), errors);
    if let Some(seconds) = spec.int("expirationSeconds").filter(|seconds| *seconds < 600) {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.invalid(&path.child("expirationSeconds"), seconds, detail);
    }
    conditions(object.at("status"), errors);
}

fn signer(name: &str, path: &Path, errors: &mut Errors) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    if name == "kubernetes.io/legacy-unknown" {
        errors.invalid(path, name, "the legacy signerName is not allowed via this API version");
    }
    let shaped = name.split_once('/').is_some_and(|(domain, rest)| domain.contains('.') && !rest.is_empty());
    if !shaped {
        errors.invalid(path, name, "must be a fully qualified domain and path of the form 'example.com/signer-name'");
    }
}

fn conditions(status: &Value, errors: &mut Errors) {
    let path = Path::root("status");
    let path = path.child("conditions");
    let all = status.list("conditions");
    for (index, condition) in all.iter().enumerate() {
        let at = path.index(index);
        let kind = condition.text("type");
        if kind.is_empty() {
            errors.required(&at.child("type"), "");
        }
        match condition.text("status") {
            "True" => {}
            "" => errors.required(&at.child("status"), ""),
            other if matches!(kind, "Approved" | "Denied" | "Failed") => {
                errors.not_supported(&at.child("status"), other, &["True"]);
            }
            "False" | "Unknown" => {}
            other => errors.not_supported(&at.child("status"), other, &["False", "True", "Unknown"]),
        }
        let earlier = || all.iter().take(index).map(|c| c.text("type"));
        if earlier().any(|other| other == kind) {
            errors.duplicate(&at.child("type"), kind);
        }
        let opposed = matches!(kind, "Approved" | "Denied")
            && earlier().any(|other| other != kind && matches!(other, "Approved" | "Denied"));
        if opposed {
            errors.invalid(&path, kind, "Approved and Denied conditions are mutually exclusive");
        }
    }
}

fn validate_update(part: Part, object: &Value, old: &Value, errors: &mut Errors) {
    validate(object, errors);
    let root = Path::root("status");
    let path = root.child("conditions");
    let (status, before) = (object.at("status"), old.at("status"));
    let of = |status: &Value, kind: &str| table::condition(status, kind).cloned().unwrap_or_default();
    for kind in ["Approved", "Denied", "Failed"] {
        let (new, was) = (of(status, kind), of(before, kind));
        if !was.is_null() && new.is_null() {
            errors.forbidden(&path, &format!("updates may not remove a condition of type \"{kind}\""));
        }
        let may_add = part == Part::Other("approval") || kind == "Failed";
        if was.is_null() && !new.is_null() && !may_add {
            errors.forbidden(&path, &format!("updates may not add a condition of type \"{kind}\""));
        }
    }
    let certificate = before.text("certificate");
    if !certificate.is_empty() && !same(status.at("certificate"), before.at("certificate")) {
        errors.forbidden(&root.child("certificate"), "updates may not modify existing certificate content");
    }
}
